use super::*;
use crate::metadata::tree::suite::{self, Probe};
use crate::metadata::tree::{CreateMode, NODE_DATA_BYTES_MAX, Operation, Version, Watch};

fn probe() -> Probe<EmbeddedTree> {
    Probe::of(EmbeddedTree::in_memory().unwrap())
}

fn make(path: &str) -> Operation {
    Operation::Create { path: path.into(), data: vec![7], mode: CreateMode::Persistent }
}

#[test]
fn it_does_what_every_tree_must() {
    suite::run_all(&mut probe);
}

#[test]
fn ephemerals_go_with_the_process_and_sessions_and_epochs_grow() {
    let mut tree = probe();
    tree.create("/ids", b"", CreateMode::Persistent).unwrap();
    let (_, first) = tree.create("/ids/1", b"x", CreateMode::Ephemeral).unwrap();
    let session = tree.tree().session();

    let mut tree = Probe::of(tree.into_tree().reopen().unwrap());
    assert!(tree.tree().session() > session);
    assert_eq!(tree.children("/ids", Watch::None).unwrap(), Vec::<String>::new());
    let (_, second) = tree.create("/ids/1", b"x", CreateMode::Ephemeral).unwrap();
    assert!(second.czxid > first.czxid, "a broker epoch grows over restarts");
}

#[test]
fn writes_given_together_are_transactions_of_their_own() {
    let mut tree = probe();
    tree.tree().submit(1, None, Request::Multi(vec![make("/a"), make("/b")]));
    tree.tree().submit(2, None, Request::Multi(vec![make("/c")]));
    let mut czxids = Vec::new();
    while let Some(TreeOutput::Reply { result, .. }) = tree.output() {
        let Ok(Reply::Multi(outcomes)) = result else { panic!("{result:?}") };
        czxids.extend(outcomes.iter().map(|outcome| match outcome {
            Outcome::Created(_, stat) => stat.czxid,
            other => panic!("{other:?}"),
        }));
    }
    assert!(czxids[0] == czxids[1] && czxids[1] < czxids[2], "{czxids:?}");
    let version = Version::Exactly(0);
    for id in 0..3 {
        tree.tree().submit(id, None, Request::Set { path: "/a".into(), data: vec![id as u8], version });
    }
    let is_done = |output| matches!(output, Some(TreeOutput::Reply { result: Ok(_), .. }));
    assert_eq!([(); 3].map(|()| is_done(tree.output())), [true, false, false], "each sees what the one before did");
    assert_eq!(tree.get("/a", Watch::None).unwrap().0, [0]);
}

#[test]
fn the_file_keeps_what_was_answered_and_only_one_process_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tree");
    let open = || Probe::of(EmbeddedTree::open(&path).unwrap());
    let zxid = {
        let mut tree = open();
        assert!(matches!(EmbeddedTree::open(&path), Err(OpenError::Locked)));
        tree.create("/kept", b"data", CreateMode::Persistent).unwrap();
        tree.create("/gone", b"", CreateMode::Ephemeral).unwrap().1.czxid
    };
    let mut tree = open();
    assert_eq!(tree.get("/kept", Watch::None).unwrap().0, b"data");
    assert_eq!(tree.children("/", Watch::None).unwrap(), ["kept"]);
    assert!(tree.create("/new", b"", CreateMode::Persistent).unwrap().1.czxid > zxid);
}

#[test]
fn a_file_of_another_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tree");
    drop(EmbeddedTree::open(&path).unwrap());
    {
        let database = Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(META).unwrap().insert("format", 2).unwrap();
        transaction.commit().unwrap();
    }
    assert!(matches!(EmbeddedTree::open(&path), Err(OpenError::Format { found: 2 })));

    std::fs::write(&path, b"something else altogether").unwrap();
    assert!(matches!(EmbeddedTree::open(&path), Err(OpenError::Storage(_))));
}

#[test]
fn a_tree_is_made_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    let broken = [make("/a"), make("/missing/b")];
    assert!(matches!(EmbeddedTree::make(&path, &broken), Err(OpenError::Storage(_))));
    assert!(!path.exists());
    EmbeddedTree::make(&path, &[make("/a"), make("/a/b")]).unwrap();
    let mut tree = Probe::of(EmbeddedTree::open(&path).unwrap());
    assert_eq!(tree.children("/", Watch::None).unwrap(), ["a"]);
    assert_eq!(tree.get("/a/b", Watch::None).unwrap().0, [7]);
}

#[test]
fn oversized_data_is_refused() {
    let mut tree = probe();
    let large = vec![0; NODE_DATA_BYTES_MAX + 1];
    assert!(matches!(tree.create("/a", &large, CreateMode::Persistent), Err(TreeError::BadArguments(_))));
    tree.create("/a", &large[1..], CreateMode::Persistent).unwrap();
}
