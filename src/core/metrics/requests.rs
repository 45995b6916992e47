//! Requests of one shard by API and version, what they were answered, and how long each of their stages took.
//!
//! ```text
//!  its last bytes come   the frame is whole   its handler starts   owners are asked   owners are done   its last byte is sent
//!   |------ unread --------|---- received -----|----- planned ------|---- executed ----|----- replied -----|
//!                                                                      with flushed or waited out of it
//!                          |----------------------------------- the total --------------------------------|
//! ```
//! Stages are of Produce and Fetch, the total is of every API. One `now` stands between two stages.
//!
//! When bytes came nobody knows exactly: what came during a turn of the shard counts from the turn's beginning, what ended
//! its sleep from there. So `unread` is the most that a request can have waited before it was looked at, a shard that was held
//! by another request included; it is not in the total, which begins where Kafka's does.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::time::Duration;

use super::counter::Counter;
use super::histogram::{Histogram, Recorded};
use crate::base::log_request::RequestName;
use crate::base::time::Monotonic;

/// Keys of APIs are below.
const APIS: usize = 72;
/// Versions are below; those from here on are counted together, as one more.
const VERSIONS: usize = 18;
/// Kafka's error codes go from -1 to 127.
const ERRORS: usize = 129;
const LOWEST_ERROR: i16 = -1;

/// The key of Produce, and of Fetch: the index among those whose stages are told.
const STAGED: usize = 2;

/// What a request goes through. Kafka's names for nearly the same are in the text of `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// In the socket or in the ring: the shard was in a turn, or with an earlier request of the connection.
    Unread,
    /// Whole, and not looked at: memory for it, or the answers of earlier requests, are waited for.
    Received,
    /// Decoded, checked, split by owner.
    Planned,
    /// With the owners, but for what follows.
    Executed,
    /// Written, and waiting to be flushed or replicated. Only of requests that waited.
    Flushed,
    /// Short of `min.bytes`. Only of requests that waited.
    Waited,
    /// Encoded, sent when it was its turn, taken by the kernel.
    Replied,
}

impl Stage {
    const COUNT: usize = 7;

    pub fn name(self) -> &'static str {
        match self {
            Stage::Unread => "unread",
            Stage::Received => "received",
            Stage::Planned => "planned",
            Stage::Executed => "executed",
            Stage::Flushed => "flushed",
            Stage::Waited => "waited",
            Stage::Replied => "replied",
        }
    }
}

/// The APIs whose stages are told, with the stages that theirs go through.
pub const STAGES: [(i16, [Stage; 6]); STAGED] = [
    (0, [Stage::Unread, Stage::Received, Stage::Planned, Stage::Executed, Stage::Flushed, Stage::Replied]),
    (1, [Stage::Unread, Stage::Received, Stage::Planned, Stage::Executed, Stage::Waited, Stage::Replied]),
];

/// How far one request is: made when its frame is whole, and kept with it until its last byte is sent.
#[derive(Clone, Debug)]
pub struct Passage {
    came_after: Monotonic,
    received: Monotonic,
    /// The end of its last stage.
    since: Cell<Monotonic>,
    /// `None` before it is known, and of one that is not counted.
    api: Cell<Option<u8>>,
    /// For the log.
    name: Cell<Option<RequestName>>,
}

impl Passage {
    /// Its last bytes came after `came_after`; whole at `received`, handled from `started` on.
    pub fn begin(came_after: Monotonic, received: Monotonic, started: Monotonic) -> Passage {
        Passage { came_after, received, since: Cell::new(started), api: Cell::new(None), name: Cell::new(None) }
    }

    /// It is known what it calls itself.
    pub fn set_name(&self, name: RequestName) {
        self.name.set(Some(name));
    }

    /// What it calls itself, if that was understood; and microseconds from when it was whole to `now`.
    pub fn told(&self, now: Monotonic) -> Option<(RequestName, u64)> {
        Some((self.name.get()?, ns_between(self.received, now) / 1000))
    }
}

/// Codes that an answer carries, by how often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorTally {
    /// Nearly all are NONE.
    none: u64,
    others: Vec<(i16, u64)>,
}

impl ErrorTally {
    pub fn note(&mut self, code: i16) {
        if code == 0 {
            self.none += 1;
        } else if let Some((_, count)) = self.others.iter_mut().find(|(known, _)| *known == code) {
            *count += 1;
        } else {
            self.others.push((code, 1));
        }
    }
}

