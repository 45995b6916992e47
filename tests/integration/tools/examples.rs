//! Every example of every help text, run as it stands there.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Ran, anywhere, done, ended, feed};
use crate::server::{Server, directory};

/// What can't be tried: it needs two brokers, names of brokers that nobody has, a long run, a partition's files or the
/// machine's own.
const NOT_HERE: [&str; 6] =
    ["--assignment", "kafka1:9092", "ringlog bench", "ringlog serve", "ringlog log", "ringlog tune"];

/// What the examples talk about.
const TOPICS: [&str; 6] = ["orders", "payments", "greetings", "images", "numbers", "events"];

fn help(command: &[&str]) -> String {
    let ran = ended(anywhere(&[command, &["--help"]].concat()).spawn().expect("the tool starts"));
    assert_eq!(ran.code, 0, "{command:?}");
    ran.stdout
}

/// Lines of the list under this heading, up to the next paragraph.
fn listed<'a>(help: &'a str, heading: &str) -> impl Iterator<Item = &'a str> {
    let start = help.find(heading).map_or(help.len(), |at| at + heading.len());
    help[start..].lines().skip(1).take_while(|line| !line.is_empty())
}

/// The help of a command and of all below it.
fn helps<'a>(text: &'a str, command: &[&'a str], all: &mut Vec<(String, String)>) {
    for line in listed(text, "Commands:").filter(|line| line.starts_with("  ") && !line.starts_with("   ")) {
        let below = [command, &[line.split_whitespace().next().expect("a name")]].concat();
        let text = help(&below);
        helps(&text, &below, all);
        all.push((below.join(" "), text));
    }
}

fn all_helps() -> Vec<(String, String)> {
    let first = help(&[]);
    let mut all = Vec::new();
    helps(&first, &[], &mut all);
    all.push((String::new(), first));
    all
}

/// Examples without what is said about them, which stands two blanks or more behind.
fn examples(help: &str) -> Vec<String> {
    let lines = listed(help, "Examples:").chain(listed(help, "First steps:")).filter(|line| line.contains("ringlog "));
    lines.map(|line| line.trim().split("  ").next().unwrap_or_default().trim().to_owned()).collect()
}

/// Runs a line in a shell; what would go on for ever ends when nothing comes.
fn shell(server: &Server, directory: &Path, line: &str) -> Ran {
    let idle = if line.contains("ringlog consume") && !line.contains(" -e") { " --idle 20ms" } else { "" };
    // A thousand lines say as much as a million.
    let script = format!("set -o pipefail; seq() {{ command seq 1000; }}; {line}{idle}");
    let program = Path::new(env!("CARGO_BIN_EXE_ringlog")).parent().expect("a directory");
    let path = std::env::join_paths(
        std::iter::once(program.to_owned()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    );
    let mut command = Command::new("bash");
    command.args(["-c", &script]).current_dir(directory).env("PATH", path.expect("paths")).env("HOME", directory);
    command.env("RINGLOG_BOOTSTRAP_SERVER", server.address.to_string()).env_remove("COLUMNS");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    ended(command.spawn().expect("a shell"))
}

#[test]
fn every_example_of_every_help_does_what_it_says() {
    let directory = directory();
    let server = Server::start(directory.path());
    let place = directory.path().join("examples");
    for below in [".local/share/bash-completion/completions", ".zfunc", ".config/fish/completions"] {
        std::fs::create_dir_all(place.join(below)).expect("made");
    }
    for (name, text) in [
        ("orders.txt", "a:1\nb:2\n"),
        ("orders.jsonl", "{\"key\":\"a\",\"value\":\"1\"}\n"),
        ("logo.png", "\u{89}PNG"),
        ("events.txt", "1\n2\n"),
    ] {
        std::fs::write(place.join(name), text).expect("written");
    }
    let has_jq = Command::new("jq").arg("--version").stdout(Stdio::null()).status().is_ok();
    let (mut tried, mut skipped) = (BTreeSet::new(), 0);
    for (command, help) in all_helps() {
        for line in examples(&help) {
            if NOT_HERE.iter().any(|what| line.contains(what)) || line.contains("jq ") && !has_jq {
                skipped += 1;
                continue;
            }
            if !tried.insert(line.clone()) {
                continue;
            }
            done(&server, &[&["topic", "delete", "--if-exists"], &TOPICS[..]].concat());
            if !line.contains("topic create") {
                done(&server, &[&["topic", "create"], &TOPICS[..]].concat());
                let records: String = (0..2000).map(|number| format!("{number}\n")).collect();
                assert_eq!(feed(&server, &["produce", "orders"], records.as_bytes()).code, 0);
            }
            let ran = shell(&server, &place, &line);
            assert_eq!(ran.code, 0, "help of '{command}': {line}\n{}{}", ran.stdout, ran.stderr);
        }
    }
    assert!(tried.len() >= 35 && skipped <= 40, "{} tried, {skipped} skipped", tried.len());
    server.stop();
}

#[test]
fn every_help_fits_a_hundred_columns_and_says_what_each_argument_is() {
    for (command, help) in all_helps() {
        for line in help.lines() {
            assert!(line.chars().count() <= 100, "help of '{command}': {line}");
            let is_bare = line.starts_with("  <") || line.starts_with("  [");
            assert!(!is_bare || line.trim().contains("  "), "help of '{command}': nothing is said about {line}");
        }
    }
}

#[test]
fn bash_completes_the_commands() {
    let directory = directory();
    let server = Server::start(directory.path());
    let line = "source <(ringlog completions bash); COMP_WORDS=(ringlog topic cr); COMP_CWORD=2; \
                _ringlog ringlog cr topic; echo ${COMPREPLY[*]}";
    let ran = shell(&server, directory.path(), line);
    assert_eq!((ran.code, &ran.stdout[..]), (0, "create\n"), "{}", ran.stderr);
    server.stop();
}
