//! What every tree must do, as tests over any of them: each calls these with a [`Probe`] of its own.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use super::*;

/// Asks a tree one thing at a time.
pub struct Probe<T> {
    tree: T,
    /// Lets the world of the tree go on when it has no output; `false` when that can lead to nothing.
    step: Box<dyn FnMut() -> bool>,
    next_id: RequestId,
    events: VecDeque<TreeEvent>,
}

impl<T: MetadataTree> Probe<T> {
    pub fn new(tree: T, step: impl FnMut() -> bool + 'static) -> Probe<T> {
        Probe { tree, step: Box::new(step), next_id: 0, events: VecDeque::new() }
    }

    /// Of a tree that answers by itself.
    pub fn of(tree: T) -> Probe<T> {
        Probe::new(tree, || false)
    }

    pub fn tree(&self) -> &T {
        &self.tree
    }

    pub fn into_tree(self) -> T {
        self.tree
    }

    /// Gives a request and comes back with its reply; events that come before it are kept.
    pub fn ask(&mut self, request: Request) -> Result<Reply, RequestError> {
        self.ask_in(None, request)
    }

    pub fn ask_in(&mut self, generation: Option<Generation>, request: Request) -> Result<Reply, RequestError> {
        self.next_id += 1;
        self.tree.submit(self.next_id, generation, request);
        loop {
            match self.output().expect("a reply comes") {
                TreeOutput::Event(event) => self.events.push_back(event),
                TreeOutput::Reply { id, result } => {
                    assert_eq!(id, self.next_id, "one request is under way");
                    return result;
                }
            }
        }
    }

    /// The next output; `None` when nothing more can come.
    pub fn output(&mut self) -> Option<TreeOutput> {
        loop {
            match self.tree.poll_output(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(output) => return Some(output),
                Poll::Pending if (self.step)() => {}
                Poll::Pending => return None,
            }
        }
    }

    /// The events that have come since the last call.
    pub fn events(&mut self) -> Vec<TreeEvent> {
        while let Some(output) = self.output() {
            match output {
                TreeOutput::Event(event) => self.events.push_back(event),
                reply @ TreeOutput::Reply { .. } => panic!("nothing was asked: {reply:?}"),
            }
        }
        self.events.drain(..).collect()
    }

    pub fn create(&mut self, path: &str, data: &[u8], mode: CreateMode) -> Result<(String, Stat), TreeError> {
        match self.ask(Request::Create { path: path.into(), data: data.into(), mode }) {
            Ok(Reply::Created(path, stat)) => Ok((path, stat)),
            other => Err(failure(other)),
        }
    }

    pub fn get(&mut self, path: &str, watch: Watch) -> Result<(Vec<u8>, Stat), TreeError> {
        match self.ask(Request::Get { path: path.into(), watch }) {
            Ok(Reply::Data(data, stat)) => Ok((data, stat)),
            other => Err(failure(other)),
        }
    }

    pub fn exists(&mut self, path: &str, watch: Watch) -> Result<Option<Stat>, TreeError> {
        match self.ask(Request::Exists { path: path.into(), watch }) {
            Ok(Reply::Exists(stat)) => Ok(stat),
            other => Err(failure(other)),
        }
    }

    pub fn set(&mut self, path: &str, data: &[u8], version: Version) -> Result<Stat, TreeError> {
        match self.ask(Request::Set { path: path.into(), data: data.into(), version }) {
            Ok(Reply::Set(stat)) => Ok(stat),
            other => Err(failure(other)),
        }
    }

    pub fn delete(&mut self, path: &str, version: Version) -> Result<(), TreeError> {
        match self.ask(Request::Delete { path: path.into(), version }) {
            Ok(Reply::Deleted) => Ok(()),
            other => Err(failure(other)),
        }
    }

    pub fn children(&mut self, path: &str, watch: Watch) -> Result<Vec<String>, TreeError> {
        match self.ask(Request::Children { path: path.into(), watch }) {
            Ok(Reply::Children(names)) => Ok(names),
            other => Err(failure(other)),
        }
    }

