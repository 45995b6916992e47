use super::*;
use crate::metadata::tree::suite::{self, Probe};
use crate::metadata::tree::{CreateMode, Generation, MetadataTree, SessionState, TreeOutput, WRITE_BYTES_MAX, Watch};

/// Longer than a session lives that nobody hears of, and than it takes to be connected again.
const LONG: Duration = Duration::from_secs(25);

fn probe(ensemble: &Ensemble) -> Probe<SimTree> {
    let world = ensemble.world().clone();
    Probe::new(ensemble.connect(), move || world.step())
}

fn pass(ensemble: &Ensemble, time: Duration) {
    let deadline = ensemble.now() + time;
    ensemble.at(deadline, || ());
    let world = ensemble.world().clone();
    ensemble.world().run_until(|| world.now() >= deadline);
}

fn get(path: &str, watch: Watch) -> Request {
    Request::Get { path: path.into(), watch }
}

fn create(path: &str, mode: CreateMode) -> Request {
    Request::Create { path: path.into(), data: vec![], mode }
}

fn set(path: &str, byte: u8) -> Request {
    Request::Set { path: path.into(), data: vec![byte], version: Version::Any }
}

fn failed(result: Result<Reply, RequestError>) -> TreeError {
    result.expect_err("it failed").error
}

fn session(state: SessionState) -> TreeOutput {
    TreeOutput::Event(TreeEvent::Session(state))
}

/// All that a tree still has to say.
fn outputs(tree: &mut Probe<SimTree>) -> Vec<TreeOutput> {
    std::iter::from_fn(|| tree.output()).collect()
}

#[test]
fn a_tree_that_behaves_does_what_every_tree_does() {
    for seed in 0..20 {
        suite::run_all(&mut || probe(&Ensemble::new(&World::new(seed))));
    }
}

#[test]
fn an_event_that_comes_behind_the_reply_that_shows_the_change_is_noticed() {
    let is_caught = |seed| {
        let test = suite::an_event_comes_before_every_reply_that_shows_the_change;
        std::panic::catch_unwind(|| test(&mut probe(&Ensemble::new(&World::new(seed))))).is_err()
    };
    planted::EVENT_AFTER_THE_REPLY.set(true);
    let caught = (0..10).all(|seed| is_caught(seed) && is_caught(seed));
    planted::EVENT_AFTER_THE_REPLY.set(false);
    assert!(caught, "the planted bug is not met under each seed");
}

#[test]
fn one_handle_hears_of_what_another_does_and_only_sees_it_after() {
    let ensemble = Ensemble::new(&World::new(1));
    let (mut one, mut other) = (probe(&ensemble), probe(&ensemble));
    one.create("/a", b"0", CreateMode::Persistent).unwrap();
    other.get("/a", Watch::Set).unwrap();
    one.set("/a", b"1", Version::Any).unwrap();
    assert_eq!(other.get("/a", Watch::None).unwrap().0, b"1");
    assert_eq!(other.events(), [TreeEvent::NodeDataChanged("/a".into())]);
    assert_eq!(one.events(), [], "who does not watch is not told");
}

#[test]
fn a_lost_connection_leaves_it_open_how_much_was_done_and_what_was_done_came_in_order() {
    let mut found = std::collections::BTreeSet::new();
    for seed in 0..60 {
        let ensemble = Ensemble::new(&World::new(seed));
        let mut tree = probe(&ensemble);
        tree.create("/a", b"", CreateMode::Persistent).unwrap();
        for byte in 1..=4 {
            tree.tree().submit(u64::from(byte), None, set("/a", byte));
        }
        pass(&ensemble, Duration::from_micros(ensemble.world().below(4000) as u64));
        tree.tree().lose_connection();
        let results: Vec<_> = outputs(&mut tree)
            .into_iter()
            .filter_map(|output| match output {
                TreeOutput::Reply { id, result } => Some((id, result.map_err(|failed| failed.error))),
                TreeOutput::Event(_) => None,
            })
            .collect();
        assert!(results.iter().map(|(id, _)| *id).eq(1..=4), "each is answered, in order");
        let answered = results.iter().take_while(|(_, result)| result.is_ok()).count();
        assert!(results[answered..].iter().all(|(_, result)| *result == Err(TreeError::ConnectionLoss)));
        let done = ensemble.data("/a").unwrap().first().copied().unwrap_or(0);
        assert!(usize::from(done) >= answered);
        found.insert((answered, done));
        let (data, stat) = tree.get("/a", Watch::None).unwrap();
        assert_eq!((data.first().copied().unwrap_or(0), stat.version), (done, i32::from(done)), "connected again");
    }
    assert!(found.len() > 5 && found.iter().any(|(answered, done)| usize::from(*done) > *answered), "{found:?}");
}

#[test]
fn what_is_asked_while_the_connection_is_down_waits_and_what_was_watched_is_told_before() {
    let ensemble = Ensemble::new(&World::new(2));
    let (mut one, mut other) = (probe(&ensemble), probe(&ensemble));
    one.create("/a", b"0", CreateMode::Persistent).unwrap();
    other.get("/a", Watch::Set).unwrap();
    other.tree().lose_connection();
    let generation = other.tree().generation();
    one.set("/a", b"1", Version::Any).unwrap();
    assert_eq!(
        other.ask(get("/a", Watch::None)).map(|reply| matches!(reply, Reply::Data(data, _) if data == b"1")),
        Ok(true)
    );
    let told = [
        TreeEvent::Session(SessionState::Disconnected),
        TreeEvent::Session(SessionState::Connected),
        TreeEvent::NodeDataChanged("/a".into()),
    ];
    assert_eq!(other.events(), told);
    assert_eq!(other.tree().generation(), generation);
}

