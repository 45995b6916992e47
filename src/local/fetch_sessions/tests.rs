use super::*;
use crate::base::splitmix64::next;

const ROUNDS: u64 = 300;
const STEPS: usize = 60;

fn limits(slots: usize, partitions: usize) -> CacheLimits {
    CacheLimits { slots, partitions, ids: 1..=1000 }
}

fn wanted(fetch_offset: Offset) -> Wanted {
    Wanted { fetch_offset, bytes_max: 1, current_leader_epoch: -1, last_fetched_epoch: -1 }
}

fn name(topic: &str) -> TopicKey {
    TopicKey::Name(topic.into())
}

fn named(partition: i32, fetch_offset: Offset) -> Named {
    Named { key: name("t"), partition, wanted: wanted(fetch_offset) }
}

fn told(high_watermark: Offset) -> Told {
    Told { has_records: false, has_error: false, is_diverging: false, high_watermark, log_start_offset: 0 }
}

fn at(seconds: u64) -> Monotonic {
    Monotonic(seconds * 1_000_000_000)
}

fn create(cache: &mut SessionCache, now: Monotonic, privileged: bool, count: i32, seed: &mut u64) -> i32 {
    let partitions = (0..count).map(|partition| (named(partition, 0), None, told(0)));
    cache.create(now, (privileged, false), count as usize, partitions, || next(seed))
}

fn begin(cache: &mut SessionCache, now: Monotonic, id: i32, epoch: i32) -> Begun {
    cache.begin(now, (id, epoch), false, std::iter::empty(), std::iter::empty())
}

/// One partition as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Truth {
    high_watermark: Offset,
    log_start: Offset,
    has_error: bool,
}

/// What a client knows of a partition it fetches.
#[derive(Clone, Copy, Debug)]
struct Client {
    offset: Offset,
    seen: Option<Truth>,
}

/// What is answered of a partition.
fn answer(truth: &Truth, offset: Offset, has_room: bool) -> Told {
    Told {
        has_records: !truth.has_error && has_room && offset < truth.high_watermark,
        has_error: truth.has_error,
        is_diverging: false,
        high_watermark: if truth.has_error { -1 } else { truth.high_watermark },
        log_start_offset: if truth.has_error { -1 } else { truth.log_start },
    }
}

fn shown(told: &Told) -> Truth {
    let Told { has_error, high_watermark, log_start_offset, .. } = *told;
    Truth { high_watermark, log_start: log_start_offset, has_error }
}

