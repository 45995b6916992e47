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
