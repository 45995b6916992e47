//! Feeds a target: mutations from a seed, a watch over panics, memory and time, and how to repeat a finding.

use std::any::Any;
use std::fmt::{self, Debug};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::memory::peak_of;

/// Inputs of each target in the test command.
const INPUTS: u64 = 100_000;
/// Time of each target in the test command, if its inputs take longer.
const SECONDS_MAX: u64 = 10;
/// An input that takes longer is taken for one without an end.
const INPUT_DEADLINE: Duration = Duration::from_secs(20);
const SEED: u64 = 1;
/// Bytes of an input that a finding shows.
const SHOWN_MAX: usize = 4096;
/// Inputs are kept below this, whatever mutations add.
const INPUT_BYTES_MAX: usize = 64 * 1024;
/// Memory that any input may take, and what each of its bytes may on top: a string, or an element of an array, takes
/// some tens of bytes for the one that it has on the wire.
const MEMORY_BYTES: usize = 64 * 1024;
const MEMORY_PER_INPUT_BYTE: usize = 256;

/// A seeded stream of numbers (SplitMix64).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// A number below `end`; 0 if there is none.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end.max(1) as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// Lengths and counts that no one should believe, as numbers of 32 bits and as varints.
const NUMBERS: [i32; 8] = [i32::MAX, i32::MIN, -1, -2, 0x0fff_ffff, 0x0010_0000, 0, 1];
const VARINTS: [&[u8]; 6] = [
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xfe, 0xff, 0xff, 0xff, 0x0f],
    &[0x80, 0x80, 0x80, 0x80, 0x01],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0x80, 0x80, 0x40],
    &[0],
];

/// Changes bytes in up to four ways: flips, numbers, varints, cuts, repetitions, and parts of another of the corpus.
pub fn mutate(dice: &mut Dice, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len());
        match dice.below(9) {
            0 => bytes.truncate(at),
            1 => {
                let end = (at + 1 + dice.below(16)).min(bytes.len());
                bytes.drain(at..end);
            }
            2 => {
                let end = (at + 1 + dice.below(64)).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            3 => {
                let other = &corpus[dice.below(corpus.len())];
                let from = dice.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            4 => {
                let varint = VARINTS[dice.below(VARINTS.len())];
                let end = (at + 1).min(bytes.len());
                bytes.splice(at..end, varint.iter().copied());
            }
            5 => {
                let number = NUMBERS[dice.below(NUMBERS.len())].to_be_bytes();
                let end = (at + 4).min(bytes.len());
                bytes[at..end].copy_from_slice(&number[..end - at]);
            }
            6 if !bytes.is_empty() => bytes[at] = dice.number() as u8,
            7 if !bytes.is_empty() => bytes[at] = bytes[at].wrapping_add_signed([-1, 1][dice.below(2)]),
            _ if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
            _ => bytes.push(dice.number() as u8),
        }
    }
    bytes.truncate(INPUT_BYTES_MAX);
}

/// How long, from which seed.
#[derive(Clone, Copy)]
pub struct Budget {
    pub inputs: u64,
    pub time: Duration,
    pub input_deadline: Duration,
    pub seed: u64,
    /// This input alone.
    pub only: Option<u64>,
}

impl Budget {
    /// That of the test command, unless the environment says otherwise.
    pub fn of_environment() -> Budget {
        let number = |name: &str| {
            let text = std::env::var(name).ok()?;
            Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name}={text} is no number")))
        };
        let seconds = number("RINGLOG_FUZZ_SECONDS");
        Budget {
            inputs: if seconds.is_some() { u64::MAX } else { INPUTS },
            time: Duration::from_secs(seconds.unwrap_or(SECONDS_MAX)),
            input_deadline: INPUT_DEADLINE,
            seed: number("RINGLOG_SEED").unwrap_or(SEED),
            only: number("RINGLOG_FUZZ_INPUT"),
        }
    }
}

/// What is wrong with a target.
#[derive(Debug)]
pub struct Finding {
    pub number: u64,
    pub cause: Cause,
    input: String,
}