/// A client that fetches by a session, over partitions that move, knows after each answer what one without a session is
/// told; whoever has records to give gives them or keeps its turn before those that gave.
#[test]
fn a_client_with_a_session_has_seen_what_one_without_is_told() {
    for seed in 0..ROUNDS {
        let mut seed = seed;
        let mut dice = move |bound: u64| next(&mut seed) % bound;
        let mut cache = SessionCache::new(limits(2, 1000));
        let mut truths = [Truth { high_watermark: 0, log_start: 0, has_error: false }; 8];
        let mut client: BTreeMap<i32, Client> = BTreeMap::new();
        let (mut id, mut epoch) = (NO_SESSION, 0);
        for step in 0..STEPS {
            let now = at(step as u64);
            for truth in &mut truths {
                match dice(12) {
                    0..4 => truth.high_watermark += dice(3) as i64,
                    4 => truth.log_start = (truth.log_start + 1).min(truth.high_watermark),
                    5 => truth.has_error = !truth.has_error,
                    _ => {}
                }
            }
            // The client begins, ends, or moves with some partitions; an incremental request names only those.
            let (mut changed, mut gone) = (Vec::new(), Vec::new());
            for partition in 0..truths.len() as i32 {
                match dice(6) {
                    0 if client.remove(&partition).is_some() => gone.push(partition),
                    1 => {
                        client.entry(partition).or_insert(Client { offset: 0, seen: None });
                        changed.push(partition);
                    }
                    _ => {}
                }
            }
            if dice(15) == 0 {
                (id, epoch) = (NO_SESSION, 0);
            }
            let has_room: Vec<bool> = truths.iter().map(|_| dice(2) == 0).collect();
            let tell = |partition: i32, offset: Offset| {
                answer(&truths[partition as usize], offset, has_room[partition as usize])
            };
            let names: Vec<i32> = if epoch == 0 { client.keys().copied().collect() } else { changed };
            let request: Vec<Named> =
                names.iter().map(|partition| named(*partition, client[partition].offset)).collect();
            let forgotten = gone.iter().map(|partition| (name("t"), *partition));
            let begun = cache.begin(now, (id, epoch), false, request.iter().cloned(), forgotten);
            let mut answers: Vec<(i32, Told)> = Vec::new();
            match begun {
                Begun::Full { creates } => {
                    let tell = |named: Named| {
                        let told = tell(named.partition, named.wanted.fetch_offset);
                        (named, None, told)
                    };
                    let all: Vec<_> = request.into_iter().map(tell).collect();
                    answers.extend(all.iter().map(|(named, _, told)| (named.partition, *told)));
                    id = NO_SESSION;
                    if creates {
                        let mut id_seed = step as u64;
                        id = cache.create(now, (false, false), all.len(), all.into_iter(), || next(&mut id_seed));
                    }
                    epoch = i32::from(id != NO_SESSION);
                    if !creates {
                        assert!(client.is_empty(), "only a session emptied is closed so");
                    }
                }
                Begun::Incremental { id, epoch: next_epoch } => {
                    let known: Vec<(u64, i32, Offset)> = cache
                        .partitions(id)
                        .map(|(place, known)| (place, known.partition, known.wanted.fetch_offset))
                        .collect();
                    assert_eq!(known.len(), client.len(), "seed {seed}, step {step}");
                    assert_eq!(cache.check(id, next_epoch), Ok(()));
                    let mut order: Vec<i32> = known.iter().map(|known| known.1).collect();
                    for (place, partition, offset) in known {
                        assert_eq!(offset, client[&partition].offset);
                        let told = tell(partition, offset);
                        if cache.note(id, place, &told) {
                            answers.push((partition, told));
                        } else {
                            assert!(!told.has_records);
                        }
                        if told.has_records {
                            order.retain(|other| *other != partition);
                            order.push(partition);
                        }
                    }
                    assert_eq!(cache.partitions(id).map(|(_, known)| known.partition).collect::<Vec<_>>(), order);
                    epoch = next_epoch;
                }
                Begun::Refused(code) => panic!("{code:?}"),
            }
            for (partition, told) in answers {
                client.get_mut(&partition).expect("asked for").seen = Some(shown(&told));
            }
            for (partition, state) in &client {
                let sessionless = shown(&tell(*partition, state.offset));
                assert_eq!(state.seen, Some(sessionless), "partition {partition}, seed {seed}, step {step}");
            }
        }
    }
}

#[test]
fn wrong_ids_epochs_and_kinds_of_topic_names_are_refused_and_change_nothing() {
    let (mut cache, mut seed) = (SessionCache::new(limits(2, 100)), 1);
    let id = create(&mut cache, at(0), false, 3, &mut seed);
    assert_eq!(begin(&mut cache, at(0), id + 1, 1), Begun::Refused(ErrorCode::FetchSessionIdNotFound));
    assert_eq!(begin(&mut cache, at(0), id, 2), Begun::Refused(ErrorCode::InvalidFetchSessionEpoch));
    assert_eq!(begin(&mut cache, at(0), id, -7), Begun::Refused(ErrorCode::InvalidFetchSessionEpoch));
    let with_ids = cache.begin(at(0), (id, 1), true, std::iter::empty(), std::iter::empty());
    assert_eq!(with_ids, Begun::Refused(ErrorCode::FetchSessionTopicIdError));
    assert_eq!(begin(&mut cache, at(0), id, 1), Begun::Incremental { id, epoch: 2 });
    assert_eq!(begin(&mut cache, at(0), id, 1), Begun::Refused(ErrorCode::InvalidFetchSessionEpoch), "a repeat");
    assert_eq!(cache.check(id, 1), Err(ErrorCode::InvalidFetchSessionEpoch));
}

#[test]
fn after_the_largest_epoch_comes_1() {
    let (mut cache, mut seed) = (SessionCache::new(limits(2, 100)), 1);
    let id = create(&mut cache, at(0), false, 3, &mut seed);
    cache.sessions.get_mut(&id).unwrap().epoch = i32::MAX;
    assert_eq!(begin(&mut cache, at(0), id, i32::MAX), Begun::Incremental { id, epoch: 1 });
    assert_eq!(begin(&mut cache, at(0), id, 1), Begun::Incremental { id, epoch: 2 });
}

