use std::future::Future;

use bytes::BytesMut;

use super::*;
use crate::executor::either;
use crate::platform::Socket;
use crate::sim::world::TraceEntry;

const PORT: u16 = 9092;

/// Longer than any sender's patience, and than a loss takes to be heard of.
const LONG: Duration = Duration::from_secs(30);

/// Two hosts; what comes to the second waits in `accepted`.
struct Bench {
    world: World,
    network: Network,
    one: Host,
    other: Host,
    tasks: Executor,
    accepted: Rc<RefCell<Vec<SimSocket>>>,
}

impl Bench {
    fn new(seed: u64) -> Bench {
        let world = World::new(seed);
        let network = Network::new(&world);
        let (one, other, tasks) = (network.add_host(), network.add_host(), world.executor());
        let bench = Bench { world, network, one, other, tasks, accepted: Rc::default() };
        bench.listen();
        bench
    }

    fn listen(&self) {
        let accepted = Rc::clone(&self.accepted);
        self.other.listen(PORT, &FakeDisk::new(), move |socket| accepted.borrow_mut().push(socket));
    }

    fn ids(&self) -> [(HostId, HostId); 2] {
        [(self.one.id(), self.other.id()), (self.other.id(), self.one.id())]
    }

    fn with_latency(self) -> Bench {
        let latency = Latency::between(Duration::from_micros(50), Duration::from_millis(5));
        self.ids().into_iter().for_each(|(from, to)| self.network.set_latency(from, to, latency));
        self
    }

    fn run<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> T {
        let place = Rc::new(RefCell::new(None));
        let result = Rc::clone(&place);
        self.tasks.spawn(async move {
            let value = task.await;
            *result.borrow_mut() = Some(value);
        });
        self.world.run_until(|| place.borrow().is_some());
        let value = place.borrow_mut().take();
        value.expect("just seen")
    }

    fn pass(&self, time: Duration) {
        self.run(self.world.timers().sleep_until(self.world.now() + time));
    }

    /// The result, unless there is none within `wait`.
    fn within<T: 'static>(&self, wait: Duration, task: impl Future<Output = T> + 'static) -> Option<T> {
        let over = self.world.timers().sleep_until(self.world.now() + wait);
        self.run(async move { either(Box::pin(task), over).await.ok() })
    }

    fn try_connect(&self, wait: Duration) -> Option<io::Result<SimSocket>> {
        let (one, address) = (self.one.clone(), self.other.address(PORT));
        self.within(wait, async move { one.connect(address).await })
    }

    fn connect(&self) -> (Rc<SimSocket>, Rc<SimSocket>) {
        let opened = self.try_connect(LONG).expect("in time").expect("connected");
        (Rc::new(opened), Rc::new(self.accepted.borrow_mut().pop().expect("accepted")))
    }

    fn send(&self, socket: &Rc<SimSocket>, bytes: Vec<u8>) -> io::Result<()> {
        let socket = Rc::clone(socket);
        self.within(LONG, async move { socket.send(bytes.into(), false).await }).expect("room")
    }

    /// What comes next; `None`: nothing, for long.
    fn receive(&self, socket: &Rc<SimSocket>) -> Option<io::Result<BytesMut>> {
        let socket = Rc::clone(socket);
        self.within(LONG, async move { socket.receive().await })
    }

    fn receives(&self, socket: &Rc<SimSocket>, bytes: &[u8]) {
        let (socket, length) = (Rc::clone(socket), bytes.len());
        let got = self.within(LONG, async move { socket.receive_frame(BytesMut::new(), length).await });
        assert_eq!(got.expect("in time").expect("received"), bytes);
    }

    /// Sends numbers in a task of their own, and reads them in another; the numbers that came.
    fn stream(&self, from: &Rc<SimSocket>, to: &Rc<SimSocket>, count: u32) -> Vec<u32> {
        let from = Rc::clone(from);
        self.tasks.spawn(async move {
            for number in 0..count {
                from.send(number.to_be_bytes().to_vec().into(), false).await.expect("sent");
            }
        });
        let to = Rc::clone(to);
        let numbers = async move {
            let bytes = to.receive_frame(BytesMut::new(), 4 * count as usize).await.expect("received");
            bytes.chunks(4).map(|four| u32::from_be_bytes(four.try_into().expect("four"))).collect()
        };
        self.within(LONG, numbers).expect("in time")
    }
}

fn kind<T>(result: Option<io::Result<T>>) -> Option<io::ErrorKind> {
    result.map(|result| result.err().expect("an error").kind())
}

