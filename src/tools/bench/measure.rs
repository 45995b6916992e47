//! What is counted, by second: records, bytes, requests and latencies, of the producing and of the consuming side.

#![forbid(unsafe_code)]

use hdrhistogram::Histogram;

/// Latencies are kept to three digits, in nanoseconds, up to an hour; longer ones count as an hour.
const LATENCY_MAX_NS: u64 = 3_600_000_000_000;
const LATENCY_DIGITS: u8 = 3;

pub const SECOND_NS: u64 = 1_000_000_000;

pub fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_NS, LATENCY_DIGITS).expect("sound bounds")
}

/// What Kafka's clients say of their requests beside.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    /// Of keys and values.
    pub value_bytes: u64,
    /// Of records without compression, without the headers of batches.
    pub record_bytes: u64,
    /// Of the largest batch, or of the largest answer's records.
    pub bytes_max: u64,
    /// By what compression made each batch smaller, summed up.
    pub compression_ratios: f64,
    /// From sending a request to its answer.
    pub answer_ns: u64,
    pub answer_ns_max: u64,
    /// Answers with a throttle time, and these.
    pub throttled: u64,
    pub throttle_ms: u64,
    pub throttle_ms_max: u64,
    /// How long connections were held back for that.
    pub held_ns: u64,
}

impl Traffic {
    pub fn add(&mut self, other: &Traffic) {
        self.value_bytes += other.value_bytes;
        self.record_bytes += other.record_bytes;
        self.bytes_max = self.bytes_max.max(other.bytes_max);
        self.compression_ratios += other.compression_ratios;
        self.answer_ns += other.answer_ns;
        self.answer_ns_max = self.answer_ns_max.max(other.answer_ns_max);
        self.throttled += other.throttled;
        self.throttle_ms += other.throttle_ms;
        self.throttle_ms_max = self.throttle_ms_max.max(other.throttle_ms_max);
        self.held_ns += other.held_ns;
    }

    /// What an answer said of throttling, and what came of it.
    pub fn throttled(&mut self, throttle_time_ms: i32, held_ns: u64) {
        let ms = u64::try_from(throttle_time_ms).unwrap_or(0);
        self.throttled += u64::from(ms > 0);
        self.throttle_ms += ms;
        self.throttle_ms_max = self.throttle_ms_max.max(ms);
        self.held_ns += held_ns;
    }
}

/// One side's figures of some time.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub records: u64,
    /// Of batches, as they are sent and stored.
    pub bytes: u64,
    pub requests: u64,
    pub traffic: Traffic,
    /// In nanoseconds; made when first needed.
    latencies: Option<Histogram<u64>>,
}

impl Figures {
    fn record(&mut self, latency_ns: u64, count: u64) {
        self.latencies.get_or_insert_with(new_histogram).saturating_record_n(latency_ns.max(1), count);
    }

    pub fn add(&mut self, other: &Figures) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.requests += other.requests;
        self.traffic.add(&other.traffic);
        if let Some(theirs) = &other.latencies {
            match &mut self.latencies {
                Some(ours) => ours.add(theirs).expect("of the same bounds"),
                none => *none = Some(theirs.clone()),
            }
        }
    }

    pub fn latencies(&self) -> Option<&Histogram<u64>> {
        self.latencies.as_ref().filter(|histogram| !histogram.is_empty())
    }

    /// The latency that `percentile` percent of the records did not pass, in ms; `None` without any.
    pub fn percentile_ms(&self, percentile: f64) -> Option<f64> {
        self.latencies().map(|histogram| histogram.value_at_percentile(percentile) as f64 / 1e6)
    }

    pub fn mean_ms(&self) -> Option<f64> {
        self.latencies().map(|histogram| histogram.mean() / 1e6)
    }

    pub fn max_ms(&self) -> Option<f64> {
        self.latencies().map(|histogram| histogram.max() as f64 / 1e6)
    }
}

/// Both sides; one of them stays empty unless the run is end to end.
#[derive(Clone, Debug, Default)]
pub struct Sides {
    pub produced: Figures,
    pub consumed: Figures,
}

impl Sides {
    pub fn add(&mut self, other: &Sides) {
        self.produced.add(&other.produced);
        self.consumed.add(&other.consumed);
    }
}

/// What one thread has seen in one second of the run.
#[derive(Clone, Debug)]
pub struct Interval {
    /// Counted from the start, warm-up included.
    pub second: u64,
    /// What it spans, since the start.
    pub start_ns: u64,
    pub end_ns: u64,
    pub sides: Sides,
    /// The same of what does not count: warm-up.
    pub warm: Sides,
}

impl Interval {
    fn beginning(start_ns: u64) -> Interval {
        let second = start_ns / SECOND_NS;
        Interval { second, start_ns, end_ns: start_ns, sides: Sides::default(), warm: Sides::default() }
    }