#[test]
fn a_session_that_expires_takes_its_ephemerals_and_watches_and_the_handle_goes_on_under_the_next() {
    for seed in 0..20 {
        let ensemble = Ensemble::new(&World::new(seed));
        let (mut one, mut other) = (probe(&ensemble), probe(&ensemble));
        one.create("/ids", b"", CreateMode::Persistent).unwrap();
        let (_, made) = one.create("/ids/1", b"", CreateMode::Ephemeral).unwrap();
        one.children("/", Watch::Set).unwrap();
        other.exists("/ids/1", Watch::Set).unwrap();
        let before = one.tree().generation();
        one.tree().expire();
        // Given before the handle knows: done under no session.
        one.tree().submit(7, Some(before), create("/ids/1", CreateMode::Ephemeral));
        assert_eq!(ensemble.children("/ids"), Vec::<String>::new());
        assert_eq!(other.events(), [TreeEvent::NodeDeleted("/ids/1".into())]);
        other.create("/b", b"", CreateMode::Persistent).unwrap();
        let told = outputs(&mut one);
        let expected = [
            session(SessionState::Disconnected),
            TreeOutput::Reply { id: 7, result: Err(RequestError::of_request(TreeError::SessionExpired)) },
            session(SessionState::Expired),
            session(SessionState::Connected),
        ];
        assert_eq!(told, expected, "seed {seed}");
        assert!(one.tree().generation() > before);
        assert_eq!(
            failed(one.ask_in(Some(before), create("/ids/1", CreateMode::Ephemeral))),
            TreeError::SessionExpired
        );
        let (_, again) = one.create("/ids/1", b"", CreateMode::Ephemeral).unwrap();
        assert!(again.czxid > made.czxid && again.ephemeral_owner == one.tree().session());
        assert_ne!(again.ephemeral_owner, made.ephemeral_owner);
    }
}

#[test]
fn the_generation_changes_when_the_end_of_the_session_is_polled() {
    let ensemble = Ensemble::new(&World::new(3));
    let mut one = probe(&ensemble);
    one.tree().expire();
    pass(&ensemble, LONG);
    assert_eq!(one.tree().generation(), Generation(1));
    assert_eq!(one.output(), Some(session(SessionState::Disconnected)));
    assert_eq!(one.tree().generation(), Generation(1));
    assert_eq!(one.output(), Some(session(SessionState::Expired)));
    assert_eq!(one.tree().generation(), Generation(2));
}

#[test]
fn a_session_outlives_a_short_cut_and_a_process_that_is_gone_for_its_time_only() {
    let ensemble = Ensemble::new(&World::new(4));
    let (mut one, two) = (probe(&ensemble), probe(&ensemble));
    one.create("/one", b"", CreateMode::Ephemeral).unwrap();
    let mut two = two;
    two.create("/two", b"", CreateMode::Ephemeral).unwrap();
    one.tree().cut();
    drop(two);
    pass(&ensemble, SESSION_TIMEOUT / 2);
    one.tree().mend();
    assert_eq!(ensemble.children("/"), ["one", "two"]);
    pass(&ensemble, LONG);
    assert_eq!(ensemble.children("/"), ["one"]);
    one.tree().cut();
    pass(&ensemble, LONG);
    assert_eq!(ensemble.children("/"), Vec::<String>::new());
    one.tree().mend();
    assert_eq!(one.create("/one", b"", CreateMode::Ephemeral), Err(TreeError::SessionExpired));
    assert!(one.create("/one", b"", CreateMode::Ephemeral).is_ok_and(|(_, stat)| stat.ephemeral_owner != 0));
    one.into_tree().close();
    assert_eq!(ensemble.children("/"), Vec::<String>::new(), "an orderly end needs no time");
}

#[test]
fn a_tree_that_loses_and_expires_by_the_dice_answers_everything_and_runs_the_same_again() {
    let run = |seed| {
        let world = World::new(seed);
        let ensemble = Ensemble::new(&world);
        ensemble.set_faults(TreeFaults { loses_one_in: 4, expires_one_in: 20 });
        let mut tree = probe(&ensemble);
        let mut failures = 0;
        for number in 0..200u64 {
            let mode = if number % 3 == 0 { CreateMode::Ephemeral } else { CreateMode::Persistent };
            match tree.ask(create(&format!("/n{number}"), mode)).map_err(|failed| failed.error) {
                Ok(_) => {}
                Err(TreeError::ConnectionLoss | TreeError::SessionExpired) => failures += 1,
                Err(error) => panic!("{error} (seed {seed})"),
            }
        }
        assert!((10..150).contains(&failures), "{failures} (seed {seed})");
        world.trace()
    };
    for seed in 0..10 {
        assert!(run(seed) == run(seed), "seed {seed} ran differently the second time");
    }
}

#[test]
fn a_write_that_is_too_large_closes_the_connection_and_is_not_done() {
    for seed in 0..20 {
        let ensemble = Ensemble::new(&World::new(seed));
        let mut tree = probe(&ensemble);
        let large = Request::Create { path: "/a".into(), data: vec![0; WRITE_BYTES_MAX], mode: CreateMode::Persistent };
        assert_eq!(failed(tree.ask(large)), TreeError::ConnectionLoss);
        pass(&ensemble, LONG);
        assert!(outputs(&mut tree).contains(&session(SessionState::Connected)));
        assert_eq!(ensemble.data("/a"), None);
        tree.create("/a", b"1", CreateMode::Persistent).unwrap();
    }
}
