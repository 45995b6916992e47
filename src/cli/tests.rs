use std::io::Write as _;

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
        Stop::Usage(error) => error.exit_code(),
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