    pub fn multi(&mut self, operations: Vec<Operation>) -> Result<Vec<Outcome>, RequestError> {
        match self.ask(Request::Multi(operations))? {
            Reply::Multi(outcomes) => Ok(outcomes),
            other => panic!("a multi answered {other:?}"),
        }
    }

    fn make(&mut self, path: &str) -> Result<(String, Stat), TreeError> {
        self.create(path, b"", CreateMode::Persistent)
    }
}

fn failure(result: Result<Reply, RequestError>) -> TreeError {
    match result {
        Err(RequestError { operation: None, error }) => error,
        other => panic!("no reply to such a request: {other:?}"),
    }
}

pub fn a_node_keeps_its_data_and_counts_its_versions(tree: &mut Probe<impl MetadataTree>) {
    let (path, made) = tree.create("/a", b"one", CreateMode::Persistent).unwrap();
    assert_eq!((path.as_str(), made.version, made.ephemeral_owner), ("/a", 0, 0));
    assert_eq!(tree.make("/a").unwrap_err(), TreeError::NodeExists("/a".into()));
    assert_eq!(tree.make("/b/c").unwrap_err(), TreeError::NoNode("/b".into()));

    assert_eq!(tree.set("/a", b"two", Version::Exactly(0)).unwrap().version, 1);
    assert_eq!(tree.set("/a", b"three", Version::Exactly(0)).unwrap_err(), TreeError::BadVersion("/a".into()));
    assert_eq!(tree.set("/a", b"three", Version::Any).unwrap().version, 2);
    let (data, stat) = tree.get("/a", Watch::None).unwrap();
    assert_eq!((data.as_slice(), stat.version, stat.czxid), (&b"three"[..], 2, made.czxid));

    assert_eq!(tree.delete("/a", Version::Exactly(1)).unwrap_err(), TreeError::BadVersion("/a".into()));
    tree.delete("/a", Version::Exactly(2)).unwrap();
    assert_eq!(tree.exists("/a", Watch::None).unwrap(), None);
    assert!(tree.make("/a").unwrap().1.czxid > made.czxid, "a later creation has a later czxid");
}

pub fn children_are_listed_sorted_and_without_their_own_children(tree: &mut Probe<impl MetadataTree>) {
    for path in ["/a", "/a-b", "/a/y", "/a/x", "/a/x/deep", "/a-b/z", "/b"] {
        tree.make(path).unwrap();
    }
    assert_eq!(tree.children("/a", Watch::None).unwrap(), ["x", "y"]);
    assert_eq!(tree.children("/", Watch::None).unwrap(), ["a", "a-b", "b"]);
    assert_eq!(tree.children("/a/y", Watch::None).unwrap(), Vec::<String>::new());
    assert_eq!(tree.delete("/a/x", Version::Any).unwrap_err(), TreeError::NotEmpty("/a/x".into()));
    assert_eq!(tree.children("/c", Watch::None).unwrap_err(), TreeError::NoNode("/c".into()));
}

pub fn sequential_nodes_get_ten_growing_digits_even_after_deletions(tree: &mut Probe<impl MetadataTree>) {
    tree.make("/q").unwrap();
    let make = |tree: &mut Probe<_>| tree.create("/q/n_", b"", CreateMode::PersistentSequential).unwrap().0;
    assert_eq!(make(tree), "/q/n_0000000000");
    assert_eq!(make(tree), "/q/n_0000000001");
    tree.delete("/q/n_0000000001", Version::Any).unwrap();
    assert_eq!(make(tree), "/q/n_0000000002");
}

