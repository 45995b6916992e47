//! The small files of a log directory, the settings and the values in the metadata tree.

use std::path::Path;

use ringlog::base::crc32c::crc32c;
use ringlog::base::ids::TopicPartition;
use ringlog::config::properties::fuzz_properties;
use ringlog::config::{Config, ServeOptions};
use ringlog::metadata::znodes::fuzz_znodes;
use ringlog::sim::disk::FakeDisk;
use ringlog::storage::checkpoint::fuzz_parse_offsets;
use ringlog::storage::leader_epoch::LeaderEpochs;
use ringlog::storage::log_dir::{META_PROPERTIES, parse_directory_name, read_meta_properties, write_meta_properties};
use ringlog::storage::offset_index::OffsetIndex;
use ringlog::storage::producer_state::fuzz_decode_snapshot;
use ringlog::storage::time_index::TimeIndex;
use ringlog::storage::transaction_index::fuzz_parse_transaction_index;
use ringlog::storage::{identity, log};

use crate::corpus;
use crate::harness::{check, of_bytes};
use crate::recovery::run;

const INDEX_BYTES_MAX: u32 = 10 << 20;
/// Of a preallocated index, only the beginning holds entries.
const INDEX_BYTES_TAKEN: usize = 96;

fn indexes(suffix: &str) -> Vec<Vec<u8>> {
    let mut files = corpus::of_partitions(suffix, 8192);
    files.iter_mut().for_each(|file| file.truncate(INDEX_BYTES_TAKEN));
    files.extend(corpus::saved(&suffix[1..]));
    files
}

#[test]
fn an_offset_index_is_what_it_holds_up_to_its_first_damage() {
    check(of_bytes("offset index", indexes(".index"), None, |file| {
        let mut index = OffsetIndex::decode(100, INDEX_BYTES_MAX, file, 1 << 20);
        assert!(index.bytes() <= file.len() as u64);
        let Some(last) = index.last() else { return };
        assert!(last.position < 1 << 20 && index.lookup(i64::MAX) == Some(last));
        for offset in [i64::MIN, 0, 100, 101, 1000, i64::MAX] {
            let _ = (index.lookup(offset), index.covers(offset));
        }
        index.truncate(1000);
        index.push(2000, (1 << 20) + 1);
        assert!(index.lookup(2000).is_some() && index.unwritten().1.len() as u64 <= index.bytes());
    }));
}

#[test]
fn a_time_index_is_what_it_holds_up_to_its_first_damage() {
    check(of_bytes("time index", indexes(".timeindex"), None, |file| {
        let mut index = TimeIndex::decode(100, INDEX_BYTES_MAX, file, 1_000_000);
        assert!(index.bytes() <= file.len() as u64);
        if let Some(last) = index.last() {
            assert!((100..1_000_000).contains(&last.offset) && index.lookup(i64::MAX) == last.offset);
        }
        for timestamp in [i64::MIN, -1, 0, 1_700_000_000_000, i64::MAX] {
            let _ = (index.lookup(timestamp), index.covers(timestamp));
        }
        index.truncate(1000);
    }));
}

#[test]
fn a_transaction_index_is_read_or_refused() {
    let files = indexes(".txnindex");
    check(of_bytes("transaction index", files, None, fuzz_parse_transaction_index));
}

#[test]
fn a_producer_snapshot_is_read_or_refused() {
    let mend = |file: &mut [u8]| {
        if file.len() >= 6 {
            let sum = crc32c(&file[6..]);
            file[2..6].copy_from_slice(&sum.to_be_bytes());
        }
    };
    let files = corpus::of_partitions(".snapshot", 8192);
    check(of_bytes("producer snapshot", files, Some(mend), fuzz_decode_snapshot));
}

#[test]
fn a_leader_epoch_checkpoint_is_read_or_refused() {
    let mut files = corpus::of_partitions(log::LEADER_EPOCH_CHECKPOINT, 8192);
    files.extend(corpus::saved("leader-epoch-checkpoint"));
    check(of_bytes("leader-epoch-checkpoint", files, None, |file| {
        if let Ok(mut epochs) = LeaderEpochs::parse(file) {
            assert_eq!(LeaderEpochs::parse(&epochs.encode()).as_ref(), Ok(&epochs));
            let _ = (epochs.latest(), epochs.at(5), epochs.at(i64::MAX), epochs.end_offset_for(3, 7, 10));
            epochs.truncate_from_end(100);
            epochs.truncate_from_start(7);
        }
    }));
}

#[test]
fn an_offset_checkpoint_is_read_or_refused() {
    let mut files = corpus::beside_partitions("-checkpoint");
    files.extend(corpus::saved("offset-checkpoint"));
    check(of_bytes("offset checkpoints", files, None, fuzz_parse_offsets));
}

#[test]
fn a_partitions_identity_is_read_or_refused() {
    let files = corpus::of_partitions(log::PARTITION_METADATA, 8192);
    check(of_bytes("partition.metadata", files, None, |file| {
        let disk = FakeDisk::new();
        disk.put(&Path::new("/data/t-0").join(log::PARTITION_METADATA), file);
        let partition = TopicPartition { topic: "t".into(), partition: 0 };
        let _ = run(identity::read(&disk, Path::new("/data"), &partition));
    }));
}

#[test]
fn meta_properties_are_read_or_refused() {
    check(of_bytes("meta.properties", corpus::saved("meta.properties"), None, |file| {
        let (disk, data) = (FakeDisk::new(), Path::new("/data"));
        disk.put(&data.join(META_PROPERTIES), file);
        if let Ok(Some(meta)) = run(read_meta_properties(&disk, data)) {
            run(write_meta_properties(&disk, data, &meta)).expect("written");
            assert_eq!(run(read_meta_properties(&disk, data)).expect("read again"), Some(meta));
        }
    }));
}

#[test]
fn the_name_of_a_directory_is_a_partitions_or_not() {
    let names = ["orders-0", "a-b-12", "t-2147483648", "-1", "t-00", "x.0123456789abcdef0123456789abcdef-delete"];
    let names = names.map(|name| name.as_bytes().to_vec()).to_vec();
    check(of_bytes("directory names", names, None, |name| {
        let name = String::from_utf8_lossy(name);
        if let Some(partition) = parse_directory_name(&name) {
            assert!(name.starts_with(&*partition.topic) && partition.partition >= 0);
        }
    }));
}

#[test]
fn properties_are_read_or_refused() {
    check(of_bytes("properties", corpus::saved("server.properties"), None, fuzz_properties));
}

#[test]
fn settings_are_taken_or_refused() {
    let path = tempfile::NamedTempFile::new().expect("a file").into_temp_path();
    let mut target = of_bytes("settings", corpus::saved("server.properties"), None, move |file| {
        std::fs::write(&path, file).expect("written");
        let _ = Config::load(&ServeOptions { config: Some(path.to_path_buf()), ..ServeOptions::default() });
    });
    // All settings and their checks, whatever was set.
    let in_proportion = target.memory_max;
    target.memory_max = Box::new(move |input| in_proportion(input) + (1 << 20));
    check(target);
}

#[test]
fn values_in_the_tree_are_read_or_refused() {
    check(of_bytes("znodes", corpus::saved("znodes"), None, fuzz_znodes));
}
