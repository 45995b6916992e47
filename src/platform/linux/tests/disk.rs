//! What a log directory does: pages, blocks, names, write-back.

use super::*;

#[test]
fn evicted_pages_are_seen_missing_and_come_back_by_the_cold_path() {
    for cachestat in [true, false] {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("directory");
        let path = directory.path().join("data");
        std::fs::write(&path, pattern(2 << 20)).expect("written");
        on_a_shard_with(directory.path(), cachestat, |platform| async move {
            let disk = platform.disk().clone();
            let (file, length) = disk.open(&path, OpenMode::Read).await.expect("open");
            disk.sync(&file).await.expect("sync");
            // The kernel may leave pages that something else holds at the moment.
            let deadline = Instant::now() + DEADLINE;
            while disk.read_resident(&file, length / 2, &mut [0; 100]).expect("probed").is_some() {
                assert!(Instant::now() < deadline, "what was evicted is seen as resident");
                sys::evict(file.as_fd(), 0, 0).expect("evicted");
            }
            assert!(!disk.is_resident(&file, 0, length));
            disk.make_resident(&file, 0, length).await.expect("read in");
            assert!(disk.is_resident(&file, 0, length));
            assert_eq!(platform.counters().cold_bytes_total.get(), length);
        });
    }
}

#[test]
fn a_log_that_rests_holds_no_blocks_that_it_does_not_need_and_goes_on() {
    use std::os::unix::fs::MetadataExt;

    const BATCHES: i64 = 48;
    // Blocks are reserved on the checkout's file system, if anywhere.
    let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("directory");
    let log_dir = directory.path().to_owned();
    on_a_shard(directory.path(), |platform| async move {
        let mut log = new_log(&platform, &log_dir).await;
        let path = log_dir.join("t-0/00000000000000000000.log");
        let mut reserved = false;
        for at in 0..BATCHES {
            let mut builder = BatchBuilder::new(Codec::None);
            builder.push(at, None, Some(&pattern(64 << 10)), &[]);
            let batch = builder.build();
            let header = BatchHeader::parse(&batch).expect("a batch");
            assert!(matches!(log.stage(batch, &header, Origin::Client, 0, 0), Staged::Written { .. }));
            let write = log.take_write().expect("staged");
            let written = platform.disk().append(&write.file, write.position, write.data).await;
            log.finish_write(written).expect("written");
            if let Some(upkeep) = log.upkeep(0, true) {
                let done = upkeep.await;
                log.finish_upkeep(done).expect("index written");
            }
            let file = path.metadata().expect("the log");
            reserved |= file.blocks() * 512 > file.size() + (512 << 10);
            if at == BATCHES / 2 || at == BATCHES - 1 {
                let rested = log.rest().expect("there is something to give back").await;
                log.finish_rest(rested).expect("given back");
                assert!(log.rest().is_none(), "once");
                let file = path.metadata().expect("the log");
                assert!(file.blocks() * 512 <= file.size() + (64 << 10), "{} blocks", file.blocks());
            }
        }
        if !reserved {
            eprintln!("the checkout's file system reserves no blocks: only that nothing breaks was shown");
        }
        for offset in 0..BATCHES {
            if let Found::NeedSegment { base_offset } = log.read(offset, 1, BATCHES) {
                let loaded = log.load_segment(base_offset).await;
                log.finish_load_segment(loaded).expect("its index");
            }
            assert!(matches!(log.read(offset, 1, BATCHES), Found::Range { base_offset, .. } if base_offset == offset));
        }
    });
}

#[test]
fn an_append_that_found_the_machine_short_leaves_the_directory_and_one_that_the_device_failed_does_not() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("data");
    on_a_shard(directory.path(), |platform| async move {
        let (file, _) = platform.disk().open(&path, OpenMode::CreateNew).await.expect("open");
        let again = async || platform.disk().append(&file, 0, vec![BytesMut::from("again")]).await;
        let code = std::io::Error::from_raw_os_error;
        let full = [libc::ENOSPC, libc::EDQUOT];
        for spared in full.into_iter().chain([libc::ENOMEM, libc::EINTR, libc::EAGAIN, libc::EBUSY, libc::ECANCELED]) {
            assert!(file.finish_append(0, 5, Err(code(spared))).is_err());
            again().await.unwrap_or_else(|error| panic!("after {spared}: {error}"));
        }
        assert!(file.finish_append(0, 5, Err(code(libc::EIO))).is_err());
        assert!(again().await.is_err(), "nobody knows what is on the device");
    });
}

