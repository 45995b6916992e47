//! The log: lines on standard error, as text or as JSON, bounded in number.
//!
//! One place of the code says at most [`LINES_MAX`] lines in [`LINES_INTERVAL`], whoever makes it do so: a client that
//! sends nonsense, a disk that fails for ten thousand partitions. The next line from there says how many were left out.
//! Lines for debugging are not bounded: somebody has asked for them. A line that is logged while a request is handled
//! says which one ([`log_request`]).

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::base::log_levels;
use crate::base::log_limit::LogLimit;
use crate::base::log_request::{self, Request};
use crate::base::time::Monotonic;
use crate::config::{Config, LogFormat};

/// Lines of one place in the code in [`LINES_INTERVAL`].
const LINES_MAX: u32 = 50;
const LINES_INTERVAL: Duration = Duration::from_secs(10);

/// What is said once for each log at a start, and must not be missed: which log was cut, or is offline, and what to do.
const UNBOUNDED: &[&str] = &["ringlog::storage::recovery", "ringlog::storage::log_dir", "ringlog::shard::lanes"];

/// The environment variable that says what `--log-level` does not.
pub const LEVEL_VARIABLE: &str = "RINGLOG_LOG";

/// Starts the log of the process.
pub fn start(config: &Config) {
    let (first, wrong) = first_filter(config.log_level.as_deref(), std::env::var(LEVEL_VARIABLE).ok());
    let ansi = io::IsTerminal::is_terminal(&io::stderr());
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&first))
        .with_ansi(ansi)
        .event_format(Lines::new(config.log_format, ansi))
        .with_writer(io::stderr)
        .with_filter_reloading();
    let filter = subscriber.reload_handle();
    // Fails only if a test has set one up already.
    if subscriber.try_init().is_ok() {
        let apply = move |text: &str| {
            let next = EnvFilter::try_new(text).map_err(|error| error.to_string())?;
            filter.reload(next).map_err(|error| error.to_string())
        };
        log_levels::install(first, Box::new(apply));
    }
    if let Some(wrong) = wrong {
        tracing::warn!(value = wrong, "{LEVEL_VARIABLE} is no filter of the log, such as info or ringlog::net=debug");
    }
}

/// The filter at the start: the flag's, the variable's, or info; and a variable that is none.
fn first_filter(flag: Option<&str>, variable: Option<String>) -> (String, Option<String>) {
    let wrong = variable.clone().filter(|text| EnvFilter::try_new(text).is_err());
    let variable = variable.filter(|_| wrong.is_none());
    (flag.map(str::to_owned).or(variable).unwrap_or_else(|| "info".to_owned()), wrong)
}

/// How a line looks.
struct Lines {
    format: LogFormat,
    text: Format,
    start: Instant,
    limits: Mutex<HashMap<Identifier, LogLimit>>,
}

impl Lines {
    fn new(format: LogFormat, ansi: bool) -> Lines {
        let text = Format::default().with_ansi(ansi);
        Lines { format, text, start: Instant::now(), limits: Mutex::default() }
    }

    /// Whether the line may be written; with it, how many were left out since the last one.
    fn allow(&self, event: &Event<'_>) -> Option<u64> {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO || UNBOUNDED.iter().any(|target| metadata.target().starts_with(target)) {
            return Some(0);
        }
        let now = Monotonic(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        limits.entry(metadata.callsite()).or_insert_with(|| LogLimit::new(LINES_INTERVAL, LINES_MAX)).allow(now)
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(left_out) = self.allow(event) else { return Ok(()) };
        // Lines about finished requests name them by themselves.
        let about = log_request::current().filter(|_| event.metadata().target() != log_request::TARGET);
        let mut more: Vec<(&str, Value)> = about.as_ref().map(Request::fields).into_iter().flatten().collect();
        if left_out > 0 {
            more.push(("lines_left_out", left_out.into()));
        }
        match self.format {
            LogFormat::Text => {
                let mut line = String::new();
                self.text.format_event(context, Writer::new(&mut line), event)?;
                writer.write_str(line.trim_end_matches('\n'))?;
                for (name, value) in more.iter().filter(|(_, value)| !value.is_null()) {
                    write!(writer, " {name}={value}")?;
                }
                writer.write_char('\n')
            }
            LogFormat::Json => writeln!(writer, "{}", json(event, more)),
        }
    }
}