/// One per shard, which alone writes it: about 150 KiB.
#[derive(Debug)]
pub struct Requests {
    /// By API and version.
    received: Box<[Counter]>,
    /// By API and error.
    errors: Box<[Counter]>,
    /// By API.
    totals: Box<[Histogram]>,
    stages: Box<[[Histogram; Stage::COUNT]]>,
}

impl Default for Requests {
    fn default() -> Requests {
        let counters = |count| (0..count).map(|_| Counter::default()).collect();
        Requests {
            received: counters(APIS * (VERSIONS + 1)),
            errors: counters(APIS * ERRORS),
            totals: (0..APIS).map(|_| Histogram::default()).collect(),
            stages: (0..STAGED).map(|_| std::array::from_fn(|_| Histogram::default())).collect(),
        }
    }
}

fn ns_between(earlier: Monotonic, later: Monotonic) -> u64 {
    later.0.saturating_sub(earlier.0)
}

fn api_index(api_key: i16) -> Option<usize> {
    usize::try_from(api_key).ok().filter(|index| *index < APIS)
}

fn version_index(version: i16) -> usize {
    usize::try_from(version).unwrap_or(VERSIONS).min(VERSIONS)
}

fn error_index(code: i16) -> Option<usize> {
    usize::try_from(i32::from(code) - i32::from(LOWEST_ERROR)).ok().filter(|index| *index < ERRORS)
}

impl Requests {
    /// Its handler has started, and knows what it is.
    pub fn started(&self, passage: &Passage, api_key: i16, version: i16) {
        let Some(index) = api_index(api_key) else { return };
        self.received[index * (VERSIONS + 1) + version_index(version)].add(1);
        passage.api.set(u8::try_from(index).ok());
        self.record(passage, Stage::Unread, ns_between(passage.came_after, passage.received));
        self.record(passage, Stage::Received, ns_between(passage.received, passage.since.get()));
    }

    /// A stage is over, and the next one begins.
    pub fn passed(&self, passage: &Passage, stage: Stage, now: Monotonic) {
        self.record(passage, stage, ns_between(passage.since.replace(now), now));
    }

    /// The owners are done; for `waited` of the time they did nothing but wait.
    pub fn executed(&self, passage: &Passage, waited: Duration, now: Monotonic) {
        let (took, waited) = (ns_between(passage.since.replace(now), now), waited.as_nanos() as u64);
        self.record(passage, Stage::Executed, took.saturating_sub(waited));
        if waited > 0 {
            self.record(passage, Stage::Flushed, waited);
        }
    }

    /// The last byte of the answer is with the kernel.
    pub fn replied(&self, passage: &Passage, now: Monotonic) {
        self.passed(passage, Stage::Replied, now);
        self.done(passage, now);
    }

    /// It is over, without an answer or with one.
    pub fn done(&self, passage: &Passage, now: Monotonic) {
        if let Some(api) = passage.api.get() {
            self.totals[usize::from(api)].record_ns(ns_between(passage.received, now));
        }
    }

    /// What an answer of this API says.
    pub fn answered(&self, api_key: i16, errors: &ErrorTally) {
        let Some(api) = api_index(api_key) else { return };
        let none = (errors.none > 0).then_some((0, errors.none));
        for (code, count) in errors.others.iter().copied().chain(none) {
            if let Some(error) = error_index(code) {
                self.errors[api * ERRORS + error].add(count);
            }
        }
    }

    fn record(&self, passage: &Passage, stage: Stage, took_ns: u64) {
        let of_api = passage.api.get().and_then(|api| self.stages.get(usize::from(api)));
        if let Some(stages) = of_api {
            stages[stage as usize].record_ns(took_ns);
        }
    }
}