    /// Adds what another thread has seen in the same second.
    pub fn add(&mut self, other: &Interval) {
        self.start_ns = self.start_ns.min(other.start_ns);
        self.end_ns = self.end_ns.max(other.end_ns);
        self.sides.add(&other.sides);
        self.warm.add(&other.warm);
    }
}

/// One thread's counting of the second that runs.
#[derive(Debug)]
pub struct Recorder {
    /// What was due before does not count.
    warm_up_ns: u64,
    current: Interval,
    /// When the last thing that counts was answered.
    pub last_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Produced,
    Consumed,
}

impl Recorder {
    pub fn new(warm_up_ns: u64) -> Recorder {
        Recorder { warm_up_ns, current: Interval::beginning(0), last_ns: 0 }
    }

    fn figures(&mut self, side: Side, due_ns: u64) -> &mut Figures {
        let sides = if due_ns >= self.warm_up_ns { &mut self.current.sides } else { &mut self.current.warm };
        match side {
            Side::Produced => &mut sides.produced,
            Side::Consumed => &mut sides.consumed,
        }
    }

    /// A request that was due at `due_ns` is answered at `now_ns`, with so many bytes. One that brought nothing is not
    /// the end of anything.
    pub fn request(&mut self, side: Side, due_ns: u64, now_ns: u64, bytes: u64) {
        let figures = self.figures(side, due_ns);
        figures.requests += 1;
        figures.bytes += bytes;
        if due_ns >= self.warm_up_ns && bytes > 0 {
            self.last_ns = self.last_ns.max(now_ns);
        }
    }

    /// More of a request that was due at `due_ns`.
    pub fn traffic(&mut self, side: Side, due_ns: u64, traffic: &Traffic) {
        self.figures(side, due_ns).traffic.add(traffic);
    }

    /// `count` records that were due at `due_ns` are through at `now_ns`.
    pub fn records(&mut self, side: Side, due_ns: u64, now_ns: u64, count: u64) {
        let counts = due_ns >= self.warm_up_ns;
        let figures = self.figures(side, due_ns);
        figures.records += count;
        if counts {
            figures.record(now_ns.saturating_sub(due_ns), count);
            self.last_ns = self.last_ns.max(now_ns);
        }
    }

    /// Records without a latency.
    pub fn count(&mut self, side: Side, due_ns: u64, count: u64) {
        self.figures(side, due_ns).records += count;
    }

    /// A latency without a record.
    pub fn latency(&mut self, side: Side, due_ns: u64, now_ns: u64) {
        if due_ns >= self.warm_up_ns {
            self.figures(side, due_ns).record(now_ns.saturating_sub(due_ns), 1);
        }
    }

    /// The run goes on until now, whatever was answered last.
    pub fn ended(&mut self, now_ns: u64) {
        self.last_ns = self.last_ns.max(now_ns);
    }

    /// Ends the second that runs, and begins the one of `now_ns`.
    pub fn cut(&mut self, now_ns: u64) -> Interval {
        self.current.end_ns = now_ns;
        std::mem::replace(&mut self.current, Interval::beginning(now_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_due_in_the_warm_up_does_not_count() {
        let mut recorder = Recorder::new(SECOND_NS);
        recorder.records(Side::Produced, SECOND_NS - 1, SECOND_NS + 5, 10);
        recorder.request(Side::Produced, SECOND_NS - 1, SECOND_NS + 5, 1000);
        recorder.records(Side::Produced, SECOND_NS, SECOND_NS + 2_000_000, 4);
        let Interval { second, sides, warm, .. } = recorder.cut(2 * SECOND_NS);
        assert_eq!((second, sides.produced.records, warm.produced.records), (0, 4, 10));
        assert_eq!((sides.produced.bytes, warm.produced.bytes), (0, 1000));
        let p50 = sides.produced.percentile_ms(50.0).expect("latencies");
        assert!((1.99..2.01).contains(&p50), "{p50}");
        assert_eq!(recorder.cut(2 * SECOND_NS).second, 2);
    }

    #[test]
    fn percentiles_are_right_to_three_digits_and_an_hour_is_the_longest() {
        let mut figures = Figures::default();
        assert_eq!((figures.percentile_ms(50.0), figures.max_ms()), (None, None));
        (1..=100_000u64).for_each(|us| figures.record(us * 1000, 1));
        for (percentile, ms) in [(50.0, 50.0), (99.0, 99.0), (99.9, 99.9), (99.99, 99.99)] {
            let found = figures.percentile_ms(percentile).expect("latencies");
            assert!((found / ms - 1.0).abs() < 0.002, "{percentile}: {found}");
        }
        figures.record(u64::MAX, 1);
        assert!((figures.max_ms().expect("latencies") / 3_600_000.0 - 1.0).abs() < 0.002);
    }
}