pub fn a_multi_does_all_or_nothing_and_names_the_operation_that_failed(tree: &mut Probe<impl MetadataTree>) {
    tree.make("/epoch").unwrap();
    let create_both = |expected| {
        vec![
            Operation::Check { path: "/epoch".into(), version: Version::Exactly(expected) },
            Operation::Create { path: "/t".into(), data: vec![], mode: CreateMode::Persistent },
            Operation::Create { path: "/t/p".into(), data: vec![1], mode: CreateMode::Persistent },
        ]
    };
    let refused = tree.multi(create_both(1)).unwrap_err();
    assert_eq!(refused, RequestError { operation: Some(0), error: TreeError::BadVersion("/epoch".into()) });
    let mut last_fails = create_both(0);
    last_fails.push(Operation::Delete { path: "/none".into(), version: Version::Any });
    assert_eq!(tree.multi(last_fails).unwrap_err().operation, Some(3));
    assert_eq!(tree.exists("/t", Watch::None).unwrap(), None, "nothing of a failed multi stays");

    let done = tree.multi(create_both(0)).unwrap();
    assert_eq!(done.len(), 3);
    assert_eq!(done[0], Outcome::Checked);
    let (Outcome::Created(_, parent), Outcome::Created(_, child)) = (&done[1], &done[2]) else { panic!("{done:?}") };
    assert_eq!(parent.czxid, child.czxid, "one multi is one transaction");
}

