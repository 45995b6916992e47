//! What holds a shard: calls of its thread in which the thread slept, though they must not wait.
//!
//! A shard sleeps in its ring and nowhere else. The kernel may put its thread to sleep all the same, since a folio is under
//! write-back, a lock of the file is taken or a page is not there; every connection of the shard waits as long. So what the
//! thread does to files itself goes through [`Held::during`]. A call has held the shard if it took longer than
//! [`HELD_MIN`] and the thread gave its core up by itself meanwhile: one that only lost its core to another has not slept.
//!
//! ```text
//!  ring wait | first call of the turn   other calls      one took over HELD_MIN         | ring wait
//!            | getrusage: a             only the clock   getrusage: b; slept if b > a   |
//! ```
//! To ask costs as much as a small write (tuning.md). So the kernel is asked once in a turn that has such calls, and again only
//! after a slow one; while the ring never lets the thread sleep, which is when time is short, only turns with writes ask. The
//! price: where a call slept for less than [`HELD_MIN`], or something that is not watched slept, a later call that lost its
//! core for longer is taken for one that slept, if nobody has asked in between.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::LinuxClock;
use crate::base::ids::ShardId;
use crate::base::log_limit::LogLimit;
use crate::base::time::Monotonic;
use crate::metrics::{HeldCall, ShardCounters};
use crate::platform::Clock;
use crate::sys;

/// What a call may take without being looked at: the page cache alone never takes that long.
pub const HELD_MIN: Duration = Duration::from_millis(1);

/// Lines about it that a shard logs in [`LOGGED_INTERVAL`].
const LOGGED_MAX: u32 = 1;
const LOGGED_INTERVAL: Duration = Duration::from_secs(1);

/// How long a call took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Took {
    pub time: Duration,
    /// The thread slept in it, and for longer than [`HELD_MIN`].
    pub slept: bool,
}

/// A handle to the watch over one shard's thread; clones share it.
#[derive(Clone)]
pub struct Held(Rc<Watch>);

struct Watch {
    thread: Thread,
    clock: LinuxClock,
    counters: Arc<ShardCounters>,
    switches: Cell<Switches>,
    lines: LogLimit,
}

/// How often the thread had given up its core by itself, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Switches {
    /// It slept in its ring since that was asked.
    Unknown,
    /// Asked in an earlier turn; it has not slept in its ring since.
    Earlier(i64),
    ThisTurn(i64),
}

/// Whose thread it is, for the log.
#[derive(Clone, Copy, Debug)]
enum Thread {
    Shard(ShardId),
    /// What runs before there are shards.
    Start,
}

impl fmt::Display for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Thread::Shard(ShardId(shard)) => write!(f, "shard {shard}"),
            Thread::Start => write!(f, "the start"),
        }
    }
}

impl Held {
    /// Of the thread of `shard`, or of the one that starts the process.
    pub fn new(shard: Option<ShardId>, clock: LinuxClock, counters: Arc<ShardCounters>) -> Held {
        Held(Rc::new(Watch {
            thread: shard.map_or(Thread::Start, Thread::Shard),
            clock,
            counters,
            switches: Cell::new(Switches::Unknown),
            lines: LogLimit::new(LOGGED_INTERVAL, LOGGED_MAX),
        }))
    }

    /// The thread was in its ring, and slept there or did not.
    pub fn turn_begins(&self, slept: bool) {
        let known = match self.0.switches.get() {
            Switches::Earlier(count) | Switches::ThisTurn(count) if !slept => Switches::Earlier(count),
            _ => Switches::Unknown,
        };
        self.0.switches.set(known);
    }

    /// Makes a call on `file`, counts it if it has held the shard, and says so in the log.
    pub fn during<T>(&self, call: HeldCall, file: BorrowedFd<'_>, make: impl FnOnce() -> T) -> (T, Took) {
        let watch = &*self.0;
        let before = watch.known_switches(call);
        let begun = watch.clock.now();
        let result = make();
        let ended = watch.clock.now();
        let time = ended.since(begun);
        let slept = time > HELD_MIN && watch.ask_switches() != before;
        if slept {
            watch.count(call, time);
            watch.log(call, time, file, ended);
        }
        (result, Took { time, slept })
    }
}

impl Watch {
    /// What is known, if it is good enough for such a call. Writes now and then sleep for a moment, and are not judged by
    /// what was known before others.
    fn known_switches(&self, call: HeldCall) -> i64 {
        match self.switches.get() {
            Switches::ThisTurn(count) => count,
            Switches::Earlier(count) if call != HeldCall::Write => count,
            Switches::Unknown | Switches::Earlier(_) => self.ask_switches(),
        }
    }

    fn ask_switches(&self) -> i64 {
        let count = sys::voluntary_switches();
        self.switches.set(Switches::ThisTurn(count));
        count
    }

