//! `kafka-dump-log` with the decoders of the coordinators' topics, held to Kafka's own words; needs no broker.

use std::path::{Path, PathBuf};

use super::{Ran, anywhere, ended};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tools/coordinators")
}

fn dumped(flags: &[&str]) -> Ran {
    ended(anywhere(&[&["kafka", "dump-log"], flags].concat()).current_dir(golden()).spawn().expect("the tool starts"))
}

fn is_as_kafkas(decoder: &str, name: &str) {
    let file = format!("{name}/00000000000000000000.log");
    let ran = dumped(&[decoder, "--skip-record-metadata", "--files", &file]);
    assert_eq!((ran.code, &ran.stderr[..]), (0, ""));
    let expected = std::fs::read_to_string(golden().join(format!("{name}.txt"))).expect("Kafka's words");
    for (line, (ours, kafkas)) in ran.stdout.lines().zip(expected.lines()).enumerate() {
        assert_eq!(ours, kafkas, "line {} of {name}", line + 1);
    }
    assert_eq!(ran.stdout.len(), expected.len());
}

#[test]
fn offsets_and_groups_are_shown_in_kafkas_words_in_every_version_and_damaged() {
    is_as_kafkas("--offsets-decoder", "offsets");
}

#[test]
fn transactions_are_shown_in_kafkas_words_and_order_in_every_version() {
    is_as_kafkas("--transaction-log-decoder", "transactions");
}

#[test]
fn a_decoder_of_another_topic_says_what_is_wrong_and_those_that_have_no_topic_are_refused() {
    let offsets = "offsets/00000000000000000000.log";
    let wrong = dumped(&["--transaction-log-decoder", "--files", offsets]);
    assert_eq!(wrong.code, 1);
    assert!(wrong.stdout.ends_with("headerKeys: []") && wrong.stderr.contains("was serialized as null"), "{wrong:?}");
    for (decoder, why) in [("--cluster-metadata-decoder", "KRaft"), ("--remote-log-metadata-decoder", "tiered storage")]
    {
        let refused = dumped(&[decoder, "--files", offsets]);
        assert!(refused.code == 1 && refused.stderr.contains(why) && refused.stdout.is_empty(), "{refused:?}");
    }
    let old = dumped(&["--value-decoder-class", "kafka.serializer.StringDecoder", "--files", offsets]);
    let warning =
        "kafka.serializer.StringDecoder is deprecated. Please use org.apache.kafka.tools.api.StringDecoder instead";
    assert_eq!((old.code, old.stdout.lines().nth(1)), (0, Some(warning)));
}

/// Exit codes of Kafka 3.9.1's tool.
#[test]
fn a_file_that_is_not_there_a_tail_of_zeros_and_a_name_without_an_offset_end_with_1_as_in_kafka() {
    let directory = tempfile::tempdir().expect("a directory");
    let sound = std::fs::read(golden().join("offsets/00000000000000000000.log")).expect("a log");
    let file = |offset: u8, bytes: &[u8]| {
        let path = directory.path().join(format!("{offset:020}.log"));
        std::fs::write(&path, bytes).expect("written");
        path.to_str().expect("text").to_owned()
    };
    let absent = |name: &str| directory.path().join(name).to_str().expect("text").to_owned();
    for (path, code, said) in [
        (file(0, &sound), 0, ""),
        (file(1, &[&sound[..], &[0; 4096]].concat()), 1, "an entry of 0 bytes"),
        (file(2, &[0; 40]), 1, "an entry of 0 bytes"),
        (file(3, &[0; 17]), 0, ""),
        (file(4, &[&sound[..], b"abcdefghijklmnopqrstuvwxyz"].concat()), 0, ""),
        (absent("00000000000000000009.log"), 1, "no such file"),
        (absent("00000000000000000009.index"), 1, "no file"),
        (absent("00000000000000000009.txnindex"), 0, ""),
        (absent("x.log"), 1, "OFFSET.SUFFIX"),
        (absent("nothing"), 1, "OFFSET.SUFFIX"),
        (absent("x.txt"), 0, "Ignoring unknown file"),
    ] {
        let ran = dumped(&["--files", &path]);
        assert_eq!(ran.code, code, "{path}: {ran:?}");
        assert!(ran.stderr.contains(said) && (!said.is_empty() || ran.stderr.is_empty()), "{path}: {ran:?}");
    }
}
