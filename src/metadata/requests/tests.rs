//! A scripted tree: what was submitted is looked at, and replies are given in any way.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::Waker;

use super::*;

#[derive(Clone, Default)]
struct Scripted(Rc<RefCell<Script>>);

#[derive(Default)]
struct Script {
    submitted: VecDeque<(RequestId, Request)>,
    outputs: VecDeque<TreeOutput>,
}

const SESSION: i64 = 5;

impl MetadataTree for Scripted {
    fn submit(&self, id: RequestId, _: Option<Generation>, request: Request) {
        self.0.borrow_mut().submitted.push_back((id, request));
    }

    fn poll_output(&self, _: &mut Context<'_>) -> Poll<TreeOutput> {
        self.0.borrow_mut().outputs.pop_front().map_or(Poll::Pending, Poll::Ready)
    }

    fn session(&self) -> i64 {
        SESSION
    }

    fn generation(&self) -> Generation {
        Generation(1)
    }
}

struct World {
    tree: Scripted,
    requests: Requests<Scripted, u32>,
    now: Monotonic,
}

impl World {
    fn new() -> World {
        let tree = Scripted::default();
        World { requests: Requests::new(tree.clone()), tree, now: Monotonic(0) }
    }

    fn next(&mut self) -> Option<(RequestId, Request)> {
        self.tree.0.borrow_mut().submitted.pop_front()
    }

    fn poll(&mut self) -> Option<TreeInput<u32>> {
        match self.requests.poll_next(&mut Context::from_waker(Waker::noop()), self.now) {
            Poll::Ready(input) => Some(input),
            Poll::Pending => None,
        }
    }

    fn reply(&mut self, id: RequestId, result: Result<Reply, TreeError>) -> Option<Result<Reply, RequestError>> {
        let result = result.map_err(RequestError::of_request);
        self.tree.0.borrow_mut().outputs.push_back(TreeOutput::Reply { id, result });
        match self.poll()? {
            TreeInput::Done { result, .. } => Some(result),
            other => panic!("{other:?}"),
        }
    }

    /// Loses the reply to the request under way, and gives the repeat's number.
    fn lose(&mut self) -> (RequestId, Request) {
        let (id, request) = self.next().expect("a request is under way");
        assert!(self.reply(id, Err(TreeError::ConnectionLoss)).is_none(), "nobody hears of a loss");
        assert!(self.next().is_none(), "it backs off");
        self.now = self.requests.next_deadline().expect("until a time");
        self.requests.fire(self.now);
        let repeated = self.next().expect("it is repeated");
        assert_eq!(repeated.1, request);
        repeated
    }
}

fn stat(version: i32, ephemeral_owner: i64) -> Stat {
    Stat { czxid: 9, version, ephemeral_owner }
}

fn get(path: &str) -> Request {
    Request::Get { path: path.into(), watch: Watch::Set }
}

/// As a broker registers.
fn register() -> Request {
    let path = || "/ids/1".to_owned();
    Request::Multi(vec![
        Operation::Create { path: path(), data: vec![], mode: CreateMode::Ephemeral },
        Operation::Set { path: path(), data: vec![7], version: Version::Exactly(0) },
    ])
}

#[test]
fn a_read_whose_reply_is_lost_is_repeated_and_has_one_result() {
    let mut world = World::new();
    world.requests.ask(1, None, get("/a"));
    let (id, _) = world.lose();
    let data = || Ok(Reply::Data(vec![1], stat(0, 0)));
    assert_eq!(world.reply(id, data()), Some(Ok(Reply::Data(vec![1], stat(0, 0)))));
    assert!(world.poll().is_none());
}

#[test]
fn a_write_that_was_done_before_its_reply_was_lost_is_done() {
    for (found, owner, is_done) in [(7, SESSION, true), (7, SESSION + 1, false), (8, SESSION, false)] {
        let mut world = World::new();
        world.requests.ask(1, None, register());
        let (id, _) = world.lose();
        assert!(world.reply(id, Err(TreeError::NodeExists("/ids/1".into()))).is_none(), "it is looked at first");
        let (id, request) = world.next().unwrap();
        assert_eq!(request, Request::Get { path: "/ids/1".into(), watch: Watch::None });
        let result = world.reply(id, Ok(Reply::Data(vec![found], stat(1, owner)))).unwrap();
        match is_done {
            true => {
                let made = [Outcome::Created("/ids/1".into(), stat(1, owner)), Outcome::Set(stat(1, owner))];
                assert_eq!(result, Ok(Reply::Multi(made.into())));
            }
            false => assert_eq!(result.unwrap_err().error, TreeError::NodeExists("/ids/1".into())),
        }
    }
}

