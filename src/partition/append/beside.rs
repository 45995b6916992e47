//! What goes on in a log beside its appends: upkeep, and the leader epochs that the log start has passed.

use std::rc::Rc;

use crate::partition::partition::Partition;
use crate::partition::slot::Job;
use crate::platform::{Clock, Platform, Tasks};
use crate::storage::log::Log;

/// Blocks are reserved ahead only on a file system that has so much to spare.
const PREALLOCATION_ROOM: u64 = 1 << 30;

/// Preallocation and index blocks, if any is due, beside the next appends.
pub(in crate::partition) fn start_upkeep<P: Platform>(partition: &Rc<Partition<P>>) {
    let mut state = partition.state.borrow_mut();
    if state.jobs.is_running(Job::Upkeep) {
        return;
    }
    let now = state.clock.wall();
    let has_room = partition.home.log_dir().has_room(PREALLOCATION_ROOM);
    let Some(upkeep) = state.slot.open_mut().and_then(|log| log.upkeep(now, has_room)) else { return };
    state.jobs.begin(Job::Upkeep);
    drop(state);
    let this = Rc::clone(partition);
    partition.platform.tasks().spawn(async move {
        let done = upkeep.await;
        let mut state = this.state.borrow_mut();
        let outcome = state.slot.log_mut().map(|log| log.finish_upkeep(done));
        state.jobs.end(Job::Upkeep);
        drop(state);
        if let Some(Err(error)) = outcome {
            tracing::warn!(partition = %this.topic_partition, %error, "index or preallocation");
            this.storage_failed(&error);
        }
    });
}

/// Takes the leader epochs below a log start that has moved out of their file, beside appends: it takes fsyncs, and a start
/// knows by itself what is below the log start (Kafka 3.9 `LeaderEpochFileCache.truncateFromStartAsyncFlush`).
pub(in crate::partition) fn write_epochs<P: Platform>(partition: &Rc<Partition<P>>) {
    let mut state = partition.state.borrow_mut();
    if state.jobs.is_running(Job::Epochs) {
        return;
    }
    let Some(write) = state.slot.open_mut().and_then(Log::epochs_write) else { return };
    state.jobs.begin(Job::Epochs);
    drop(state);
    let this = Rc::clone(partition);
    partition.platform.tasks().spawn(async move {
        let written = write.await;
        this.state.borrow_mut().jobs.end(Job::Epochs);
        if let Err(error) = written {
            tracing::warn!(partition = %this.topic_partition, %error, "old leader epochs stay written");
            this.storage_failed(&error);
        }
        // The log start may have moved again.
        write_epochs(&this);
    });
}
