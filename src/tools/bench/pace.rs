//! When a client's records are due: at once, or one after the other at a rate, from a schedule that no answer moves.
//!
//! Times are nanoseconds since the run's start. A record's latency counts from when it was due, not from when there was
//! room to send it: a broker that stands still for a while is seen in all records that were to come meanwhile.

#![forbid(unsafe_code)]

use std::time::Duration;

pub const NANOSECONDS: f64 = 1e9;

/// A client's share of a rate: all clients together have `per_second`, record n of client i is record n * `clients` + i
/// of all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    pub per_second: f64,
    pub clients: u32,
    pub client: u32,
}

impl Share {
    /// When this client's record of a number is due.
    pub fn due(&self, index: u64) -> u64 {
        let of_all = index as f64 * f64::from(self.clients) + f64::from(self.client);
        (of_all * NANOSECONDS / self.per_second) as u64
    }

    /// Records that are due until `now`, including.
    fn count_until(&self, now: u64) -> u64 {
        let of_all = now as f64 * self.per_second / NANOSECONDS;
        let mut count = ((of_all - f64::from(self.client)) / f64::from(self.clients)).max(0.0) as u64;
        // The division may be off by one to either side.
        while self.due(count) <= now {
            count += 1;
        }
        while count > 0 && self.due(count - 1) > now {
            count -= 1;
        }
        count
    }
}

/// What a client is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Send the next so many records, as one batch.
    Send(u64),
    /// Nothing before this time.
    Wait(u64),
}

/// One client's records as they come and gather into batches.
#[derive(Clone, Debug)]
pub struct Arrivals {
    share: Option<Share>,
    batch_records: u64,
    linger: u64,
    taken: u64,
}

impl Arrivals {
    /// Without a share all records are due at once. A batch is closed with `batch_records` records, or when its first
    /// one has waited for `linger`.
    pub fn new(share: Option<Share>, batch_records: u64, linger: Duration) -> Arrivals {
        assert!(batch_records > 0, "a batch has records");
        Arrivals { share, batch_records, linger: u64::try_from(linger.as_nanos()).unwrap_or(u64::MAX), taken: 0 }
    }

    /// What to do at `now`, with room for another batch.
    pub fn turn(&self, now: u64) -> Turn {
        let Some(share) = self.share else { return Turn::Send(self.batch_records) };
        let gathered = share.count_until(now).saturating_sub(self.taken);
        if gathered >= self.batch_records {
            return Turn::Send(self.batch_records);
        }
        let lingered = share.due(self.taken).saturating_add(self.linger);
        if gathered > 0 && lingered <= now {
            return Turn::Send(gathered);
        }
        Turn::Wait(lingered.min(share.due(self.taken + self.batch_records - 1)))
    }

    /// When the record `index` places after those that were taken is or was due; `now` if there is no rate.
    pub fn due(&self, index: u64, now: u64) -> u64 {
        self.share.map_or(now, |share| share.due(self.taken + index))
    }

