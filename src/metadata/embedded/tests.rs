use super::super::thread::block_on;
use super::*;

fn tree() -> EmbeddedTree {
    EmbeddedTree::in_memory().unwrap()
}

fn create(tree: &EmbeddedTree, path: &str) -> Result<(String, Stat), TreeError> {
    block_on(tree.create(path, b"", CreateMode::Persistent))
}

fn next_event(tree: &EmbeddedTree) -> Option<TreeEvent> {
    match tree.poll_event(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(event) => Some(event),
        Poll::Pending => None,
    }
}

#[test]
fn a_node_keeps_its_data_and_counts_its_versions() {
    let tree = tree();
    let (path, made) = block_on(tree.create("/a", b"one", CreateMode::Persistent)).unwrap();
    assert_eq!((path.as_str(), made.version, made.ephemeral_owner), ("/a", 0, 0));
    assert_eq!(create(&tree, "/a").unwrap_err(), TreeError::NodeExists("/a".into()));
    assert_eq!(create(&tree, "/b/c").unwrap_err(), TreeError::NoNode("/b".into()));

    assert_eq!(block_on(tree.set("/a", b"two", Version::Exactly(0))).unwrap().version, 1);
    assert_eq!(
        block_on(tree.set("/a", b"three", Version::Exactly(0))).unwrap_err(),
        TreeError::BadVersion("/a".into())
    );
    assert_eq!(block_on(tree.set("/a", b"three", Version::Any)).unwrap().version, 2);
    let (data, stat) = block_on(tree.get("/a", Watch::None)).unwrap();
    assert_eq!((data.as_slice(), stat.version, stat.czxid), (&b"three"[..], 2, made.czxid));

    assert_eq!(block_on(tree.delete("/a", Version::Exactly(1))).unwrap_err(), TreeError::BadVersion("/a".into()));
    block_on(tree.delete("/a", Version::Exactly(2))).unwrap();
    assert_eq!(block_on(tree.exists("/a", Watch::None)).unwrap(), None);
    assert!(create(&tree, "/a").unwrap().1.czxid > made.czxid, "a later creation has a later czxid");
}

#[test]
fn children_are_listed_sorted_and_without_their_own_children() {
    let tree = tree();
    for path in ["/a", "/a-b", "/a/y", "/a/x", "/a/x/deep", "/a-b/z", "/b"] {
        create(&tree, path).unwrap();
    }
    assert_eq!(block_on(tree.children("/a", Watch::None)).unwrap(), ["x", "y"]);
    assert_eq!(block_on(tree.children("/", Watch::None)).unwrap(), ["a", "a-b", "b"]);
    assert_eq!(block_on(tree.children("/a/y", Watch::None)).unwrap(), Vec::<String>::new());
    assert_eq!(block_on(tree.delete("/a/x", Version::Any)).unwrap_err(), TreeError::NotEmpty("/a/x".into()));
}

#[test]
fn sequential_nodes_get_ten_growing_digits_even_after_deletions() {
    let tree = tree();
    create(&tree, "/q").unwrap();
    let make = || block_on(tree.create("/q/n_", b"", CreateMode::PersistentSequential)).unwrap().0;
    assert_eq!(make(), "/q/n_0000000000");
    assert_eq!(make(), "/q/n_0000000001");
    block_on(tree.delete("/q/n_0000000001", Version::Any)).unwrap();
    assert_eq!(make(), "/q/n_0000000002");
}

#[test]
fn a_multi_does_all_or_nothing_and_names_the_operation_that_failed() {
    let tree = tree();
    create(&tree, "/epoch").unwrap();
    let create_both = |expected| {
        vec![
            Operation::Check { path: "/epoch".into(), version: Version::Exactly(expected) },
            Operation::Create { path: "/t".into(), data: vec![], mode: CreateMode::Persistent },
            Operation::Create { path: "/t/p".into(), data: vec![1], mode: CreateMode::Persistent },
        ]
    };
    let refused = block_on(tree.multi(create_both(1))).unwrap_err();
    assert_eq!(refused, MultiError { index: 0, error: TreeError::BadVersion("/epoch".into()) });
    let mut last_fails = create_both(0);
    last_fails.push(Operation::Delete { path: "/none".into(), version: Version::Any });
    assert_eq!(block_on(tree.multi(last_fails)).unwrap_err().index, 3);
    assert_eq!(block_on(tree.exists("/t", Watch::None)).unwrap(), None, "nothing of a failed multi stays");

    let done = block_on(tree.multi(create_both(0))).unwrap();
    assert_eq!(done.len(), 3);
    assert_eq!(done[0], Outcome::Checked);
    let (Outcome::Created(_, parent), Outcome::Created(_, child)) = (&done[1], &done[2]) else { panic!("{done:?}") };
    assert_eq!(parent.czxid, child.czxid, "one multi is one transaction");
}