#[test]
fn a_full_fetch_closes_the_session_it_names_and_a_session_emptied_is_closed() {
    let (mut cache, mut seed) = (SessionCache::new(limits(9, 100)), 1);
    for (epoch, creates) in [(0, true), (-1, false)] {
        let id = create(&mut cache, at(0), false, 3, &mut seed);
        assert_eq!(begin(&mut cache, at(0), id, epoch), Begun::Full { creates });
        assert_eq!((cache.len(), cache.partition_count), (0, 0));
    }
    let id = create(&mut cache, at(0), false, 2, &mut seed);
    let all = [(name("t"), 0), (name("t"), 1)];
    let begun = cache.begin(at(0), (id, 1), false, std::iter::empty(), all.into_iter());
    assert_eq!((begun, cache.len(), cache.partition_count), (Begun::Full { creates: false }, 0, 0));
}

#[test]
fn a_session_unused_for_two_minutes_gives_its_slot_to_any_other() {
    let (mut cache, mut seed) = (SessionCache::new(limits(2, 100)), 1);
    let used = create(&mut cache, at(0), false, 9, &mut seed);
    let unused = create(&mut cache, at(0), true, 9, &mut seed);
    begin(&mut cache, at(100), used, 1);
    assert_eq!(create(&mut cache, at(120), false, 1, &mut seed), NO_SESSION);
    let new = create(&mut cache, at(121), false, 1, &mut seed);
    assert_ne!(new, NO_SESSION);
    assert_eq!(begin(&mut cache, at(121), unused, 1), Begun::Refused(ErrorCode::FetchSessionIdNotFound));
    assert_eq!(begin(&mut cache, at(121), used, 2), Begun::Incremental { id: used, epoch: 3 });
}

#[test]
fn a_replicas_session_takes_any_consumers_slot_and_a_larger_one_that_of_a_smaller_old_one() {
    let (mut cache, mut seed) = (SessionCache::new(limits(1, 100)), 1);
    let small = create(&mut cache, at(0), false, 2, &mut seed);
    assert_eq!(create(&mut cache, at(1), false, 9, &mut seed), NO_SESSION, "the other is young");
    begin(&mut cache, at(119), small, 1);
    begin(&mut cache, at(130), small, 2);
    assert_eq!(create(&mut cache, at(131), false, 2, &mut seed), NO_SESSION, "it is not larger");
    let larger = create(&mut cache, at(131), false, 3, &mut seed);
    assert_ne!(larger, NO_SESSION);
    let privileged = create(&mut cache, at(132), true, 1, &mut seed);
    assert_ne!(privileged, NO_SESSION);
    assert_eq!(create(&mut cache, at(133), false, 50, &mut seed), NO_SESSION);
    assert_eq!(create(&mut cache, at(133), true, 50, &mut seed), NO_SESSION, "the other is privileged, and young");
    assert_eq!(cache.len(), 1);
}

#[test]
fn partitions_are_bounded_over_all_sessions() {
    let (mut cache, mut seed) = (SessionCache::new(limits(10, 10)), 1);
    let id = create(&mut cache, at(0), false, 6, &mut seed);
    assert_eq!(create(&mut cache, at(0), false, 5, &mut seed), NO_SESSION);
    assert_ne!(create(&mut cache, at(0), false, 4, &mut seed), NO_SESSION);
    let more = std::iter::once(named(77, 0));
    let begun = cache.begin(at(0), (id, 1), false, more, std::iter::empty());
    assert_eq!(begun, Begun::Refused(ErrorCode::FetchSessionIdNotFound), "the client starts anew without a session");
    assert_eq!(cache.partition_count, 4);
}

#[test]
fn shards_share_slots_and_ids_without_overlap() {
    for (slots, count) in [(1000, 1), (1000, 3), (2, 4), (0, 2)] {
        let shares: Vec<_> = (0..count).map(|index| CacheLimits::share(slots, index, count)).collect();
        assert_eq!(shares.iter().map(|share| share.slots).sum::<usize>(), slots as usize);
        assert!(shares.iter().all(|share| *share.ids.start() > NO_SESSION));
        assert!(shares.windows(2).all(|pair| pair[0].ids.end() < pair[1].ids.start()));
    }
    let mut none = SessionCache::new(CacheLimits::share(0, 0, 1));
    assert_eq!(create(&mut none, at(0), true, 1, &mut 1), NO_SESSION);
}