    fn count(&self, call: HeldCall, time: Duration) {
        let held = self.counters.held.of(call);
        held.calls_total.add(1);
        held.ns_total.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    fn log(&self, call: HeldCall, time: Duration, file: BorrowedFd<'_>, now: Monotonic) {
        if let Some(left_out) = self.lines.allow(now) {
            let (call, thread) = (call.name(), self.thread);
            let path = path_of(file).unwrap_or_default();
            tracing::warn!(path = %path.display(), left_out, "a {call} held {thread} for {} ms", time.as_millis());
        }
    }
}

/// Where an open file lies, as the kernel knows it: without a look at the disk.
fn path_of(file: BorrowedFd<'_>) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{self, PipeReader, Read, Write};
    use std::os::fd::AsFd;
    use std::sync::Mutex;
    use std::thread;
    use std::time::Instant;

    use super::*;

    /// Longer than what is taken for nothing.
    const LONG: Duration = Duration::from_millis(3);

    fn held() -> Held {
        Held::new(Some(ShardId(7)), LinuxClock::start(), Arc::default())
    }

    fn counted(held: &Held, call: HeldCall) -> (u64, Duration) {
        let of = held.0.counters.held.of(call);
        (of.calls_total.get(), Duration::from_nanos(of.ns_total.get()))
    }

    fn be_busy() {
        let begun = Instant::now();
        while begun.elapsed() < LONG {
            std::hint::spin_loop();
        }
    }

    /// Reads from an empty pipe, into which somebody writes when this thread has slept for long.
    fn sleep_in(pipe: &mut PipeReader, writer: &mut (impl Write + Send)) {
        let sleeper = format!("/proc/self/task/{}/stat", nix::unistd::gettid());
        thread::scope(|scope| {
            scope.spawn(|| {
                let sleeps = || fs::read_to_string(&sleeper).is_ok_and(|stat| stat.contains(") S "));
                while !sleeps() {
                    thread::yield_now();
                }
                be_busy();
                writer.write_all(b"x").expect("written");
            });
            pipe.read_exact(&mut [0]).expect("read");
        });
    }

    #[test]
    fn a_call_that_sleeps_is_counted_with_its_time_and_one_that_is_only_long_is_not() {
        let (mut pipe, mut writer) = io::pipe().expect("a pipe");
        let (held, file) = (held(), fs::File::open("/proc/self/exe").expect("a file"));
        let ((), busy) = held.during(HeldCall::Write, file.as_fd(), be_busy);
        assert!(!busy.slept && busy.time >= LONG);
        let ((), short) = held.during(HeldCall::Write, file.as_fd(), || ());
        assert!(!short.slept);
        let ((), slept) = held.during(HeldCall::Write, file.as_fd(), || sleep_in(&mut pipe, &mut writer));
        assert!(slept.slept && slept.time >= LONG);
        // What slept before is not counted again with what comes after it.
        let ((), busy) = held.during(HeldCall::Write, file.as_fd(), be_busy);
        assert!(!busy.slept);
        let ((), read) = held.during(HeldCall::Read, file.as_fd(), || sleep_in(&mut pipe, &mut writer));
        assert_eq!(counted(&held, HeldCall::Write), (1, slept.time));
        assert_eq!(counted(&held, HeldCall::Read), (1, read.time));
        assert_eq!(counted(&held, HeldCall::Send), (0, Duration::ZERO));
    }

    #[test]
    fn what_the_thread_slept_between_two_turns_is_no_calls_fault() {
        let (mut pipe, mut writer) = io::pipe().expect("a pipe");
        let (held, file) = (held(), fs::File::open("/proc/self/exe").expect("a file"));
        held.during(HeldCall::Write, file.as_fd(), || ());
        sleep_in(&mut pipe, &mut writer);
        held.turn_begins(true);
        assert!(!held.during(HeldCall::Read, file.as_fd(), be_busy).1.slept);
        sleep_in(&mut pipe, &mut writer);
        held.turn_begins(false);
        assert!(
            !held.during(HeldCall::Write, file.as_fd(), be_busy).1.slept,
            "a write is not judged by an earlier turn"
        );
        // Within a turn nobody can tell; the loop is held to say when one begins by a test of its own.
        sleep_in(&mut pipe, &mut writer);
        assert!(held.during(HeldCall::Write, file.as_fd(), be_busy).1.slept);
    }

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no writer has panicked").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_log_names_call_shard_time_and_file_once_a_second_and_says_how_many_it_left_out() {
        let written = Written::default();
        let sink = written.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || sink.clone()).finish();
        let file = tempfile::NamedTempFile::new().expect("a file");
        let held = held();
        tracing::subscriber::with_default(subscriber, || {
            let say = |call, ms, now| {
                held.0.log(call, Duration::from_millis(ms), file.as_file().as_fd(), Monotonic::default() + now);
            };
            (31..41).for_each(|ms| say(HeldCall::Write, ms, Duration::from_millis(10 * ms)));
            say(HeldCall::Send, 2, Duration::from_millis(310) + LOGGED_INTERVAL);
        });
        let bytes = written.0.lock().expect("no writer has panicked").clone();
        let lines: Vec<String> = String::from_utf8(bytes).expect("text").lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        let path = file.path().display();
        for (line, text) in [
            (
                &lines[0],
                format!("WARN ringlog::platform::linux::held: a write held shard 7 for 31 ms path={path} left_out=0"),
            ),
            (&lines[1], format!("a send held shard 7 for 2 ms path={path} left_out=9")),
        ] {
            assert!(line.ends_with(&text), "{line}");
        }
    }
}