#[derive(Debug)]
pub enum Cause {
    Panic(String),
    Memory { bytes: usize, bytes_max: usize },
    NoEnd,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Panic(message) => write!(f, "input {} panics: {message}", self.number)?,
            Cause::Memory { bytes, bytes_max } => {
                write!(f, "input {} takes {bytes} bytes of memory, {bytes_max} are in proportion", self.number)?;
            }
            Cause::NoEnd => write!(f, "input {} has no end", self.number)?,
        }
        write!(f, "\n{}", self.input)
    }
}

/// What is fed, and with what.
pub struct Target<I> {
    pub name: String,
    /// The input of a number; must be the same every time.
    pub make: Box<dyn Fn(u64, &mut Dice) -> I + Send + Sync>,
    pub body: Box<dyn Fn(&I) + Send + Sync>,
    /// Memory in proportion to an input.
    pub memory_max: Box<dyn Fn(&I) -> usize + Send + Sync>,
}

/// A target that takes bytes. The corpus itself comes first, then mutations of it; half of these go through `mend`, which
/// puts checksums right.
pub fn of_bytes(
    name: impl Into<String>,
    corpus: Vec<Vec<u8>>,
    mend: Option<fn(&mut [u8])>,
    body: impl Fn(&[u8]) + Send + Sync + 'static,
) -> Target<Vec<u8>> {
    let name = name.into();
    assert!(!corpus.is_empty(), "{name} has a corpus");
    let make = move |number: u64, dice: &mut Dice| {
        if let Some(whole) = usize::try_from(number).ok().and_then(|number| corpus.get(number)) {
            return whole.clone();
        }
        let mut bytes = corpus[dice.below(corpus.len())].clone();
        mutate(dice, &mut bytes, &corpus);
        if let Some(mend) = mend.filter(|_| dice.one_in(2)) {
            mend(&mut bytes);
        }
        bytes
    };
    Target {
        name,
        make: Box::new(make),
        body: Box::new(move |input: &Vec<u8>| body(input)),
        memory_max: Box::new(|input| MEMORY_BYTES + MEMORY_PER_INPUT_BYTE * input.len()),
    }
}

/// Feeds a target within the budget; how many inputs it took.
pub fn feed<I: Debug + 'static>(target: Target<I>, budget: Budget) -> Result<u64, Finding> {
    let target = Arc::new(target);
    let at = Arc::new(AtomicU64::new(0));
    let (sender, receiver) = channel();
    thread::spawn({
        let (target, at) = (Arc::clone(&target), Arc::clone(&at));
        move || {
            let start = Instant::now();
            let numbers = budget.only.map_or(0..budget.inputs, |only| only..only + 1);
            let mut fed = 0;
            for number in numbers {
                at.store(number, Ordering::Relaxed);
                if let Err(cause) = feed_one(&target, budget.seed, number) {
                    let _ = sender.send(Err((number, cause)));
                    return;
                }
                fed += 1;
                if start.elapsed() >= budget.time {
                    break;
                }
            }
            let _ = sender.send(Ok(fed));
        }
    });
    let mut before = None;
    loop {
        let (number, cause) = match receiver.recv_timeout(budget.input_deadline) {
            Ok(Ok(fed)) => return Ok(fed),
            Ok(Err((number, cause))) => (number, cause),
            Err(RecvTimeoutError::Timeout) => match at.load(Ordering::Relaxed) {
                now if before == Some(now) => (now, Cause::NoEnd),
                now => {
                    before = Some(now);
                    continue;
                }
            },
            Err(RecvTimeoutError::Disconnected) => {
                (at.load(Ordering::Relaxed), Cause::Panic("while the input was made".into()))
            }
        };
        let mut input = format!("{:02x?}", input_of(&target, budget.seed, number));
        input.truncate(SHOWN_MAX);
        return Err(Finding { number, cause, input });
    }
}

fn input_of<I>(target: &Target<I>, seed: u64, number: u64) -> I {
    let mut dice = Dice::new(seed);
    let mixed = dice.number() ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93);
    (target.make)(number, &mut Dice::new(mixed))
}

