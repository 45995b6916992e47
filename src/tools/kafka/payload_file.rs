//! `--payload-file` of the producer's performance test: texts to send, between delimiters (Kafka 3.9
//! `ProducerPerformance.readPayloadFile`).

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use regex::Regex;

use crate::bench::failures;
use crate::failure::Failure;

/// Of the file, all of which is kept in memory.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// The texts of a file; bytes that are no UTF-8 become the sign for that, as Kafka sends them.
///
/// # Errors
/// The file can't be read, is empty or too large, or has nothing but delimiters.
pub fn read(path: &Path, delimiter: &Regex) -> Result<Vec<Vec<u8>>, Failure> {
    let name = path.display();
    let refused = |why: &str| Failure::Refused(format!("{name}: {why}"));
    let file = File::open(path).map_err(|error| failures::file(path, &error))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| failures::file(path, &error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(refused("a payload file has at most 1 GiB"));
    }
    if bytes.is_empty() {
        return Err(refused("the file is empty; there is nothing to send"));
    }
    let payloads = split(&String::from_utf8_lossy(&bytes), delimiter);
    if payloads.is_empty() {
        return Err(refused("the file has nothing but delimiters; there is nothing to send"));
    }
    Ok(payloads)
}

/// The delimiter, a regular expression.
///
/// # Errors
/// In words, if it is none, or one with parts that only Java's have.
pub fn delimiter(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|_| {
        format!("'{text}' is no regular expression that can be used here; look-around and back references can't")
    })
}

/// As Java's `String.split`: empty texts at the end do not count, nor one before a delimiter without a length at the
/// beginning.
fn split(text: &str, delimiter: &Regex) -> Vec<Vec<u8>> {
    let bytes = text.as_bytes();
    let mut payloads = Vec::new();
    let mut start = 0;
    for found in delimiter.find_iter(text) {
        if found.end() > 0 {
            payloads.push(bytes[start..found.start()].to_vec());
            start = found.end();
        }
    }
    if payloads.is_empty() && start == 0 {
        return vec![bytes.to_vec()];
    }
    payloads.push(bytes[start..].to_vec());
    payloads.truncate(payloads.iter().rposition(|payload| !payload.is_empty()).map_or(0, |last| last + 1));
    payloads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_split_as_java_splits_them() {
        for (by, text, expected) in [
            ("\\n", "a\nbc\n\n", &["a", "bc"][..]),
            ("\n", "\na\n", &["", "a"]),
            ("\\t", "a\tb", &["a", "b"]),
            (",", "none", &["none"]),
            (", ?", "a, b,c,,d", &["a", "b", "c", "", "d"]),
            ("\\|", "a|b", &["a", "b"]),
            ("", "abc", &["a", "b", "c"]),
            (",", ",,,", &[]),
        ] {
            let found = split(text, &delimiter(by).expect("an expression"));
            assert_eq!(found, expected.iter().map(|one| one.as_bytes().to_vec()).collect::<Vec<_>>(), "{by} {text}");
        }
    }

    #[test]
    fn what_only_java_understands_is_refused_in_a_sentence() {
        for wrong in ["(?=x)", "(a)\\1", "(", "*"] {
            assert!(delimiter(wrong).is_err_and(|why| why.contains("no regular expression")), "{wrong}");
        }
    }

    #[test]
    fn a_file_without_anything_to_send_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let newline = delimiter("\\n").expect("an expression");
        for (text, why) in [("", "is empty"), ("\n\n", "nothing but delimiters")] {
            std::fs::write(file.path(), text).expect("written");
            let refused = read(file.path(), &newline).expect_err("nothing to send");
            assert!(refused.to_string().contains(why), "{refused}");
        }
        assert!(read(Path::new("/nowhere/at/all"), &newline).is_err());
    }
}