#[test]
fn links_are_listed_as_what_they_lead_to_and_those_that_lead_nowhere_are_named() {
    use std::os::unix::fs::symlink;
    let directory = tempfile::tempdir().expect("directory");
    let (data, away) = (directory.path().join("data"), directory.path().join("away"));
    std::fs::create_dir_all(away.join("partition")).expect("made");
    std::fs::create_dir(&data).expect("made");
    std::fs::write(away.join("partition/file"), b"content").expect("written");
    symlink(away.join("partition"), data.join("linked")).expect("a link");
    symlink(data.join("linked"), data.join("link-to-a-link")).expect("a link");
    symlink(away.join("partition/file"), data.join("file")).expect("a link");
    symlink(away.join("nowhere"), data.join("broken")).expect("a link");
    symlink(data.join("round"), data.join("round")).expect("a link");
    on_a_shard(&data.clone(), |platform| async move {
        let disk = platform.disk();
        let listed = disk.list(&data).await.expect("listed");
        let kinds: Vec<_> =
            listed.iter().map(|entry| (&*entry.name, entry.is_directory, entry.is_broken_link, entry.length)).collect();
        let expected = [
            ("broken", false, true, 0),
            ("file", false, false, 7),
            ("link-to-a-link", true, false, 0),
            ("linked", true, false, 0),
            ("round", false, true, 0),
        ];
        assert_eq!(kinds, expected);
        assert_eq!(disk.list(&data.join("link-to-a-link")).await.expect("listed").len(), 1);
        for name in ["broken", "round"] {
            let error = disk.list(&data.join(name)).await.expect_err("it leads nowhere");
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
            assert!(error.to_string().contains("symbolic link to"), "{error}");
        }
        // What is deleted is the link, as Kafka does it, and what lies elsewhere stays there.
        disk.rename(&data.join("linked"), &data.join("aside")).await.expect("renamed");
        disk.remove_directory(&data.join("aside")).await.expect("removed");
        disk.create_directory(&data.join("with-a-link")).await.expect("made");
        symlink(away.join("partition"), data.join("with-a-link/inner")).expect("a link");
        disk.remove_directory(&data.join("with-a-link")).await.expect("removed");
        disk.remove_directory(&data.join("broken")).await.expect("removed");
        assert_eq!(std::fs::read(away.join("partition/file")).expect("there"), b"content");
        let left: Vec<_> = disk.list(&data).await.expect("listed").into_iter().map(|entry| entry.name).collect();
        assert_eq!(left, ["file", "link-to-a-link", "round"]);
    });
}

#[test]
fn blocks_reserved_behind_the_end_show_in_a_listing_and_a_length_that_stays_gives_them_back() {
    let directory = tempfile::tempdir().expect("directory");
    let data = directory.path().to_owned();
    on_a_shard(directory.path(), |platform| async move {
        let disk = platform.disk();
        let (file, _) = disk.open(&data.join("file"), OpenMode::CreateNew).await.expect("open");
        disk.append(&file, 0, vec![BytesMut::from("content")]).await.expect("append");
        if disk.preallocate(&file, 7, 8 << 20).await.is_err() {
            return; // This file system reserves nothing.
        }
        let entry = || async { disk.list(&data).await.expect("listed").remove(0) };
        let reserved = entry().await;
        assert!(reserved.length == 7 && reserved.allocated_bytes >= 8 << 20, "{reserved:?}");
        disk.set_length(&file, 7).await.expect("the same length");
        let given_back = entry().await;
        assert!(given_back.length == 7 && given_back.allocated_bytes < 1 << 20, "{given_back:?}");
    });
}

#[test]
fn what_is_appended_goes_to_the_device_by_itself_but_for_the_end_of_its_file() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("log");
    let shared = start_directory(directory.path(), 1 << 30);
    let seen = Arc::clone(&shared);
    on_a_shard_of(shared, true, |platform| async move {
        let (disk, clock) = (platform.disk(), platform.clock());
        let (file, _) = disk.open(&path, OpenMode::CreateNew).await.expect("open");
        let append_bytes = 200_000;
        for append in 0..40 {
            disk.append(&file, append * append_bytes, vec![BytesMut::zeroed(append_bytes as usize)])
                .await
                .expect("append");
        }
        let deadline = clock.now() + Duration::from_secs(30);
        while seen.dirty_bytes() >= KEEP_BYTES + PIECE_BYTES_MAX {
            assert!(clock.now() < deadline, "{} bytes are dirty still", seen.dirty_bytes());
            clock.sleep_until(clock.now() + Duration::from_millis(1)).await;
        }
        assert!(seen.dirty_bytes() >= KEEP_BYTES, "the end was written back: {} bytes are dirty", seen.dirty_bytes());
        disk.sync(&file).await.expect("sync");
        assert_eq!(seen.dirty_bytes(), 0);
    });
}

/// Each file has less than write-back leaves at its end, so all of them together would be in the way for ever.
#[test]
fn a_directory_with_more_dirty_than_it_may_has_appends_wait_and_all_come_through() {
    let directory = tempfile::tempdir().expect("directory");
    let root = directory.path().to_owned();
    let shared = start_directory(directory.path(), 1);
    let (seen, bytes_max) = (Arc::clone(&shared), shared.dirty_bytes_max());
    on_a_shard_of(shared, true, |platform| async move {
        let disk = platform.disk();
        let mut files = Vec::new();
        for number in 0..3 * bytes_max / KEEP_BYTES {
            let (file, _) = disk.open(&root.join(number.to_string()), OpenMode::CreateNew).await.expect("open");
            disk.append(&file, 0, vec![BytesMut::zeroed(KEEP_BYTES as usize)]).await.expect("append");
            assert!(seen.dirty_bytes() <= bytes_max + KEEP_BYTES, "{} bytes are dirty", seen.dirty_bytes());
            files.push(file);
        }
    });
}