    /// Records taken so far, which is the number of the next.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    pub fn take(&mut self, count: u64) {
        self.taken += count;
    }

    /// Records that were due before `end` and not taken.
    pub fn left_behind(&self, end: u64) -> u64 {
        let due = self.share.map_or(0, |share| if end == 0 { 0 } else { share.count_until(end - 1) });
        due.saturating_sub(self.taken)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::bench::measure::new_histogram;

    const MS: u64 = 1_000_000;

    fn arrivals(per_second: f64, batch_records: u64, linger_ms: u64) -> Arrivals {
        let share = Share { per_second, clients: 1, client: 0 };
        Arrivals::new(Some(share), batch_records, Duration::from_millis(linger_ms))
    }

    #[test]
    fn without_a_rate_whole_batches_are_due_at_once() {
        let mut arrivals = Arrivals::new(None, 10, Duration::from_secs(1));
        assert_eq!(arrivals.turn(0), Turn::Send(10));
        arrivals.take(10);
        assert_eq!((arrivals.turn(0), arrivals.due(3, 77), arrivals.left_behind(99)), (Turn::Send(10), 77, 0));
    }

    #[test]
    fn records_gather_until_the_batch_is_full_or_its_first_has_lingered() {
        let mut arrivals = arrivals(1000.0, 5, 3);
        assert_eq!(arrivals.turn(0), Turn::Wait(3 * MS));
        assert_eq!(arrivals.turn(3 * MS), Turn::Send(4), "at 0, 1, 2 and 3 ms");
        arrivals.take(4);
        assert_eq!(arrivals.turn(3 * MS), Turn::Wait(7 * MS));
        assert_eq!(arrivals.turn(20 * MS), Turn::Send(5), "late, and never more than a batch");
        assert_eq!(arrivals.due(0, 20 * MS), 4 * MS);
        let quick = Arrivals { linger: 1000 * MS, ..arrivals };
        assert_eq!(quick.turn(5 * MS), Turn::Wait(8 * MS), "when the fifth has come");
    }

    #[test]
    fn clients_share_the_rate_one_record_each_in_turn() {
        let of = |client| Arrivals::new(Some(Share { per_second: 1000.0, clients: 4, client }), 1, Duration::ZERO);
        assert_eq!(of(3).turn(0), Turn::Wait(3 * MS));
        assert_eq!((of(0).turn(0), of(0).due(1, 0)), (Turn::Send(1), 4 * MS));
        let all: u64 = (0..4).map(|client| of(client).left_behind(1000 * MS)).sum();
        assert_eq!(all, 1000);
    }

    #[test]
    fn no_record_is_lost_to_rounding_at_odd_rates() {
        for per_second in [3.0, 7.77, 999_983.0, 3_333_333.3] {
            let mut arrivals = arrivals(per_second, 1_000_000, 0);
            let (mut now, mut sent) = (0, 0);
            for _ in 0..2000 {
                match arrivals.turn(now) {
                    Turn::Send(count) => {
                        assert!(arrivals.due(count - 1, now) <= now && arrivals.due(count, now) > now);
                        arrivals.take(count);
                        sent += count;
                    }
                    Turn::Wait(until) => {
                        assert!(until > now, "{per_second}: {until} {now}");
                        now = until;
                    }
                }
            }
            assert_eq!(sent, (now as f64 * per_second / NANOSECONDS).round() as u64, "{per_second}");
        }
    }

    /// A broker that answers within 1 ms, but stands still from 500 ms to 600 ms; ten requests in flight.
    #[test]
    fn a_broker_that_stood_still_shows_in_the_percentiles() {
        let mut arrivals = arrivals(1000.0, 1, 0);
        let answered = |sent: u64| if (500 * MS..600 * MS).contains(&sent) { 601 * MS } else { sent + MS };
        let mut latencies = new_histogram();
        let mut flying = VecDeque::new();
        let mut now = 0;
        while now < 1000 * MS {
            while flying.front().is_some_and(|(at, _)| *at <= now) {
                let (at, due): (u64, u64) = flying.pop_front().expect("seen");
                latencies.record(at - due).expect("in bounds");
            }
            now = match (arrivals.turn(now), flying.front()) {
                (Turn::Send(count), _) if flying.len() < 10 => {
                    flying.push_back((answered(now), arrivals.due(0, now)));
                    arrivals.take(count);
                    now
                }
                (Turn::Wait(until), None) => until,
                (Turn::Wait(until), Some((at, _))) => until.min(*at),
                (Turn::Send(_), Some((at, _))) => *at,
                (Turn::Send(_), None) => unreachable!("there is room"),
            };
        }
        // A hundred records of a thousand were due while it stood, and waited from 100 ms down to the few that the rest took.
        let p = |percentile| latencies.value_at_percentile(percentile) / MS;
        assert!((95..=102).contains(&p(99.5)), "{}", p(99.5));
        assert!((45..=62).contains(&p(95.0)), "{}", p(95.0));
        assert!(p(85.0) <= 2, "{}", p(85.0));
    }
}
