//! The line of progress: rewritten on a terminal, one after the other elsewhere.

#![forbid(unsafe_code)]

use std::io::{self, IsTerminal as _, Write as _};

use super::figures::{grouped, milliseconds};
use super::measure::{Figures, Interval};
use super::settings::Mode;

/// Back to the beginning of the line, and clear it.
const AGAIN: &str = "\r\x1b[K";
/// Of a shorter time a rate would be a guess.
const SECONDS_MIN: f64 = 0.2;

pub struct Live {
    quiet: bool,
    terminal: bool,
    mode: Mode,
    /// A line stands on the terminal.
    open: bool,
}

impl Live {
    pub fn new(quiet: bool, mode: Mode) -> Live {
        Live { quiet, terminal: io::stderr().is_terminal(), mode, open: false }
    }

    pub fn second(&mut self, interval: &Interval) {
        let seconds = interval.end_ns.saturating_sub(interval.start_ns) as f64 / 1e9;
        if self.quiet || seconds < SECONDS_MIN {
            return;
        }
        let line = line(self.mode, interval, seconds);
        let mut stderr = io::stderr().lock();
        // Nobody is left to tell if the terminal is gone.
        let _ = match self.terminal {
            true => write!(stderr, "{AGAIN}{line}").and_then(|()| stderr.flush()),
            false => writeln!(stderr, "{line}"),
        };
        self.open = self.terminal;
    }

    /// Makes way for what comes behind.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.open) {
            let _ = write!(io::stderr().lock(), "{AGAIN}");
        }
    }
}

fn line(mode: Mode, interval: &Interval, seconds: f64) -> String {
    let mut all = interval.sides.clone();
    all.add(&interval.warm);
    let rates = |figures: &Figures| {
        let megabytes = figures.bytes as f64 / 1e6 / seconds;
        format!("{} records/s, {megabytes:.1} MB/s", grouped((figures.records as f64 / seconds).round() as u64))
    };
    let flow = match mode {
        Mode::Produce => rates(&all.produced),
        Mode::Consume => rates(&all.consumed),
        Mode::EndToEnd => format!("in {}; out {}", rates(&all.produced), rates(&all.consumed)),
    };
    let measured = if mode == Mode::Produce { &interval.sides.produced } else { &interval.sides.consumed };
    let latency = match (measured.percentile_ms(50.0), measured.percentile_ms(99.0), measured.max_ms()) {
        (Some(p50), Some(p99), Some(max)) => {
            format!("p50 {}, p99 {}, max {} ms", milliseconds(p50), milliseconds(p99), milliseconds(max))
        }
        _ if all.produced.records + all.consumed.records > 0 => "warm-up".to_owned(),
        _ => "no answers".to_owned(),
    };
    format!("{:>4} s  {flow}  {latency}", interval.second + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::measure::{Recorder, SECOND_NS, Side};

    #[test]
    fn a_line_says_what_flows_and_how_long_it_takes() {
        let mut recorder = Recorder::new(SECOND_NS);
        recorder.records(Side::Produced, 5, 9, 1_234_567);
        let warm = recorder.cut(SECOND_NS);
        assert_eq!(line(Mode::Produce, &warm, 1.0), "   1 s  1,234,567 records/s, 0.0 MB/s  warm-up");
        recorder.records(Side::Consumed, SECOND_NS, SECOND_NS + 2_000_000, 10);
        recorder.request(Side::Consumed, SECOND_NS, SECOND_NS + 2_000_000, 3_000_000);
        let second = recorder.cut(2 * SECOND_NS);
        assert_eq!(
            line(Mode::Consume, &second, 0.5),
            "   2 s  20 records/s, 6.0 MB/s  p50 2.00, p99 2.00, max 2.00 ms"
        );
        assert_eq!(line(Mode::Consume, &recorder.cut(3 * SECOND_NS), 1.0), "   3 s  0 records/s, 0.0 MB/s  no answers");
    }
}
