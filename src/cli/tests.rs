use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::Duration;

use clap::CommandFactory as _;

use super::*;
use crate::config::{AdminListen, Validation};

fn serve(arguments: &[&str]) -> Result<Config, Stop> {
    let all = ["ringlog", "serve"].iter().chain(arguments).map(OsString::from);
    parse(all).map(|command| match command {
        Command::Serve(config) => *config,
        Command::Tool(tool) => panic!("a tool: {tool:?}"),
    })
}

fn exit_code(stop: &Stop) -> i32 {
    match stop {
        Stop::Usage(error) | Stop::KafkaUsage(error) => error.exit_code(),
        Stop::Config(error) => i32::from(error.exit_code()),
    }
}

#[test]
fn flags_become_settings() {
    let config =
        serve(&["--shards", "3", "--pin", "--ring-depth=64", "--cold-bytes-max=2m", "--validate=full", "--rebatch"])
            .unwrap();
    assert_eq!((config.shards, config.pin, config.ring_depth), (3, true, 64));
    assert_eq!((config.cold_bytes_max, config.validation, config.rebatch), (2 << 20, Validation::Full, true));
    assert_eq!((config.import, config.admin_listen), (false, AdminListen::Default));
    let config = serve(&["--import", "--admin-listen", "[::1]:0"]).unwrap();
    assert_eq!((config.import, config.admin_listen), (true, AdminListen::At("[::1]:0".parse().unwrap())));
    let config = serve(&["--admin-listen=127.0.0.1:1", "--admin-listen", "none"]).unwrap();
    assert_eq!(config.admin_listen, AdminListen::Off);
}

#[test]
fn the_command_line_wins_over_the_flag_file_and_later_lines_over_earlier_ones() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"shards 2\nshards=4\nring-depth 32\npin\nset num.partitions=3\nset broker.id=5\n").unwrap();
    let path = file.path().to_str().unwrap();
    let config = serve(&["--flagfile", path, "--ring-depth=64", "--pin", "--set", "num.partitions=9"]).unwrap();
    assert_eq!((config.shards, config.ring_depth, config.pin), (4, 64, true));
    assert_eq!((config.num_partitions, config.broker_id.0), (9, 5));
}

#[test]
fn wrong_flags_and_settings_are_usage_errors() {
    for arguments in [
        &["--shard", "2"][..],
        &["--shards", "0"],
        &["--ring-depth", "100"],
        &["--durability=disk"],
        &["--cold-bytes-max=0"],
        &["--admin-listen=9644"],
        &["--set", "num.partition=2"],
        &["--set", "num.partitions=0"],
        &["extra"],
    ] {
        assert_eq!(exit_code(&serve(arguments).unwrap_err()), 2, "{arguments:?}");
    }
    assert_eq!(exit_code(&serve(&["--config", "/nowhere"]).unwrap_err()), 1);
    assert_eq!(exit_code(&serve(&["--help"]).unwrap_err()), 0);
    let none: [OsString; 1] = ["ringlog".into()];
    assert_eq!(exit_code(&parse(none).unwrap_err()), 2);
}

#[test]
fn a_flag_file_names_no_other() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"flagfile other\n").unwrap();
    let stop = serve(&["--flagfile", file.path().to_str().unwrap()]).unwrap_err();
    assert!(matches!(stop, Stop::Config(ConfigError::Refused(_))), "{stop:?}");
}

/// Long flags of `ringlog serve`, but for those of the parser itself.
fn flags_of_serve() -> BTreeSet<String> {
    let command = Arguments::command();
    let serve = command.find_subcommand("serve").expect("it serves");
    let flags = serve.get_arguments().filter_map(|argument| argument.get_long()).filter(|flag| *flag != "help");
    flags.map(|flag| format!("--{flag}")).collect()
}

#[test]
fn tuning_md_describes_every_flag_of_serve_and_no_other() {
    let text = include_str!("../../tuning.md");
    let (_, text) = text.split_once("\n## Flags of `ringlog serve`\n").expect("the chapter of flags");
    let (chapter, _) = text.split_once("\n# ").expect("another chapter");
    let rows = chapter.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let described: Vec<&str> = rows.map(|(flag, _)| flag).collect();
    let unique: BTreeSet<String> = described.iter().map(|flag| (*flag).to_owned()).collect();
    assert_eq!(unique.len(), described.len(), "each once: {described:?}");
    assert_eq!(unique, flags_of_serve());
}

#[test]
fn the_systemd_unit_runs_serve_with_flags_that_exist_and_settings_that_are_taken() {
    let unit = include_str!("../../ops/ringlog.service");
    let value = |name: &str| {
        let lines = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        lines.map(str::to_owned).next_back().unwrap_or_else(|| panic!("the unit has no {name}"))
    };
    let settings = concat!(env!("CARGO_MANIFEST_DIR"), "/ops/server.properties");
    let flags = tempfile::NamedTempFile::new().unwrap();
    let start = value("ExecStart")
        .replace("/etc/ringlog/server.properties", settings)
        .replace("/etc/ringlog/ringlog.flags", flags.path().to_str().unwrap());
    let Ok(Command::Serve(config)) = parse(start.split(' ').map(OsString::from)) else { panic!("not taken: {start}") };
    assert_eq!(config.warnings, Vec::<String>::new());
    assert_eq!(config.log_dirs, [std::path::PathBuf::from("/var/lib/ringlog")]);
    // The broker ends by itself before it is killed.
    let seconds: u64 = value("TimeoutStopSec").parse().unwrap();
    assert!(seconds > config.stop_timeout.as_secs());
    // scripts/check-unit shows what systemd makes of them.
    let reload = "/bin/sh -c 'kill -HUP \"$MAINPID\"'";
    for (name, expected) in [("Type", "notify"), ("ExecReload", reload), ("StateDirectory", "ringlog")] {
        assert_eq!(value(name), expected);
    }
    let files: u64 = value("LimitNOFILE").parse().unwrap();
    assert!(files >= 100_000 && value("SystemCallFilter").contains("io_uring_enter"));
}

#[test]
fn levels_and_times_are_checked_where_they_are_written() {
    let config =
        serve(&["--log-level", "warn,ringlog::net=DEBUG", "--log-format=json", "--stop-timeout=1500ms"]).unwrap();
    assert_eq!(config.log_level.as_deref(), Some("warn,ringlog::net=DEBUG"));
    assert_eq!((config.log_format, config.stop_timeout), (crate::config::LogFormat::Json, Duration::from_millis(1500)));
    let time = |text: &str| serve(&["--stop-timeout", text]).map(|config| config.stop_timeout.as_millis()).ok();
    assert_eq!(["2m", "30", "30s", "100ms", "60m"].map(time), [120_000, 30_000, 30_000, 100, 3_600_000].map(Some));
    assert_eq!(["99ms", "61m", "", "s", "1h", "-1s", "99999999999999999999s"].map(time), [None; 7]);
    for wrong in ["inf", "ringlog=loud", "=debug", "info,", ""] {
        assert_eq!(exit_code(&serve(&["--log-level", wrong]).unwrap_err()), 2, "{wrong:?}");
    }
}
