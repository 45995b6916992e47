//! Which record a timestamp leads to.

use super::*;

/// Of this codec, with times from `first` on in steps of one.
fn timed(codec: Codec, first: i64, count: i64, value_bytes: usize) -> BytesMut {
    let mut builder = BatchBuilder::new(codec);
    (first..first + count).for_each(|at| builder.push(at, Some(b"k"), Some(&vec![at as u8; value_bytes]), &[]));
    builder.build()
}

/// With this max timestamp in its header, and perhaps a body that can't be read.
fn lying(mut batch: BytesMut, max_timestamp: i64, is_damaged: bool) -> BytesMut {
    if is_damaged {
        batch[61..70].fill(0xee);
    }
    crate::record::batch::set_max_timestamp(&mut batch, max_timestamp);
    batch
}

#[test]
fn a_batch_that_can_not_be_decoded_answers_a_time_query_with_itself_and_takes_nobody_elses_answer() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut log = open(&FakeDisk::new(), LogConfig::default(), CLEAN);
        append(&mut log, timed(codec, 1000, 10, 50));
        append(&mut log, lying(timed(codec, 2000, 10, 50), 2500, true));
        append(&mut log, timed(codec, 3000, 10, 50));
        let find = |timestamp| run(log.lookup_timestamp(timestamp, 30, &Inline)).unwrap();
        assert_eq!(find(1005), Some((5, 1005)), "{codec:?}");
        assert_eq!(find(1010), Some((10, 2500)), "{codec:?}: no record that can be read is passed over");
        assert_eq!(find(2501), Some((20, 3000)), "{codec:?}");
        assert_eq!(run(log.lookup_max_timestamp(30, &Inline)).unwrap(), Some((29, 3009)));
        assert_eq!((log.take_undecodable_lookups(), log.take_undecodable_lookups()), (1, 0));
        assert!(log.increment_log_start_offset(15));
        assert_eq!(run(log.lookup_timestamp(1010, 30, &Inline)).unwrap(), Some((15, 2500)), "not below the log start");
        append(&mut log, lying(timed(codec, 4000, 10, 50), 9000, true));
        assert_eq!(run(log.lookup_max_timestamp(40, &Inline)).unwrap(), Some((30, 9000)));
    }
}

#[test]
fn a_header_that_says_too_much_sends_the_look_up_on_to_the_next_batch() {
    let mut log = open(&FakeDisk::new(), LogConfig::default(), CLEAN);
    append(&mut log, lying(timed(Codec::Zstd, 1000, 10, 50), 5000, false));
    append(&mut log, timed(Codec::Zstd, 2000, 10, 50));
    assert_eq!(run(log.lookup_timestamp(1500, 20, &Inline)).unwrap(), Some((10, 2000)));
    assert_eq!(run(log.lookup_timestamp(3000, 20, &Inline)).unwrap(), None);
    // No record has the latest timestamp: the batch that says so is nearest to it.
    assert_eq!(run(log.lookup_max_timestamp(20, &Inline)).unwrap(), Some((0, 5000)));
    assert_eq!(log.take_undecodable_lookups(), 0);
}

/// Counts what comes to the work threads, and may refuse it.
#[derive(Clone, Default)]
struct CountedWork {
    jobs: std::rc::Rc<std::cell::Cell<u32>>,
    is_full: bool,
}

impl crate::platform::Tasks for CountedWork {
    fn spawn(&self, _task: impl Future<Output = ()> + 'static) {
        panic!("nothing here goes on by itself");
    }

    fn work<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Option<T>> + 'static {
        self.jobs.set(self.jobs.get() + 1);
        std::future::ready((!self.is_full).then(job))
    }
}

#[test]
fn records_of_large_batches_are_looked_for_on_a_work_thread() {
    let mut log = open(&FakeDisk::new(), LogConfig::default(), CLEAN);
    append(&mut log, timed(Codec::Zstd, 1000, 10, 50));
    append(&mut log, timed(Codec::None, 2000, 100, 1000));
    // Small as it is stored.
    append(&mut log, timed(Codec::Zstd, 3000, 100, 1000));
    let tasks = CountedWork::default();
    let find = |timestamp, tasks: &CountedWork| run(log.lookup_timestamp(timestamp, 210, tasks));
    assert_eq!((find(1005, &tasks).unwrap(), tasks.jobs.get()), (Some((5, 1005)), 0));
    assert_eq!((find(2050, &tasks).unwrap(), tasks.jobs.get()), (Some((60, 2050)), 1));
    assert_eq!((find(3099, &tasks).unwrap(), tasks.jobs.get()), (Some((209, 3099)), 2));
    let full = CountedWork { is_full: true, ..CountedWork::default() };
    assert!(matches!(find(3099, &full), Err(LogError::Busy)));
}

#[test]
fn a_timestamp_is_found_in_every_segment() {
    let disk = FakeDisk::new();
    for reopened in [false, true] {
        let mut log = filled(&disk, 200);
        if reopened {
            close(log);
            log = open(&disk, small(), CLEAN);
        }
        let find = |timestamp, ceiling| run(log.lookup_timestamp(timestamp, ceiling, &Inline)).unwrap();
        for at in 0..200 {
            assert_eq!(find(10_000 + at, 200), Some((at, 10_000 + at)));
        }
        assert_eq!(find(-5, 200), Some((0, 10_000)));
        assert_eq!(find(10_200, 200), None);
        assert_eq!(find(10_150, 150), None, "the ceiling hides it");
    }
}
