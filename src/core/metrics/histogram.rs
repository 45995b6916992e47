//! Durations in fixed log-linear buckets: to record one is two additions, whatever it is.
//!
//! ```text
//!  microseconds   0  1  2  3 | 4  5  6  7 | 8-9 10-11 12-13 14-15 | 16-19 ... | ... | 2^26 and more
//!  bucket         0  1  2  3 | 4  5  6  7 | 8   9     10    11    | 12    ... | ... | 100
//! ```
//! Four buckets to each power of two: a quantile is off by an eighth at most. What is shown sums them up to whole powers
//! of two, since every bucket is a line in every scrape.

#![forbid(unsafe_code)]

use std::time::Duration;

use super::counter::{Counter, Tally};

/// Buckets of one power of two.
const SUBS: usize = 4;
const SUB_BITS: u32 = SUBS.trailing_zeros();

/// From here on (2^26 us, 67 s) all durations share the last bucket.
const TOP_BITS: u32 = 26;

/// Those below 4 us, those of the powers of two from there, and the last one.
pub const BUCKETS: usize = SUBS + SUBS * (TOP_BITS - SUB_BITS) as usize + 1;

/// The powers of two, in microseconds, that are shown as bounds.
pub const SHOWN_BITS: std::ops::RangeInclusive<u32> = 3..=TOP_BITS;

/// With a [`Counter`], of one thread; with a [`super::SharedCounter`], of several.
#[derive(Debug)]
pub struct Histogram<C = Counter> {
    buckets: [C; BUCKETS],
    sum_ns: C,
}

impl<C: Tally> Default for Histogram<C> {
    fn default() -> Histogram<C> {
        Histogram { buckets: std::array::from_fn(|_| C::default()), sum_ns: C::default() }
    }
}

fn bucket(ns: u64) -> usize {
    let us = ns / 1000;
    if us < SUBS as u64 {
        return us as usize;
    }
    let bits = us.ilog2();
    if bits >= TOP_BITS {
        return BUCKETS - 1;
    }
    let sub = (us >> (bits - SUB_BITS)) as usize % SUBS;
    SUBS + (bits - SUB_BITS) as usize * SUBS + sub
}

impl<C: Tally> Histogram<C> {
    pub fn record(&self, duration: Duration) {
        self.record_ns(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    pub fn record_ns(&self, ns: u64) {
        self.buckets[bucket(ns)].add(1);
        self.sum_ns.add(ns);
    }
}

/// What histograms had recorded when they were looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    buckets: [u64; BUCKETS],
    sum_ns: u64,
}

impl Default for Recorded {
    fn default() -> Recorded {
        Recorded { buckets: [0; BUCKETS], sum_ns: 0 }
    }
}

impl<C: Tally> From<&Histogram<C>> for Recorded {
    fn from(histogram: &Histogram<C>) -> Recorded {
        let mut recorded = Recorded::default();
        recorded.add(histogram);
        recorded
    }
}

impl Recorded {
    /// Counts another histogram's durations among these.
    pub fn add<C: Tally>(&mut self, histogram: &Histogram<C>) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += bucket.get();
        }
        self.sum_ns += histogram.sum_ns.get();
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub fn seconds(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }

    /// Each bound of [`SHOWN_BITS`] in seconds, with how many durations were below it.
    pub fn below(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut counted = 0;
        let mut next = 0;
        SHOWN_BITS.map(move |bits| {
            let end = SUBS + (bits - SUB_BITS) as usize * SUBS;
            counted += self.buckets[next..end].iter().sum::<u64>();
            next = end;
            ((1_u64 << bits) as f64 / 1e6, counted)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::SharedCounter;

    #[test]
    fn a_bucket_begins_where_the_one_before_ends_and_is_at_most_a_quarter_wide() {
        let mut starts = vec![0_u64];
        for us in 1..=1_u64 << 17 {
            let (before, now) = (bucket(us * 1000 - 1), bucket(us * 1000));
            assert!(now == before || now == before + 1, "{us}");
            if now > before {
                starts.push(us);
            }
        }
        for pair in starts.windows(2) {
            assert!(pair[1] - pair[0] <= (pair[0] / 4).max(1), "{pair:?}");
        }
        let largest = [67_000_000_000, 68_000_000_000, u64::MAX].map(bucket);
        assert_eq!(largest, [BUCKETS - 2, BUCKETS - 1, BUCKETS - 1]);
    }

    #[test]
    fn bounds_that_are_shown_count_what_is_below_them() {
        let (one, other) = (Histogram::<Counter>::default(), Histogram::<SharedCounter>::default());
        for us in [0, 7, 8, 15, 16, 1000, 1_000_000] {
            one.record(Duration::from_micros(us));
        }
        other.record(Duration::from_secs(100));
        let mut recorded = Recorded::from(&one);
        recorded.add(&other);
        let below: Vec<(f64, u64)> = recorded.below().collect();
        assert_eq!(below[..3], [(8e-6, 2), (16e-6, 4), (32e-6, 5)]);
        assert_eq!(below.iter().find(|(bound, _)| *bound == 1.024e-3), Some(&(1.024e-3, 6)));
        assert_eq!((below.last(), recorded.count()), (Some(&(67.108864, 7)), 8));
        assert!((recorded.seconds() - 101.001_046).abs() < 1e-9);
    }
}