/// One object: when, how bad, from where, what, and the fields beside them.
fn json(event: &Event<'_>, more: Vec<(&str, Value)>) -> String {
    let mut ts = String::new();
    // Only a clock before the year 0 has no text.
    let _ = SystemTime.format_time(&mut Writer::new(&mut ts));
    let mut fields = Fields { message: String::new(), others: Vec::new() };
    event.record(&mut fields);
    let metadata = event.metadata();
    let head = [
        ("ts", ts.into()),
        ("level", metadata.level().as_str().into()),
        ("target", metadata.target().into()),
        ("message", fields.message.into()),
    ];
    let mut line = String::from("{");
    // A name is there once: the head's before a field's, a field's before the request's.
    let mut names: Vec<&str> = Vec::new();
    for (name, value) in head.into_iter().chain(fields.others).chain(more) {
        if !names.contains(&name) && !value.is_null() {
            let comma = if names.is_empty() { "" } else { "," };
            // Writing to a string does not fail.
            let _ = write!(line, "{comma}{}:{value}", Value::from(name));
            names.push(name);
        }
    }
    line.push('}');
    line
}

/// The fields of one event.
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.others.push((name, format!("{value:?}").into())),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            name => self.others.push((name, value.into())),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.others.push((field.name(), value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.others.push((field.name(), value.into()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.others.push((field.name(), value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.others.push((field.name(), value.into()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, log: impl FnOnce()) -> Vec<String> {
        let written = Written::default();
        let sink = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::DEBUG)
            .event_format(Lines::new(format, false))
            .with_writer(move || sink.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn json_is_one_flat_object_a_line_with_numbers_as_numbers() {
        let lines = logged(LogFormat::Json, || {
            let error = io::Error::other("a \"bad\" one\n");
            tracing::warn!(partition = 3, %error, client_id = "a\u{1b}b", none = None::<&str>, "it {}", "failed");
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        let line: Value = serde_json::from_str(&lines[0]).unwrap();
        assert!(lines[0].starts_with("{\"ts\":\"2") && line["ts"].as_str().unwrap().ends_with('Z'), "{lines:?}");
        let expected = [
            ("level", Value::from("WARN")),
            ("target", module_path!().into()),
            ("message", "it failed".into()),
            ("partition", 3.into()),
            ("error", "a \"bad\" one\n".into()),
            ("client_id", "a\u{1b}b".into()),
        ];
        for (name, value) in expected {
            assert_eq!(line[name], value, "{name}");
        }
        assert_eq!(line.as_object().unwrap().len(), 7);
    }

    #[test]
    fn one_place_says_so_many_lines_and_then_how_many_it_left_out() {
        let say = |number: u32| tracing::info!(number, "again");
        let lines = logged(LogFormat::Text, || (0..LINES_MAX + 7).for_each(say));
        assert_eq!(lines.len(), LINES_MAX as usize);
        let debug = logged(LogFormat::Text, || (0..LINES_MAX + 7).for_each(|number| tracing::debug!(number, "again")));
        assert_eq!(debug.len(), LINES_MAX as usize + 7);
        assert!(lines[0].ends_with("again number=0"), "{}", lines[0]);
    }

    #[test]
    fn the_flag_goes_before_the_variable_and_a_wrong_variable_is_named() {
        let variable = |text: &str| Some(text.to_owned());
        assert_eq!(first_filter(Some("warn"), variable("debug")), ("warn".to_owned(), None));
        assert_eq!(first_filter(None, variable("debug")), ("debug".to_owned(), None));
        assert_eq!(first_filter(None, variable("a=b=c")), ("info".to_owned(), variable("a=b=c")));
        assert_eq!(first_filter(None, None), ("info".to_owned(), None));
    }
}
