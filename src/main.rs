//! Flags -> settings -> broker -> exit code.

use std::process::ExitCode;

use ringlog::cli::{self, Command};

mod broker {
    //! Stands in until the broker itself is here: says what it would serve.

    use std::process::ExitCode;

    use ringlog::cli::banner;
    use ringlog::config::Config;

    pub fn run(config: Config) -> ExitCode {
        println!("{}", banner::text(&config, &config.advertised_listener, "an unknown file system"));
        ExitCode::FAILURE
    }
}

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(Command::Serve(config)) => broker::run(*config),
        Err(stop) => stop.report(),
    }
}