fn feed_one<I>(target: &Target<I>, seed: u64, number: u64) -> Result<(), Cause> {
    let input = input_of(target, seed, number);
    let (outcome, bytes) = peak_of(|| catch_unwind(AssertUnwindSafe(|| (target.body)(&input))));
    let bytes_max = (target.memory_max)(&input);
    match outcome {
        Err(panic) => Err(Cause::Panic(message_of(&*panic))),
        Ok(()) if bytes > bytes_max => Err(Cause::Memory { bytes, bytes_max }),
        Ok(()) => Ok(()),
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message").to_owned()
}

/// Feeds a target within the budget of the environment, and tells what it did past the capture of test output.
#[track_caller]
pub fn check<I: Debug + 'static>(target: Target<I>) {
    let budget = Budget::of_environment();
    let (name, seed, start) = (target.name.clone(), budget.seed, Instant::now());
    match feed(target, budget) {
        Ok(inputs) => {
            let seconds = start.elapsed().as_secs_f64();
            let _ = writeln!(std::io::stderr(), "fuzz {name}: {inputs} inputs in {seconds:.1} s from seed {seed}");
        }
        Err(finding) => {
            let test = thread::current().name().unwrap_or_default().to_owned();
            let number = finding.number;
            panic!(
                "{name}, seed {seed}: {finding}\n\
                 again: RINGLOG_SEED={seed} RINGLOG_FUZZ_INPUT={number} cargo test --test fuzz {test}"
            );
        }
    }
}

/// Bugs that the harness must find, or its silence would mean nothing.
mod canaries {
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn corpus() -> Vec<Vec<u8>> {
        vec![[&3_i32.to_be_bytes()[..], b"abc"].concat()]
    }

    fn length_and_rest(bytes: &[u8]) -> Option<(usize, &[u8])> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        Some((u32::from_be_bytes(*length) as usize, rest))
    }

    fn found(body: impl Fn(&[u8]) + Send + Sync + 'static) -> Cause {
        let budget = Budget {
            inputs: INPUTS,
            time: Duration::from_secs(SECONDS_MAX),
            input_deadline: Duration::from_millis(300),
            only: None,
            ..Budget::of_environment()
        };
        feed(of_bytes("canary", corpus(), None, body), budget).expect_err("a canary must be found").cause
    }

    #[test]
    fn a_decoder_that_trusts_a_length_is_found_by_its_panic() {
        let cause = found(|bytes| {
            if let Some((length, rest)) = length_and_rest(bytes) {
                assert!(rest[..length].len() <= rest.len());
            }
        });
        assert!(matches!(&cause, Cause::Panic(message) if message.contains("out of range")), "{cause:?}");
    }

    #[test]
    fn a_decoder_that_trusts_a_count_is_found_by_its_memory() {
        let cause = found(|bytes| {
            if let Some((count, _)) = length_and_rest(bytes) {
                let _ = Vec::<u64>::with_capacity(count.min(1 << 24));
            }
        });
        assert!(matches!(cause, Cause::Memory { .. }), "{cause:?}");
    }

    #[test]
    fn a_decoder_that_stands_still_is_found_by_its_time() {
        static IS_OVER: AtomicBool = AtomicBool::new(false);
        let cause = found(|bytes| {
            while length_and_rest(bytes).is_some_and(|(length, _)| length == 0) && !IS_OVER.load(Ordering::Relaxed) {
                thread::yield_now();
            }
        });
        IS_OVER.store(true, Ordering::Relaxed);
        assert!(matches!(cause, Cause::NoEnd), "{cause:?}");
    }

    #[test]
    fn a_finding_is_repeated_by_its_seed_and_number() {
        let target = || of_bytes("canary", corpus(), None, |bytes: &[u8]| assert!(bytes.len() < 40));
        let budget = Budget { only: None, ..Budget::of_environment() };
        let finding = feed(target(), budget).expect_err("it is found");
        let again = feed(target(), Budget { only: Some(finding.number), ..budget }).expect_err("it is found again");
        assert_eq!((finding.number, finding.input), (again.number, again.input));
    }
}
