//! The order of one connection's batches for a partition, while some of them are at work threads.
//!
//! Batches that need no work thread are handed to their owner at once and know nothing of this, unless one before them
//! for the same partition is still away: then they take a turn behind it.

#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use futures_channel::oneshot;

/// One per connection.
#[derive(Default)]
pub struct BatchOrder {
    /// By topic and partition: the last turn that was taken, as long as it lasts.
    last: RefCell<BTreeMap<(Arc<str>, i32), Last>>,
    next_number: Cell<u64>,
}

struct Last {
    number: u64,
    /// Ends with the turn.
    over: oneshot::Receiver<()>,
}

impl BatchOrder {
    /// Whether a batch for this partition is on its way to its owner.
    pub fn is_waited_for(&self, topic: &Arc<str>, partition: i32) -> bool {
        let last = self.last.borrow();
        !last.is_empty() && last.contains_key(&(Arc::clone(topic), partition))
    }

    /// Takes the turn behind all that were taken for this partition.
    pub fn join(self: &Rc<Self>, topic: &Arc<str>, partition: i32) -> Turn {
        let number = self.next_number.get();
        self.next_number.set(number + 1);
        let (sender, over) = oneshot::channel();
        let place = (Arc::clone(topic), partition);
        let before = self.last.borrow_mut().insert(place.clone(), Last { number, over });
        Turn { order: Rc::clone(self), place, number, before: before.map(|last| last.over), _over: sender }
    }
}

/// A place in the order; its drop ends it.
pub struct Turn {
    order: Rc<BatchOrder>,
    place: (Arc<str>, i32),
    number: u64,
    /// The one before, until it is over.
    before: Option<oneshot::Receiver<()>>,
    _over: oneshot::Sender<()>,
}

impl Turn {
    /// Waits until the turn before is over.
    pub async fn come(&mut self) {
        if let Some(before) = self.before.take() {
            // Nothing is ever sent: the drop of the other end is the news.
            let _ = before.await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut last = self.order.last.borrow_mut();
        if last.get(&self.place).is_some_and(|last| last.number == self.number) {
            last.remove(&self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn turns_come_in_the_order_they_were_taken_and_each_partition_has_its_own() {
        let order = Rc::new(BatchOrder::default());
        let topic: Arc<str> = "t".into();
        let came = |turn: &mut Turn| {
            let mut coming = pin!(turn.come());
            coming.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
        };
        let mut first = order.join(&topic, 0);
        let (mut second, mut other) = (order.join(&topic, 0), order.join(&topic, 1));
        assert!(came(&mut first) && came(&mut other));
        assert!(order.is_waited_for(&topic, 0) && !order.is_waited_for(&topic, 2));
        let mut waiting = Box::pin(async move {
            second.come().await;
            second
        });
        let mut context = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        drop(first);
        let Poll::Ready(second) = waiting.as_mut().poll(&mut context) else { panic!("its turn has come") };
        assert!(order.is_waited_for(&topic, 0));
        drop((second, other));
        assert!(!order.is_waited_for(&topic, 0) && !order.is_waited_for(&topic, 1));
        assert!(came(&mut order.join(&topic, 0)));
    }
}
