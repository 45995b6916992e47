//! Saved inputs: Kafka's own files and bodies in `tests/golden`, ours in `tests/corpus`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ringlog::storage::log_dir::parse_directory_name;

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// The files of a directory by name.
fn files_in(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let files = entries.map(|entry| entry.expect("an entry")).filter(|entry| entry.path().is_file());
    files
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).expect("readable")))
        .collect()
}

/// The saved inputs of one target.
pub fn saved(target: &str) -> Vec<Vec<u8>> {
    files_in(&tests().join("corpus").join(target)).into_values().collect()
}

/// A directory that a killed Kafka left.
fn golden() -> PathBuf {
    tests().join("golden/kafka-3.9/unclean")
}

/// The files of one partition that a killed Kafka left.
pub fn partition(name: &str) -> BTreeMap<String, Vec<u8>> {
    files_in(&golden().join(name))
}

/// Files of the log directory itself whose names end so.
pub fn beside_partitions(suffix: &str) -> Vec<Vec<u8>> {
    files_in(&golden()).into_iter().filter(|(name, _)| name.ends_with(suffix)).map(|(_, file)| file).collect()
}

/// Files whose names end so, of all partitions; longer ones are left out, and all but one of those that are the same.
pub fn of_partitions(suffix: &str, bytes_max: usize) -> Vec<Vec<u8>> {
    let mut found = std::collections::BTreeSet::new();
    for entry in fs::read_dir(golden()).expect("the golden directory") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        if parse_directory_name(&name).is_some() {
            let files = partition(&name).into_iter().filter(|(name, _)| name.ends_with(suffix));
            found.extend(files.map(|(_, file)| file).filter(|file| file.len() <= bytes_max));
        }
    }
    found.into_iter().collect()
}

fn hex(text: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(digits).collect()
}

/// One body as Kafka's classes wrote it.
pub struct Body {
    pub message: String,
    pub version: i16,
    pub bytes: Vec<u8>,
}

/// Every message in every version, default and filled.
pub fn bodies() -> Vec<Body> {
    let text = include_str!("../golden/protocol/kafka-3.9.0.txt");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let version = words[1].parse().expect("a version");
            Body { message: words[0].to_owned(), version, bytes: hex(words[3]) }
        })
        .collect()
}

/// Stored batches of every codec, and the message sets of magic 0 and 1 that Kafka makes of them.
pub fn batches_and_sets() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let text = include_str!("../golden/protocol/down-conversion-3.9.0.txt");
    let (mut batches, mut sets) = (Vec::new(), Vec::new());
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        batches.push(hex(words[3]));
        sets.push(hex(words[4]));
    }
    for list in [&mut batches, &mut sets] {
        list.sort();
        list.dedup();
        list.retain(|bytes| !bytes.is_empty());
    }
    (batches, sets)
}