#[test]
fn bytes_of_a_connection_come_in_order_whatever_each_of_them_takes_and_the_run_is_the_same_again() {
    let run = |seed| {
        let bench = Bench::new(seed).with_latency();
        let (opened, accepted) = bench.connect();
        for (from, to) in [(&opened, &accepted), (&accepted, &opened)] {
            let numbers = bench.stream(from, to, 200);
            assert!(numbers.iter().copied().eq(0..200), "seed {seed}");
        }
        bench.world.trace()
    };
    for seed in 0..10 {
        assert!(run(seed) == run(seed), "seed {seed} ran differently the second time");
    }
}

#[test]
fn a_link_that_reorders_the_bytes_of_a_connection_is_noticed() {
    let noticed = || {
        let in_order = |seed: &u64| {
            let bench = Bench::new(*seed).with_latency();
            let (opened, accepted) = bench.connect();
            bench.stream(&opened, &accepted, 200).iter().copied().eq(0..200)
        };
        (0..10).filter(|seed| !in_order(seed)).collect::<Vec<u64>>()
    };
    planted::REORDER_WITHIN_A_CONNECTION.set(true);
    let (first, again) = (noticed(), noticed());
    planted::REORDER_WITHIN_A_CONNECTION.set(false);
    assert!(!first.is_empty(), "the planted bug is never met");
    assert_eq!(first, again, "a seed meets it again");
}

#[test]
fn pieces_of_different_connections_overtake_one_another() {
    let overtaken = (0..20).filter(|seed| {
        let bench = Bench::new(*seed).with_latency();
        let (first, second) = (bench.connect(), bench.connect());
        bench.send(&first.0, b"first".to_vec()).expect("sent");
        bench.send(&second.0, b"second".to_vec()).expect("sent");
        bench.receives(&second.1, b"second");
        first.1.unread_bytes() == 0
    });
    let overtaken = overtaken.count();
    assert!((1..20).contains(&overtaken), "{overtaken} of 20");
}

#[test]
fn a_sender_waits_for_a_peer_that_does_not_read_and_goes_on_when_it_does() {
    for bench in [Bench::new(1), Bench::new(2).with_latency()] {
        let (from, to) = bench.ids()[0];
        bench.network.set_window(from, to, 1000);
        let (opened, accepted) = bench.connect();
        let sending = Rc::clone(&opened);
        let sent = Rc::new(Cell::new(false));
        let done = Rc::clone(&sent);
        bench.tasks.spawn(async move {
            sending.send(vec![7; 10_000].into(), false).await.expect("sent");
            done.set(true);
        });
        bench.pass(LONG * 10);
        assert_eq!((sent.get(), accepted.unread_bytes(), opened.sent_bytes()), (false, 1000, 1000));
        bench.receives(&accepted, &[7; 10_000]);
        assert!(sent.get() && bench.network.held_bytes_max() == 0);
    }
}

#[test]
fn what_is_sent_on_a_cut_way_comes_once_it_is_mended_and_in_order() {
    for seed in 0..20 {
        let bench = Bench::new(seed).with_latency();
        let (from, to) = bench.ids()[0];
        let (opened, accepted) = bench.connect();
        bench.send(&opened, b"before ".to_vec()).expect("sent");
        bench.network.cut(from, to);
        bench.send(&opened, b"while ".to_vec()).expect("the sender can't know");
        bench.pass(Duration::from_secs(5));
        assert!(accepted.unread_bytes() <= 7);
        // The other direction is whole.
        bench.send(&accepted, b"back".to_vec()).expect("sent");
        bench.receives(&opened, b"back");
        bench.network.mend(from, to);
        bench.send(&opened, b"after".to_vec()).expect("sent");
        bench.receives(&accepted, b"before while after");
    }
}

#[test]
fn a_sender_who_hears_nothing_gives_up_be_its_bytes_lost_or_only_the_word_of_their_arrival() {
    for there in [true, false] {
        let bench = Bench::new(3).with_latency();
        let (opened, accepted) = bench.connect();
        let [there_way, back_way] = bench.ids();
        let (from, to) = if there { there_way } else { back_way };
        bench.network.cut(from, to);
        bench.send(&opened, b"x".to_vec()).expect("the sender can't know");
        bench.pass(LONG);
        assert_eq!(kind(bench.receive(&opened)), Some(io::ErrorKind::TimedOut));
        assert_eq!(accepted.unread_bytes(), u64::from(!there), "one byte came, or none");
        bench.network.mend(from, to);
        if !there {
            bench.receives(&accepted, b"x");
        }
        assert!(bench.receive(&accepted).is_none(), "who sends nothing hears of nothing");
        bench.send(&accepted, b"y".to_vec()).expect("sent");
        assert_eq!(kind(bench.receive(&accepted)), Some(io::ErrorKind::ConnectionReset));
    }
}

