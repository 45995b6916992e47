//! Fetch sessions (KIP-227): what a client fetches, remembered, so that it names only what changes and is told only
//! what changed.
//!
//! ```text
//!  (id 0, epoch -1)  full, no session          (id, -1)  full, the session is closed
//!  (id 0, epoch  0)  full, a session if it can (id,  0)  the same, the old session is closed
//!  (id, n > 0)       incremental: n must be the session's next epoch; after 2^31 - 1 comes 1
//! ```
//! Pure: `now` and random numbers come in, decisions go out (Kafka 3.9 `FetchSession`). A cache belongs to one shard
//! and gives ids of a range of its own, so a session asked for elsewhere is not found.
//!
//! Bounds: the sessions ([`CacheLimits::slots`]) and the partitions of all of them together. Who finds no room is
//! served without a session. An unused session goes when another needs its slot.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::base::ids::{LeaderEpoch, Offset, TopicId};
use crate::base::time::Monotonic;
use crate::protocol::ErrorCode;

/// Sessions unused for longer may be replaced by any new one; younger ones by none but a replica's.
pub const EVICTION_AGE: Duration = Duration::from_secs(120);

/// Partitions that the sessions of all shards remember together: each takes some 200 bytes.
pub const SESSION_PARTITIONS_MAX: usize = 1_000_000;

/// The id of no session.
pub const NO_SESSION: i32 = 0;

const INITIAL_EPOCH: i32 = 0;
const FINAL_EPOCH: i32 = -1;

/// How much one shard's cache may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheLimits {
    pub slots: usize,
    pub partitions: usize,
    pub ids: RangeInclusive<i32>,
}

impl CacheLimits {
    /// The share of shard `index` among `count`, of `slots` in all.
    pub fn share(slots: u32, index: u16, count: u16) -> CacheLimits {
        let (index, count) = (i32::from(index), i32::from(count.max(1)));
        let width = i32::MAX / count;
        let first = index.saturating_mul(width);
        let (slots, shards) = (slots as usize, count as usize);
        CacheLimits {
            slots: slots / shards + usize::from((index as usize) < slots % shards),
            partitions: SESSION_PARTITIONS_MAX / shards,
            ids: first.max(1)..=first + (width - 1).max(1),
        }
    }
}

/// A partition as sessions know it: by name, or by topic id from version 13 on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicKey {
    Name(Arc<str>),
    Id(TopicId),
}

/// What a client wants of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub fetch_offset: Offset,
    pub bytes_max: i32,
    pub current_leader_epoch: LeaderEpoch,
    pub last_fetched_epoch: LeaderEpoch,
}

/// What an answer says of one partition, as far as a session cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    pub has_records: bool,
    pub has_error: bool,
    pub is_diverging: bool,
    pub high_watermark: Offset,
    pub log_start_offset: Offset,
}

/// One partition of a session.
#[derive(Clone, Debug)]
pub struct SessionPartition {
    pub key: TopicKey,
    pub partition: i32,
    /// The topic's name, once its id is known.
    pub name: Option<Arc<str>>,
    pub wanted: Wanted,
    high_watermark: Offset,
    log_start_offset: Offset,
}

/// A partition named by a request.
#[derive(Clone, Debug)]
pub struct Named {
    pub key: TopicKey,
    pub partition: i32,
    pub wanted: Wanted,
}

/// How a request is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// With all that it names. `creates`: then a session is to be tried.
    Full {
        creates: bool,
    },
    /// With what has changed in this session, which expects `epoch` next.
    Incremental {
        id: i32,
        epoch: i32,
    },
    Refused(ErrorCode),
}

struct Session {
    privileged: bool,
    uses_ids: bool,
    created: Monotonic,
    last_used: Monotonic,
    /// What the next request must carry.
    epoch: i32,
    /// In the order of answers; a partition that gave records goes to the end.
    partitions: BTreeMap<u64, SessionPartition>,
    places: BTreeMap<(TopicKey, i32), u64>,
    next_place: u64,
}