#[test]
fn a_conditional_set_that_was_done_is_told_by_its_version_and_a_deletion_by_absence() {
    let mut world = World::new();
    let operations = vec![
        Operation::Check { path: "/epoch".into(), version: Version::Exactly(3) },
        Operation::Set { path: "/a".into(), data: vec![1], version: Version::Exactly(4) },
        Operation::Delete { path: "/b".into(), version: Version::Any },
        Operation::Create { path: "/q/n_".into(), data: vec![], mode: CreateMode::PersistentSequential },
    ];
    world.requests.ask(1, None, Request::Multi(operations));
    let (id, _) = world.lose();
    world.reply(id, Err(TreeError::BadVersion("/a".into())));
    let mut result = None;
    while let Some((id, Request::Get { path, .. })) = world.next() {
        result = match &*path {
            "/a" => world.reply(id, Ok(Reply::Data(vec![1], stat(5, 0)))),
            "/b" => world.reply(id, Err(TreeError::NoNode("/b".into()))),
            other => panic!("{other} says nothing"),
        };
    }
    let Some(Ok(Reply::Multi(outcomes))) = result else { panic!("{result:?}") };
    assert_eq!(outcomes[1..3], [Outcome::Set(stat(5, 0)), Outcome::Deleted]);
}

#[test]
fn a_refusal_of_a_first_try_and_an_expired_session_are_told_at_once() {
    let mut world = World::new();
    world.requests.ask(1, None, register());
    let (id, _) = world.next().unwrap();
    assert!(world.reply(id, Err(TreeError::NodeExists("/ids/1".into()))).unwrap().is_err());
    world.requests.ask(2, Some(Generation(1)), register());
    let (id, _) = world.lose();
    assert_eq!(world.reply(id, Err(TreeError::SessionExpired)).unwrap().unwrap_err().error, TreeError::SessionExpired);
}

#[test]
fn nothing_is_given_while_disconnected_and_the_order_is_kept() {
    let mut world = World::new();
    for key in 0..3 {
        world.requests.ask(key, None, get(&format!("/{key}")));
    }
    let event = |state| TreeOutput::Event(TreeEvent::Session(state));
    world.tree.0.borrow_mut().outputs.push_back(event(SessionState::Disconnected));
    assert!(matches!(world.poll(), Some(TreeInput::Event(_))));
    let ids: Vec<_> = std::iter::from_fn(|| world.next()).map(|(id, _)| id).collect();
    for id in ids {
        assert!(world.reply(id, Err(TreeError::ConnectionLoss)).is_none());
    }
    world.requests.ask(3, None, get("/3"));
    assert!(world.next().is_none() && world.requests.next_deadline().is_none(), "the tree says when");
    world.tree.0.borrow_mut().outputs.push_back(event(SessionState::Connected));
    world.poll();
    let again: Vec<_> = std::iter::from_fn(|| world.next()).map(|(_, request)| request).collect();
    assert_eq!(again, ["/0", "/1", "/2", "/3"].map(get));
}

#[test]
fn the_tree_has_no_more_than_so_many_requests_at_once() {
    let mut world = World::new();
    for key in 0..200 {
        world.requests.ask(key, None, get("/a"));
    }
    let mut under_way: VecDeque<_> = std::iter::from_fn(|| world.next()).collect();
    assert_eq!(under_way.len(), REQUESTS_UNDER_WAY_MAX);
    let mut done = 0;
    while let Some((id, _)) = under_way.pop_front() {
        assert!(world.reply(id, Err(TreeError::NoNode("/a".into()))).is_some());
        done += 1;
        under_way.extend(world.next());
        assert!(under_way.len() <= REQUESTS_UNDER_WAY_MAX);
    }
    assert_eq!(done, 200);
}

#[test]
fn a_write_that_is_more_than_zookeeper_takes_is_refused_and_never_given() {
    let mut world = World::new();
    let create = |bytes| Request::Create { path: "/a".into(), data: vec![0; bytes], mode: CreateMode::Persistent };
    world.requests.ask(1, None, create(WRITE_BYTES_MAX));
    world.requests.ask(2, None, create(WRITE_BYTES_MAX - 1000));
    let Some(TreeInput::Done { key: 1, result: Err(failed) }) = world.poll() else { panic!("it is refused") };
    assert!(matches!(failed.error, TreeError::BadArguments(_)));
    let (_, request) = world.next().expect("the other is given");
    assert_eq!(request, create(WRITE_BYTES_MAX - 1000));
    assert!(world.next().is_none());
}

#[test]
fn what_an_expired_session_had_waiting_is_refused_and_not_given_to_the_next() {
    let mut world = World::new();
    let get = || Request::get("/a");
    world.requests.ask(1, Some(Generation(0)), get());
    let (id, _) = world.next().expect("it is given");
    let output = |output| world.tree.0.borrow_mut().outputs.push_back(output);
    output(TreeOutput::Reply { id, result: Err(RequestError::of_request(TreeError::ConnectionLoss)) });
    output(TreeOutput::Event(TreeEvent::Session(SessionState::Disconnected)));
    assert!(matches!(world.poll(), Some(TreeInput::Event(_))));
    world.requests.ask(2, Some(Generation(0)), get());
    world.requests.ask(3, None, get());
    world.requests.ask(4, Some(Generation(1)), get());
    world.tree.0.borrow_mut().outputs.push_back(TreeOutput::Event(TreeEvent::Session(SessionState::Expired)));
    assert!(matches!(world.poll(), Some(TreeInput::Event(_))), "the end of the session is told first");
    for expected in [1, 2] {
        let Some(TreeInput::Done { key, result: Err(failed) }) = world.poll() else { panic!("it is refused") };
        assert_eq!((key, failed.error), (expected, TreeError::SessionExpired));
    }
    assert!(world.next().is_some() && world.next().is_some() && world.next().is_none(), "two are of this session");
}
