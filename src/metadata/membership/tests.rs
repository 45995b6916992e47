use super::*;
use crate::metadata::embedded::EmbeddedTree;
use crate::metadata::tree::MetadataTree;
use crate::metadata::tree::suite::Probe;

const NOW: Now = Now { monotonic: Monotonic(0), wall: 1 };

fn broker() -> BrokerImage {
    BrokerImage { id: BrokerId(1), endpoints: vec![], rack: None }
}

fn tree() -> Probe<EmbeddedTree> {
    Probe::of(EmbeddedTree::in_memory().unwrap())
}

fn session(tree: &Probe<EmbeddedTree>) -> Session {
    Session { id: tree.tree().session(), generation: tree.tree().generation() }
}

/// Gives an event, performs what follows, and gives what the machine says in the end.
fn run(membership: &mut Membership, tree: &mut Probe<EmbeddedTree>, event: Event) -> Option<Effect> {
    let session = session(tree);
    let mut effects = membership.handle(event, session, NOW);
    loop {
        match effects.pop()? {
            Effect::Ask { number, generation, request } => {
                let result = tree.ask_in(generation, request);
                effects = membership.handle(Event::Done { number, result }, session, NOW);
            }
            said => return Some(said),
        }
    }
}

fn join(tree: &mut Probe<EmbeddedTree>, cluster_id: Option<&str>) -> Result<String, Refusal> {
    let event = Event::Join { cluster_id: cluster_id.map(str::to_owned), random: [1, 2] };
    match run(&mut Membership::default(), tree, event) {
        Some(Effect::Joined { cluster_id }) => Ok(cluster_id.to_string()),
        Some(Effect::Refused(refusal)) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

fn register(tree: &mut Probe<EmbeddedTree>) -> Result<i64, Refusal> {
    match run(&mut Membership::default(), tree, Event::Register { broker: broker() }) {
        Some(Effect::Registered { broker_epoch, .. }) => Ok(broker_epoch),
        Some(Effect::Refused(refusal)) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

fn make(tree: &mut Probe<EmbeddedTree>, path: &str, data: &[u8]) {
    tree.create(path, data, CreateMode::Persistent).unwrap();
}

#[test]
fn a_cluster_keeps_its_id_and_a_broker_gets_a_larger_epoch_each_time() {
    let mut tree = tree();
    let id = join(&mut tree, None).unwrap();
    assert_eq!(id.len(), 22);
    let first = register(&mut tree).unwrap();
    let (_, stat) = tree.get("/brokers/ids/1", Watch::None).unwrap();
    assert_eq!((stat.version, stat.czxid), (1, first));

    let mut tree = Probe::of(tree.into_tree().reopen().unwrap());
    assert_eq!(join(&mut tree, Some(&id)), Ok(id));
    assert!(register(&mut tree).unwrap() > first);
}

#[test]
fn a_broker_of_another_cluster_writes_nothing() {
    let mut tree = tree();
    assert_eq!(join(&mut tree, Some("mine")), Err(Refusal::NewTree("mine".into())));
    assert_eq!(tree.children("/", Watch::None).unwrap(), Vec::<String>::new());
    let id = join(&mut tree, None).unwrap();
    let other = Refusal::OtherCluster { found: id, expected: "mine".into() };
    assert_eq!(join(&mut tree, Some("mine")), Err(other));
}

#[test]
fn a_tree_of_kraft_or_under_migration_is_refused_with_what_to_do() {
    let mut kraft = tree();
    make(&mut kraft, "/controller", br#"{"version":2,"brokerid":3000,"timestamp":"1","kraftControllerEpoch":7}"#);
    assert_eq!(join(&mut kraft, None), Err(Refusal::KRaft));
    let mut migrating = tree();
    make(&mut migrating, "/migration", br#"{"version":0}"#);
    assert_eq!(join(&mut migrating, None), Err(Refusal::Migration));
    for controller in ["kraftControllerEpoch\":-1,\"x", "version"] {
        let mut tree = tree();
        let value = format!("{{\"{controller}\":1,\"brokerid\":3}}");
        make(&mut tree, "/controller", value.as_bytes());
        assert!(join(&mut tree, None).is_ok(), "{value}");
    }
}

#[test]
fn an_id_that_another_live_broker_has_is_refused_and_an_own_node_is_kept() {
    let mut tree = tree();
    join(&mut tree, None).unwrap();
    make(&mut tree, "/brokers/ids/1", b"another's");
    assert_eq!(register(&mut tree), Err(Refusal::IdInUse(BrokerId(1))));
    tree.delete("/brokers/ids/1", Version::Any).unwrap();
    let epoch = register(&mut tree).unwrap();
    assert_eq!(register(&mut tree), Ok(epoch), "the node belongs to this session");
}

#[test]
fn after_its_session_a_broker_registers_anew_over_the_node_that_is_left_of_it() {
    let mut tree = tree();
    join(&mut tree, None).unwrap();
    let mut membership = Membership::default();
    let Some(Effect::Registered { broker_epoch: first, .. }) =
        run(&mut membership, &mut tree, Event::Register { broker: broker() })
    else {
        panic!("not registered")
    };
    // The tree's session is a new one, and the old one's node is not gone yet.
    let next = Session { id: session(&tree).id + 100, ..session(&tree) };
    let mut effects = membership.handle(Event::Expired, next, NOW);
    let mut deleted = false;
    loop {
        match effects.pop().expect("it goes on") {
            Effect::Ask { number, generation, request } => {
                if let Request::Multi(operations) = &request {
                    deleted |= matches!(operations[0], Operation::Delete { version: Version::Exactly(1), .. });
                }
                let result = tree.ask_in(generation, request);
                effects = membership.handle(Event::Done { number, result }, next, NOW);
            }
            Effect::Registered { broker_epoch, .. } => {
                assert!(broker_epoch > first && deleted);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_broker_that_served_tries_again_to_register_until_it_can() {
    let mut tree = tree();
    join(&mut tree, None).unwrap();
    let mut membership = Membership::default();
    run(&mut membership, &mut tree, Event::Register { broker: broker() });
    tree.delete("/brokers/ids/1", Version::Any).unwrap();
    make(&mut tree, "/brokers/ids/1", b"another's");
    assert!(run(&mut membership, &mut tree, Event::Expired).is_none(), "nothing is refused any more");
    tree.delete("/brokers/ids/1", Version::Any).unwrap();
    let now = Now { monotonic: membership.next_deadline().expect("it tries again"), wall: 1 };
    let effects = membership.handle(Event::Time, session(&tree), now);
    assert!(matches!(effects[..], [Effect::Ask { request: Request::Multi(_), .. }]));
}
