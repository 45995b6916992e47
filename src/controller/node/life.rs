//! A node's life on an executor: its start in two halves, and the loop that waits for its inputs.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use super::{Heard, Input, MetadataNode, StartError};
use crate::base::time::Now;
use crate::controller::event::Standing;
use crate::metadata::image::ClusterImage;
use crate::metadata::membership;
use crate::metadata::node::ShardSink;
use crate::metadata::thread::Inbox;
use crate::metadata::tree::MetadataTree;
use crate::platform::Clock;

/// A node that its executor's task and whoever ends that share. It is never borrowed across a wait.
pub type SharedNode<T, S> = Rc<RefCell<MetadataNode<T, S>>>;

/// Looks whether the broker belongs to the tree's cluster, and reads its settings; gives the cluster's id. `cluster_id`:
/// what meta.properties says. Nothing but what every cluster has is written.
pub async fn join<T: MetadataTree, S: ShardSink>(
    node: &SharedNode<T, S>,
    clock: &impl Clock,
    cluster_id: Option<String>,
) -> Result<Arc<str>, StartError> {
    let begin = |node: &mut MetadataNode<T, S>| {
        let random = [(node.random)(), (node.random)()];
        Heard::Membership(membership::Event::Join { cluster_id, random })
    };
    let heard = begin(&mut node.borrow_mut());
    node.borrow_mut().hear([heard], now_of(clock));
    until(node, clock, |node| node.cluster_id.clone().filter(|_| node.follower.is_ready())).await
}

/// Registers the broker and takes part: as controller if nobody is.
pub async fn serve<T: MetadataTree, S: ShardSink>(
    node: &SharedNode<T, S>,
    clock: &impl Clock,
    sink: S,
) -> Result<(), StartError> {
    {
        let mut node = node.borrow_mut();
        node.sink = Some(sink);
        let broker = node.broker.clone();
        node.hear([Heard::Membership(membership::Event::Register { broker })], now_of(clock));
    }
    until(node, clock, |node| match node.controller.standing() {
        Standing::Undecided => None,
        Standing::Active | Standing::Standby => Some(Ok(())),
        Standing::Failed(reason) => Some(Err(StartError::Controller(reason))),
    })
    .await?
}

/// Takes inputs until the process stops. `ready` hears when every shard shows the first image.
pub async fn run<T: MetadataTree, S: ShardSink>(
    node: &SharedNode<T, S>,
    clock: &impl Clock,
    mut inbox: Inbox,
    ready: impl FnOnce(Arc<ClusterImage>),
) {
    let mut ready = Some(ready);
    loop {
        if node.borrow().is_shown()
            && let Some(ready) = ready.take()
        {
            ready(Arc::clone(node.borrow().image().expect("it is shown")));
        }
        if !turn(node, clock, Some(&mut inbox)).await {
            return;
        }
    }
}

/// Takes the tree's inputs until `done` gives something, or the node is refused.
async fn until<T: MetadataTree, S: ShardSink, R>(
    node: &SharedNode<T, S>,
    clock: &impl Clock,
    done: impl Fn(&MetadataNode<T, S>) -> Option<R>,
) -> Result<R, StartError> {
    loop {
        if let Some(refused) = &node.borrow().refused {
            return Err(refused.clone());
        }
        if let Some(done) = done(&node.borrow()) {
            return Ok(done);
        }
        turn(node, clock, None).await;
    }
}

/// Waits for the next input and takes it; `false`: the process stops.
async fn turn<T: MetadataTree, S: ShardSink>(
    node: &SharedNode<T, S>,
    clock: &impl Clock,
    mut inbox: Option<&mut Inbox>,
) -> bool {
    let deadline = node.borrow().next_deadline();
    let mut time = pin!(async {
        match deadline {
            Some(deadline) => clock.sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    });
    let input = poll_fn(|cx| {
        if let Poll::Ready(input) = node.borrow_mut().poll_input(cx, inbox.as_deref_mut(), now_of(clock)) {
            return Poll::Ready(input);
        }
        time.as_mut().poll(cx).map(|()| Some(Input::Time))
    });
    match input.await {
        Some(input) => {
            node.borrow_mut().take(input, now_of(clock));
            true
        }
        None => false,
    }
}

fn now_of(clock: &impl Clock) -> Now {
    Now { monotonic: clock.now(), wall: clock.wall() }
}
