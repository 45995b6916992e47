//! The loop of a shard's thread, and the only place that waits.
//!
//! A turn runs the tasks that are ready, fires due timers, lets starved receivers try again, then enters the ring once: without waiting if tasks are
//! still ready, else asleep until a completion, the doorbell or the next deadline.

#![forbid(unsafe_code)]

use std::io;
use std::time::Duration;

use crate::platform::linux::LinuxPlatform;
use crate::platform::{Clock, Platform};
use crate::uring::doorbell::EventDoorbell;

/// How often the queue of ready tasks is run through before the ring is entered: tasks wake one another a few times
/// for one request. And for how long, since that is what completions wait: connections that have much to be answered
/// must not hold up one that has little (tuning.md).
const ROUNDS_PER_TURN_MAX: usize = 32;
const TURN_MAX: Duration = Duration::from_micros(100);

/// Runs the shard's tasks on the calling thread until one of them makes `stopped` true, then drops them all.
///
/// # Errors
/// The ring failed, which leaves the shard without any I/O.
pub fn run(platform: &LinuxPlatform, doorbell: &EventDoorbell, stopped: impl Fn() -> bool) -> io::Result<()> {
    let executor = platform.executor();
    let bell = doorbell.clone();
    let ring = platform.ring().clone();
    executor.spawn(async move {
        let error = bell.listen(ring).await;
        tracing::error!(%error, "the shard's doorbell is broken");
    });
    loop {
        let until = platform.clock().now() + TURN_MAX;
        for _ in 0..ROUNDS_PER_TURN_MAX {
            if !executor.has_ready() {
                break;
            }
            executor.run_ready();
            if platform.clock().now() >= until {
                break;
            }
        }
        if stopped() {
            break;
        }
        platform.timers().fire(platform.clock().now());
        platform.ring().wake_starved();
        if executor.has_ready() {
            platform.ring().submit()?;
        } else {
            sleep(platform, doorbell)?;
        }
        platform.ring().reap();
    }
    executor.clear();
    Ok(())
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
