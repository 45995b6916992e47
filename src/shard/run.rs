//! The loop of a shard's thread, and of the control thread: the only place that waits.
//!
//! A turn runs the tasks that are ready, fires due timers, lets who waits for buffers or for room in the ring try again,
//! then enters the ring once: without waiting if tasks are still ready, else asleep until a completion, the doorbell or the
//! next deadline. What comes during a turn is not seen before its end, so how long turns are is told by a histogram.

#![forbid(unsafe_code)]

use std::io;
use std::time::Duration;

use crate::base::time::Monotonic;
use crate::platform::linux::LinuxPlatform;
use crate::platform::{Clock, Platform};
use crate::uring::doorbell::EventDoorbell;

/// How often the queue of ready tasks is run through before the ring is entered: tasks wake one another a few times
/// for one request. And for how long, since that is what completions wait: connections that have much to be answered
/// must not hold up one that has little (tuning.md).
const ROUNDS_PER_TURN_MAX: usize = 32;
const TURN_MAX: Duration = Duration::from_micros(100);

/// Runs the executor's tasks on the calling thread until one of them makes `stopped` true, then drops them all.
///
/// # Errors
/// The ring failed, which leaves the thread without any I/O.
pub fn run(platform: &LinuxPlatform, doorbell: &EventDoorbell, stopped: impl Fn() -> bool) -> io::Result<()> {
    let executor = platform.executor();
    let bell = doorbell.clone();
    let ring = platform.ring().clone();
    executor.spawn(async move {
        let error = bell.listen(ring).await;
        tracing::error!(%error, "the doorbell of a thread is broken");
    });
    let counters = platform.counters();
    let mut since = platform.clock().now();
    loop {
        let until = platform.clock().now() + TURN_MAX;
        for _ in 0..ROUNDS_PER_TURN_MAX {
            if !executor.has_ready() {
                break;
            }
            counters.tasks_run_total.add(executor.run_ready() as u64);
            if platform.clock().now() >= until {
                break;
            }
        }
        if stopped() {
            break;
        }
        let now = platform.clock().now();
        let began = since;
        let busy_ns = ns_since(&mut since, now);
        counters.busy_ns_total.add(busy_ns);
        counters.turn_time.record_ns(busy_ns);
        platform.timers().fire(now);
        platform.ring().wake_waiting();
        let slept = if executor.has_ready() {
            platform.ring().submit()?;
            false
        } else {
            let has_come = platform.ring().has_come();
            sleep(platform, doorbell)?;
            counters.idle_ns_total.add(ns_since(&mut since, platform.clock().now()));
            !has_come
        };
        platform.held().turn_begins(slept);
        // What is reaped now has ended the sleep, or else it came during the turn.
        platform.ring().reap(if slept { since } else { began });
    }
    executor.clear();
    Ok(())
}

/// Nanoseconds from then to `now`, which is the next `since`.
fn ns_since(since: &mut Monotonic, now: Monotonic) -> u64 {
    now.since(std::mem::replace(since, now)).as_nanos() as u64
}

fn sleep(platform: &LinuxPlatform, doorbell: &EventDoorbell) -> io::Result<()> {
    doorbell.announce_sleep();
    let result = if platform.executor().has_ready() {
        platform.ring().submit()
    } else {
        let now = platform.clock().now();
        let wait = platform.timers().next_deadline().map(|deadline| deadline.since(now));
        platform.ring().submit_and_wait(wait)
    };
    doorbell.awake();
    result
}