impl Session {
    fn want(&mut self, named: Named, name: Option<Arc<str>>) {
        let Named { key, partition, wanted } = named;
        if let Some(place) = self.places.get(&(key.clone(), partition)) {
            let known = self.partitions.get_mut(place).expect("a place has its partition");
            known.wanted = wanted;
            return;
        }
        self.places.insert((key.clone(), partition), self.next_place);
        let new = SessionPartition { key, partition, name, wanted, high_watermark: -1, log_start_offset: -1 };
        self.partitions.insert(self.next_place, new);
        self.next_place += 1;
    }

    fn forget(&mut self, key: TopicKey, partition: i32) {
        if let Some(place) = self.places.remove(&(key, partition)) {
            self.partitions.remove(&place);
        }
    }

    fn move_to_end(&mut self, place: u64) {
        let Some(moved) = self.partitions.remove(&place) else { return };
        self.places.insert((moved.key.clone(), moved.partition), self.next_place);
        self.partitions.insert(self.next_place, moved);
        self.next_place += 1;
    }
}

impl SessionPartition {
    /// Notes what is told; whether the client must be told (Kafka 3.9 `CachedPartition.maybeUpdateResponseData`).
    fn note(&mut self, told: &Told) -> bool {
        let is_news = told.has_records
            || told.has_error
            || told.is_diverging
            || self.high_watermark != told.high_watermark
            || self.log_start_offset != told.log_start_offset;
        // After an error the next good answer is news.
        self.high_watermark = if told.has_error { -1 } else { told.high_watermark };
        self.log_start_offset = told.log_start_offset;
        is_news
    }
}

/// The sessions of one shard.
pub struct SessionCache {
    limits: CacheLimits,
    sessions: BTreeMap<i32, Session>,
    /// Of all sessions.
    partition_count: usize,
}

impl SessionCache {
    pub fn new(limits: CacheLimits) -> SessionCache {
        SessionCache { limits, sessions: BTreeMap::new(), partition_count: 0 }
    }

    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// How many there may be.
    pub fn slots(&self) -> usize {
        self.limits.slots
    }