#[test]
fn ephemerals_belong_to_the_session_have_no_children_and_go_with_it() {
    let tree = tree();
    create(&tree, "/ids").unwrap();
    let (_, first) = block_on(tree.create("/ids/1", b"x", CreateMode::Ephemeral)).unwrap();
    assert_eq!(first.ephemeral_owner, tree.session());
    assert_eq!(create(&tree, "/ids/1/below").unwrap_err(), TreeError::NoChildrenForEphemerals("/ids/1".into()));
    let session = tree.session();

    let tree = tree.reopen().unwrap();
    assert!(tree.session() > session);
    assert_eq!(block_on(tree.children("/ids", Watch::None)).unwrap(), Vec::<String>::new());
    let (_, second) = block_on(tree.create("/ids/1", b"x", CreateMode::Ephemeral)).unwrap();
    assert!(second.czxid > first.czxid, "a broker epoch grows over restarts");
}

#[test]
fn the_file_keeps_what_was_answered_and_only_one_process_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tree");
    let zxid = {
        let tree = EmbeddedTree::open(&path).unwrap();
        assert!(matches!(EmbeddedTree::open(&path), Err(OpenError::Locked)));
        block_on(tree.create("/kept", b"data", CreateMode::Persistent)).unwrap();
        block_on(tree.create("/gone", b"", CreateMode::Ephemeral)).unwrap().1.czxid
    };
    let tree = EmbeddedTree::open(&path).unwrap();
    assert_eq!(block_on(tree.get("/kept", Watch::None)).unwrap().0, b"data");
    assert_eq!(block_on(tree.children("/", Watch::None)).unwrap(), ["kept"]);
    assert!(create(&tree, "/new").unwrap().1.czxid > zxid);
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
fn watches_fire_once_and_only_for_what_they_watch() {
    let tree = tree();
    assert_eq!(block_on(tree.exists("/a", Watch::Set)).unwrap(), None);
    assert!(block_on(tree.get("/a", Watch::Set)).is_err());
    block_on(tree.children("/", Watch::Set)).unwrap();
    create(&tree, "/a").unwrap();
    create(&tree, "/b").unwrap();
    assert_eq!(next_event(&tree), Some(TreeEvent::NodeCreated("/a".into())));
    assert_eq!(next_event(&tree), Some(TreeEvent::NodeChildrenChanged("/".into())));
    assert_eq!(next_event(&tree), None, "a watch is good for one event");

    block_on(tree.get("/a", Watch::Set)).unwrap();
    block_on(tree.children("/a", Watch::Set)).unwrap();
    let failing = vec![
        Operation::Set { path: "/a".into(), data: vec![], version: Version::Any },
        Operation::Check { path: "/none".into(), version: Version::Any },
    ];
    assert!(block_on(tree.multi(failing)).is_err());
    assert_eq!(next_event(&tree), None, "what did not happen fires nothing");
    block_on(tree.set("/a", b"", Version::Any)).unwrap();
    block_on(tree.delete("/a", Version::Any)).unwrap();
    assert_eq!(next_event(&tree), Some(TreeEvent::NodeDataChanged("/a".into())));
    assert_eq!(next_event(&tree), Some(TreeEvent::NodeDeleted("/a".into())));
    assert_eq!(next_event(&tree), None);
}

#[test]
fn bad_paths_and_oversized_data_are_refused() {
    let tree = tree();
    for path in ["", "a", "/a/", "//a", "/a//b", "/.", "/a/..", "/a\0b", &"/x".repeat(600)] {
        assert!(matches!(create(&tree, path), Err(TreeError::BadArguments(_) | TreeError::NoNode(_))), "{path:?}");
        assert!(matches!(block_on(tree.get(path, Watch::None)), Err(TreeError::BadArguments(_))), "{path:?}");
    }
    let large = vec![0; NODE_DATA_BYTES_MAX + 1];
    assert!(matches!(block_on(tree.create("/a", &large, CreateMode::Persistent)), Err(TreeError::BadArguments(_))));
    block_on(tree.create("/a", &large[1..], CreateMode::Persistent)).unwrap();
}

#[test]
fn a_tree_is_made_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    let create = |path: &str| Operation::Create { path: path.into(), data: vec![7], mode: CreateMode::Persistent };
    let broken = [create("/a"), create("/missing/b")];
    assert!(matches!(EmbeddedTree::make(&path, &broken), Err(OpenError::Storage(_))));
    assert!(!path.exists());
    EmbeddedTree::make(&path, &[create("/a"), create("/a/b")]).unwrap();
    let tree = EmbeddedTree::open(&path).unwrap();
    assert_eq!(block_on(tree.children("/", Watch::None)).unwrap(), ["a"]);
    assert_eq!(block_on(tree.get("/a/b", Watch::None)).unwrap().0, [7]);
}
