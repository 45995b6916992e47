//! Latencies by second as HdrHistogram's interval log, which its tools read and draw.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use super::failures;
use super::measure::{Figures, Interval};
use super::settings::Mode;
use crate::failure::Failure;

/// The log divides its largest values by this: they are in nanoseconds, and are shown in milliseconds.
const MAX_VALUE_DIVISOR: f64 = 1e6;

/// Seconds on their way into a file.
pub struct HdrLog {
    file: BufWriter<File>,
    begun: bool,
}

impl HdrLog {
    /// Makes the file, before the run, so that a name that can't be written is known at once.
    pub fn create(path: &Path) -> Result<HdrLog, Failure> {
        let file = File::create(path).map_err(|error| failures::file(path, &error))?;
        Ok(HdrLog { file: BufWriter::new(file), begun: false })
    }

    /// Adds a second, in end-to-end runs with the tags `produce` and `end-to-end`.
    pub fn add(&mut self, mode: Mode, start_wall_ns: u64, interval: &Interval) -> Result<(), Failure> {
        let written = write(&mut self.file, !self.begun, mode, start_wall_ns, interval);
        self.begun = true;
        written.map_err(|error| failures::system("the latency log can't be written", error))
    }

    pub fn finish(mut self) -> Result<(), Failure> {
        self.file.flush().map_err(|error| failures::system("the latency log can't be written", error))
    }
}

fn write(out: &mut impl Write, begin: bool, mode: Mode, start_wall_ns: u64, interval: &Interval) -> io::Result<()> {
    let start: SystemTime = UNIX_EPOCH + Duration::from_nanos(start_wall_ns);
    let mut head = IntervalLogWriterBuilder::new();
    if begin {
        head.add_comment("Latencies of 'ringlog bench', in nanoseconds").with_start_time(start).with_base_time(start);
    }
    head.with_max_value_divisor(MAX_VALUE_DIVISOR);
    let mut serializer = V2DeflateSerializer::new();
    let mut text = Vec::new();
    let mut log = head.begin_log_with(&mut text, &mut serializer)?;
    let mut add = |figures: &Figures, tag: Option<&str>| {
        let Some(histogram) = figures.latencies() else { return Ok(()) };
        let at = Duration::from_nanos(interval.start_ns);
        let length = Duration::from_nanos(interval.end_ns.saturating_sub(interval.start_ns));
        log.write_histogram(histogram, at, length, tag.and_then(Tag::new))
            .map_err(|error| io::Error::other(format!("{error:?}")))
    };
    match mode {
        Mode::Produce => add(&interval.sides.produced, None)?,
        Mode::Consume => add(&interval.sides.consumed, None)?,
        Mode::EndToEnd => {
            add(&interval.sides.produced, Some("produce"))?;
            add(&interval.sides.consumed, Some("end-to-end"))?;
        }
    }
    // A log's head belongs at its beginning only.
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    lines.filter(|line| begin || !line.starts_with(b"#")).try_for_each(|line| out.write_all(line))
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::bench::measure::{Recorder, SECOND_NS, Side};

    #[test]
    fn what_is_written_is_read_back_by_the_library() {
        let mut recorder = Recorder::new(0);
        let mut out = Vec::new();
        for second in 0..3 {
            let start = second * SECOND_NS;
            for us in 1..=1000 {
                recorder.records(Side::Produced, start, start + us * 1000, 1);
                recorder.records(Side::Consumed, start, start + us * 3000, 2);
            }
            let interval = recorder.cut(start + SECOND_NS);
            write(&mut out, second == 0, Mode::EndToEnd, 1_700_000_000 * SECOND_NS, &interval).expect("written");
        }
        let mut deserializer = Deserializer::new();
        let mut seen = Vec::new();
        for entry in IntervalLogIterator::new(&out) {
            let LogEntry::Interval(interval) = entry.expect("a line of the format") else { continue };
            let bytes =
                base64::Engine::decode(&base64::engine::general_purpose::STANDARD, interval.encoded_histogram());
            let read: Histogram<u64> = deserializer.deserialize(&mut &bytes.expect("base64")[..]).expect("a histogram");
            let tag = interval.tag().map(|tag| tag.as_str().to_owned());
            seen.push((interval.start_timestamp().as_secs(), tag.expect("tagged"), read.len(), read.max() / 1000));
            assert_eq!(interval.duration(), Duration::from_secs(1));
        }
        let line = |second, tag: &str, count, max| (second, tag.to_owned(), count, max);
        assert_eq!(seen.len(), 6);
        assert_eq!(seen[4..], [line(2, "produce", 1000, 1000), line(2, "end-to-end", 2000, 3000)]);
        let text = String::from_utf8(out).expect("text");
        assert_eq!(text.matches("[StartTime:").count(), 1, "{text}");
    }
}