#[test]
fn nobody_answers_from_a_host_without_power_and_it_refuses_when_it_is_back() {
    let bench = Bench::new(4).with_latency();
    let (opened, accepted) = bench.connect();
    bench.send(&opened, b"x".to_vec()).expect("sent");
    bench.pass(Duration::from_secs(1));
    bench.other.switch_off();
    drop(accepted);
    assert!(bench.receive(&opened).is_none(), "not even that the connection has ended");
    assert!(bench.try_connect(LONG).is_none());
    bench.send(&opened, b"y".to_vec()).expect("the sender can't know");
    assert_eq!(kind(bench.receive(&opened)), Some(io::ErrorKind::TimedOut));

    bench.other.switch_on();
    assert_eq!(kind(bench.try_connect(LONG)), Some(io::ErrorKind::ConnectionRefused));
    bench.listen();
    let (opened, accepted) = bench.connect();
    bench.other.switch_off();
    drop(accepted);
    bench.send(&opened, b"y".to_vec()).expect("the sender can't know");
    bench.other.switch_on();
    assert_eq!(kind(bench.receive(&opened)), Some(io::ErrorKind::ConnectionReset), "no such connection there");
}

#[test]
fn a_process_that_ends_closes_its_connections_behind_what_it_has_sent() {
    let bench = Bench::new(5).with_latency();
    let (opened, accepted) = bench.connect();
    bench.send(&accepted, b"last words".to_vec()).expect("sent");
    drop(accepted);
    bench.other.stop_listening();
    bench.receives(&opened, b"last words");
    assert_eq!(bench.receive(&opened).expect("in time").expect("the end"), "");
    assert_eq!(kind(bench.try_connect(LONG)), Some(io::ErrorKind::ConnectionRefused));
    bench.send(&opened, b"x".to_vec()).expect("it may still read");
    bench.pass(LONG);
    assert_eq!(bench.send(&opened, b"y".to_vec()).map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionReset));
}

#[test]
fn each_side_of_a_lost_connection_hears_of_it_at_a_time_of_its_own() {
    let mut apart = 0;
    for seed in 0..20 {
        let bench = Bench::new(seed).with_latency();
        let (opened, accepted) = bench.connect();
        bench.network.lose_connections(bench.one.id(), bench.other.id());
        bench.send(&opened, b"x".to_vec()).expect("it may not have heard");
        assert_eq!(kind(bench.receive(&opened)), Some(io::ErrorKind::ConnectionReset));
        apart += usize::from(accepted.unread_bytes() == 0 && bench.send(&accepted, b"y".to_vec()).is_ok());
        assert_eq!(kind(bench.receive(&accepted)), Some(io::ErrorKind::ConnectionReset));
        // The next one is whole.
        let (opened, accepted) = bench.connect();
        assert_eq!(bench.stream(&opened, &accepted, 10).len(), 10);
    }
    assert!((1..20).contains(&apart), "{apart} of 20");
}

#[test]
fn a_way_that_loses_connections_does_so_at_some_piece() {
    let bench = Bench::new(6).with_latency();
    let (from, to) = bench.ids()[0];
    bench.network.set_losses(from, to, 50);
    let (opened, _accepted) = bench.connect();
    let sends = |_: &i32| {
        bench.pass(Duration::from_millis(100));
        bench.send(&opened, b"x".to_vec()).is_ok()
    };
    assert!((0..1000).take_while(sends).count() < 1000);
    assert!(bench.world.trace().contains(&TraceEntry::Note("connection 1 is lost".into())));
}

#[test]
fn a_try_to_connect_waits_for_a_cut_way_and_gives_up_some_time() {
    for there in [true, false] {
        let bench = Bench::new(7).with_latency();
        let [there_way, back_way] = bench.ids();
        let (from, to) = if there { there_way } else { back_way };
        bench.network.cut(from, to);
        assert_eq!(kind(bench.try_connect(CONNECT_MAX * 2)), Some(io::ErrorKind::TimedOut));
        // Whoever accepted it sees it end when the way is whole again.
        bench.network.mend(from, to);
        if !there {
            let accepted = Rc::new(bench.accepted.borrow_mut().pop().expect("it was accepted"));
            assert_eq!(bench.receive(&accepted).expect("in time").expect("the end"), "");
        }
        bench.network.cut(from, to);
        let network = bench.network.clone();
        let soon = bench.world.timers().sleep_until(bench.world.now() + Duration::from_secs(4));
        bench.tasks.spawn(async move {
            soon.await;
            network.mend(from, to);
        });
        assert!(bench.try_connect(LONG).expect("in time").is_ok());
    }
}