    /// Takes a request on: closes the session it ends, or brings the one it goes on with up to date.
    pub fn begin(
        &mut self,
        now: Monotonic,
        (id, epoch): (i32, i32),
        uses_ids: bool,
        named: impl Iterator<Item = Named>,
        forgotten: impl Iterator<Item = (TopicKey, i32)>,
    ) -> Begun {
        if epoch == INITIAL_EPOCH || epoch == FINAL_EPOCH {
            self.remove(id);
            return Begun::Full { creates: epoch == INITIAL_EPOCH };
        }
        let Some(session) = self.sessions.get_mut(&id) else {
            return Begun::Refused(ErrorCode::FetchSessionIdNotFound);
        };
        if session.epoch != epoch {
            return Begun::Refused(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.uses_ids != uses_ids {
            return Begun::Refused(ErrorCode::FetchSessionTopicIdError);
        }
        let before = session.partitions.len();
        named.for_each(|named| session.want(named, None));
        forgotten.for_each(|(key, partition)| session.forget(key, partition));
        let after = session.partitions.len();
        self.partition_count = self.partition_count - before + after;
        if after == 0 {
            self.remove(id);
            return Begun::Full { creates: false };
        }
        if self.partition_count > self.limits.partitions {
            // The client starts anew, and is served without a session.
            self.remove(id);
            return Begun::Refused(ErrorCode::FetchSessionIdNotFound);
        }
        session.last_used = now;
        session.epoch = next_epoch(epoch);
        Begun::Incremental { id, epoch: session.epoch }
    }

    pub fn partition_count(&self, id: i32) -> usize {
        self.sessions.get(&id).map_or(0, |session| session.partitions.len())
    }

    /// The partitions of a session in the order of its answers, each with its place.
    pub fn partitions(&mut self, id: i32) -> impl Iterator<Item = (u64, &mut SessionPartition)> {
        let partitions = self.sessions.get_mut(&id).map(|session| session.partitions.iter_mut());
        partitions.into_iter().flatten().map(|(place, partition)| (*place, partition))
    }

    /// Whether an incremental answer may be given still: another request of the session may have come meanwhile.
    pub fn check(&self, id: i32, epoch: i32) -> Result<(), ErrorCode> {
        match self.sessions.get(&id) {
            None => Err(ErrorCode::FetchSessionIdNotFound),
            Some(session) if session.epoch != epoch => Err(ErrorCode::InvalidFetchSessionEpoch),
            Some(_) => Ok(()),
        }
    }

    /// Notes what the partition at `place` is told; whether the answer must hold it.
    pub fn note(&mut self, id: i32, place: u64, told: &Told) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else { return true };
        let Some(partition) = session.partitions.get_mut(&place) else { return true };
        let is_news = partition.note(told);
        if told.has_records {
            session.move_to_end(place);
        }
        is_news
    }

    /// Makes a session of the `count` partitions that a full fetch named, and of what it was told; [`NO_SESSION`] if
    /// there is no room.
    pub fn create(
        &mut self,
        now: Monotonic,
        (privileged, uses_ids): (bool, bool),
        count: usize,
        partitions: impl Iterator<Item = (Named, Option<Arc<str>>, Told)>,
        mut random: impl FnMut() -> u64,
    ) -> i32 {
        if self.partition_count + count > self.limits.partitions || !self.make_room(now, privileged, count) {
            return NO_SESSION;
        }
        let id = self.new_id(&mut random);
        let mut session = Session {
            privileged,
            uses_ids,
            created: now,
            last_used: now,
            epoch: next_epoch(INITIAL_EPOCH),
            partitions: BTreeMap::new(),
            places: BTreeMap::new(),
            next_place: 0,
        };
        for (named, name, told) in partitions {
            let place = (named.key.clone(), named.partition);
            session.want(named, name);
            let place = session.places[&place];
            session.partitions.get_mut(&place).expect("just put there").note(&told);
        }
        self.partition_count += session.partitions.len();
        self.sessions.insert(id, session);
        id
    }

    fn new_id(&self, random: &mut impl FnMut() -> u64) -> i32 {
        let (first, last) = (*self.limits.ids.start(), *self.limits.ids.end());
        let width = (last - first) as u64 + 1;
        loop {
            let id = first + (random() % width) as i32;
            if !self.sessions.contains_key(&id) {
                return id;
            }
        }
    }

    /// Finds a slot, at the cost of a session that is worth less than a new one of `count` partitions (Kafka 3.9
    /// `FetchSessionCacheShard.tryEvict`): one long unused, else the smallest one that is not young.
    fn make_room(&mut self, now: Monotonic, privileged: bool, count: usize) -> bool {
        if self.sessions.len() < self.limits.slots {
            return true;
        }
        let Some((oldest, session)) = self.sessions.iter().min_by_key(|(id, session)| (session.last_used, **id)) else {
            return false;
        };
        if now.since(session.last_used) > EVICTION_AGE {
            let oldest = *oldest;
            return self.remove(oldest);
        }
        let may_go = |session: &Session| {
            (privileged && !session.privileged) || session.last_used.since(session.created) > EVICTION_AGE
        };
        let worth = |(id, session): (&i32, &Session)| (session.privileged, session.partitions.len(), *id);
        let least = self.sessions.iter().filter(|(_, session)| may_go(session)).map(worth).min();
        match least {
            Some(least) if least <= (privileged, count, NO_SESSION) => self.remove(least.2),
            _ => false,
        }
    }

    fn remove(&mut self, id: i32) -> bool {
        let removed = self.sessions.remove(&id);
        self.partition_count -= removed.as_ref().map_or(0, |session| session.partitions.len());
        removed.is_some()
    }
}

/// After the largest epoch comes 1: 0 and -1 mean something else.
fn next_epoch(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

#[cfg(test)]
mod tests;