pub fn requests_are_done_in_their_order_and_one_that_fails_spoils_no_other(tree: &mut Probe<impl MetadataTree>) {
    let create = |path: &str| Operation::Create { path: path.into(), data: vec![], mode: CreateMode::Persistent };
    let requests = [
        Request::Multi(vec![create("/a")]),
        Request::Multi(vec![create("/b"), create("/a")]),
        Request::Create { path: "/a/x".into(), data: vec![1], mode: CreateMode::Persistent },
        Request::Children { path: "/a".into(), watch: Watch::None },
        Request::Delete { path: "/a/x".into(), version: Version::Exactly(0) },
        Request::Get { path: "/a/x".into(), watch: Watch::None },
        Request::Exists { path: "/b".into(), watch: Watch::None },
    ];
    let count = requests.len() as u64;
    for (id, request) in (100..).zip(requests) {
        tree.tree().submit(id, None, request);
    }
    let mut results = Vec::new();
    for expected in 100..100 + count {
        match tree.output() {
            Some(TreeOutput::Reply { id, result }) => {
                assert_eq!(id, expected);
                results.push(result);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(results[0].is_ok() && results[2].is_ok());
    let refused = results[1].as_ref().unwrap_err();
    assert_eq!((refused.operation, &refused.error), (Some(1), &TreeError::NodeExists("/a".into())));
    assert_eq!(results[3], Ok(Reply::Children(vec!["x".into()])));
    assert_eq!(results[4], Ok(Reply::Deleted));
    assert_eq!(results[5], Err(RequestError::of_request(TreeError::NoNode("/a/x".into()))));
    assert_eq!(results[6], Ok(Reply::Exists(None)));
}

pub fn ephemerals_belong_to_the_session_and_have_no_children(tree: &mut Probe<impl MetadataTree>) {
    tree.make("/ids").unwrap();
    let (_, stat) = tree.create("/ids/1", b"x", CreateMode::Ephemeral).unwrap();
    assert_eq!(stat.ephemeral_owner, tree.tree().session());
    assert_ne!(stat.ephemeral_owner, 0);
    assert_eq!(tree.make("/ids/1/below").unwrap_err(), TreeError::NoChildrenForEphemerals("/ids/1".into()));
}

pub fn a_request_of_another_session_is_answered_and_not_done(tree: &mut Probe<impl MetadataTree>) {
    let Generation(now) = tree.tree().generation();
    let create = || Request::Create { path: "/a".into(), data: vec![], mode: CreateMode::Ephemeral };
    let refused = tree.ask_in(Some(Generation(now.wrapping_sub(1))), create());
    assert_eq!(refused, Err(RequestError::of_request(TreeError::SessionExpired)));
    assert_eq!(tree.exists("/a", Watch::None).unwrap(), None);
    assert!(tree.ask_in(Some(Generation(now)), create()).is_ok());
}

pub fn watches_fire_once_and_only_for_what_they_watch(tree: &mut Probe<impl MetadataTree>) {
    assert_eq!(tree.exists("/a", Watch::Set).unwrap(), None);
    assert!(tree.get("/a", Watch::Set).is_err());
    tree.children("/", Watch::Set).unwrap();
    tree.make("/a").unwrap();
    tree.make("/b").unwrap();
    let events = [TreeEvent::NodeCreated("/a".into()), TreeEvent::NodeChildrenChanged("/".into())];
    assert_eq!(tree.events(), events, "a watch is good for one event");

    tree.get("/a", Watch::Set).unwrap();
    tree.children("/a", Watch::Set).unwrap();
    let failing = vec![
        Operation::Set { path: "/a".into(), data: vec![], version: Version::Any },
        Operation::Check { path: "/none".into(), version: Version::Any },
    ];
    assert!(tree.multi(failing).is_err());
    assert_eq!(tree.events(), [], "what did not happen fires nothing");
    tree.set("/a", b"", Version::Any).unwrap();
    tree.delete("/a", Version::Any).unwrap();
    assert_eq!(tree.events(), [TreeEvent::NodeDataChanged("/a".into()), TreeEvent::NodeDeleted("/a".into())]);
}

pub fn an_event_comes_before_every_reply_that_shows_the_change(tree: &mut Probe<impl MetadataTree>) {
    tree.create("/a", b"0", CreateMode::Persistent).unwrap();
    for round in 1..=20u8 {
        tree.get("/a", Watch::Set).unwrap();
        let set = Request::Set { path: "/a".into(), data: vec![round], version: Version::Any };
        tree.tree().submit(200, None, set);
        tree.tree().submit(201, None, Request::Get { path: "/a".into(), watch: Watch::None });
        let mut seen = false;
        for _ in 0..3 {
            match tree.output().expect("an event and two replies") {
                TreeOutput::Event(event) => {
                    assert_eq!(event, TreeEvent::NodeDataChanged("/a".into()));
                    assert!(!seen, "one watch, one event");
                    seen = true;
                }
                TreeOutput::Reply { id: 201, result: Ok(Reply::Data(data, _)) } => {
                    assert!(data == [round] && seen, "shown before it was told");
                }
                TreeOutput::Reply { id: 200, result } => assert!(result.is_ok() && seen, "done before it was told"),
                other => panic!("{other:?}"),
            }
        }
    }
}

pub fn bad_paths_are_refused(tree: &mut Probe<impl MetadataTree>) {
    for path in ["", "a", "/a/", "//a", "/a//b", "/.", "/a/..", "/a\0b", &"/x".repeat(600)] {
        assert!(matches!(tree.make(path), Err(TreeError::BadArguments(_) | TreeError::NoNode(_))), "{path:?}");
        assert!(matches!(tree.get(path, Watch::None), Err(TreeError::BadArguments(_))), "{path:?}");
    }
}

/// Runs each test of the suite over a tree of its own.
pub fn run_all<T: MetadataTree>(make: &mut dyn FnMut() -> Probe<T>) {
    a_node_keeps_its_data_and_counts_its_versions(&mut make());
    children_are_listed_sorted_and_without_their_own_children(&mut make());
    sequential_nodes_get_ten_growing_digits_even_after_deletions(&mut make());
    a_multi_does_all_or_nothing_and_names_the_operation_that_failed(&mut make());
    requests_are_done_in_their_order_and_one_that_fails_spoils_no_other(&mut make());
    ephemerals_belong_to_the_session_and_have_no_children(&mut make());
    a_request_of_another_session_is_answered_and_not_done(&mut make());
    watches_fire_once_and_only_for_what_they_watch(&mut make());
    an_event_comes_before_every_reply_that_shows_the_change(&mut make());
    bad_paths_are_refused(&mut make());
}