/// The requests of several shards together, as they were when they were looked at.
#[derive(Clone, Copy)]
pub struct RequestsOf<'a>(pub &'a [&'a Requests]);

impl RequestsOf<'_> {
    fn sum(&self, counter: impl Fn(&Requests) -> &Counter) -> u64 {
        self.0.iter().map(|requests| counter(requests).get()).sum()
    }

    /// API key, version (`None`: higher or lower than any) and count, of those that came.
    pub fn received(&self) -> impl Iterator<Item = (i16, Option<i16>, u64)> {
        let counts = (0..APIS * (VERSIONS + 1)).map(|index| (index, self.sum(|requests| &requests.received[index])));
        counts.filter(|(_, count)| *count > 0).map(|(index, count)| {
            let (api, version) = (index / (VERSIONS + 1), index % (VERSIONS + 1));
            (api as i16, (version < VERSIONS).then_some(version as i16), count)
        })
    }

    /// API key, error code and count, of those that were sent.
    pub fn errors(&self) -> impl Iterator<Item = (i16, i16, u64)> {
        let counts = (0..APIS * ERRORS).map(|index| (index, self.sum(|requests| &requests.errors[index])));
        counts.filter(|(_, count)| *count > 0).map(|(index, count)| {
            let (api, error) = (index / ERRORS, index % ERRORS);
            (api as i16, error as i16 + LOWEST_ERROR, count)
        })
    }

    /// API key and the times that its requests took in all, of those that came.
    pub fn totals(&self) -> impl Iterator<Item = (i16, Recorded)> {
        (0..APIS)
            .map(|api| (api as i16, self.recorded(|requests| &requests.totals[api])))
            .filter(|(_, of)| of.count() > 0)
    }

    /// API key, stage and its times.
    pub fn stages(&self) -> impl Iterator<Item = (i16, Stage, Recorded)> {
        STAGES.iter().enumerate().flat_map(move |(index, (api, stages))| {
            stages
                .iter()
                .map(move |stage| (*api, *stage, self.recorded(|requests| &requests.stages[index][*stage as usize])))
        })
    }

    fn recorded(&self, histogram: impl Fn(&Requests) -> &Histogram) -> Recorded {
        let mut recorded = Recorded::default();
        self.0.iter().for_each(|requests| recorded.add(histogram(requests)));
        recorded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn stage(requests: &Requests, api: i16, wanted: Stage) -> (u64, f64) {
        let of = RequestsOf(&[requests]).stages().find(|(key, stage, _)| (*key, *stage) == (api, wanted));
        of.map(|(_, _, recorded)| (recorded.count(), recorded.seconds())).expect("a stage of this API")
    }

    #[test]
    fn stages_lie_end_to_end_and_waiting_is_none_of_the_execution() {
        let requests = Requests::default();
        let passage = Passage::begin(Monotonic(3 * MS), Monotonic(5 * MS), Monotonic(6 * MS));
        requests.started(&passage, 0, 9);
        requests.passed(&passage, Stage::Planned, Monotonic(8 * MS));
        requests.executed(&passage, Duration::from_millis(30), Monotonic(48 * MS));
        requests.replied(&passage, Monotonic(53 * MS));
        for (which, seconds) in [
            (Stage::Unread, 0.002),
            (Stage::Received, 0.001),
            (Stage::Planned, 0.002),
            (Stage::Executed, 0.010),
            (Stage::Flushed, 0.030),
            (Stage::Replied, 0.005),
        ] {
            assert_eq!(stage(&requests, 0, which), (1, seconds), "{which:?}");
        }
        let totals: Vec<_> = RequestsOf(&[&requests]).totals().map(|(api, of)| (api, of.seconds())).collect();
        assert_eq!(totals, [(0, 0.048)]);
        assert_eq!(RequestsOf(&[&requests]).received().collect::<Vec<_>>(), [(0, Some(9), 1)]);
    }

    #[test]
    fn errors_are_counted_by_api_and_versions_beyond_all_together() {
        let (one, other) = (Requests::default(), Requests::default());
        let mut errors = ErrorTally::default();
        [0, 6, 0, 6, -1, 126, 127, 500, -2].into_iter().for_each(|code| errors.note(code));
        one.answered(1, &errors);
        other.answered(1, &errors);
        other.answered(-7, &errors);
        for version in [18, i16::MAX, -1] {
            other.started(&Passage::begin(Monotonic(0), Monotonic(0), Monotonic(0)), 18, version);
        }
        other.started(&Passage::begin(Monotonic(0), Monotonic(0), Monotonic(0)), 1000, 0);
        let both = [&one, &other];
        let of = RequestsOf(&both);
        let expected = [(1, -1, 2), (1, 0, 4), (1, 6, 4), (1, 126, 2), (1, 127, 2)];
        assert_eq!(of.errors().collect::<Vec<_>>(), expected);
        assert_eq!(of.received().collect::<Vec<_>>(), [(18, None, 3)]);
    }

    #[test]
    fn a_shard_takes_as_much_memory_as_is_said() {
        let histogram = size_of::<Histogram>();
        let counters = size_of::<Counter>() * APIS * (VERSIONS + 1 + ERRORS);
        let bytes = counters + histogram * (APIS + STAGED * Stage::COUNT);
        assert!(bytes <= 160 * 1024, "{bytes}");
    }
}
