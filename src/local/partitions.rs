//! The partitions that one shard owns, by topic and number.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::rc::Rc;
use std::sync::Arc;

use crate::base::ids::TopicPartition;
use crate::executor::yield_now;
use crate::partition::Partition;
use crate::platform::Platform;

/// Partitions that are looked at before others get their turn.
const PARTITIONS_A_TURN: usize = 256;

pub struct Partitions<P: Platform> {
    by_topic: RefCell<BTreeMap<Arc<str>, BTreeMap<i32, Rc<Partition<P>>>>>,
}

impl<P: Platform> Default for Partitions<P> {
    fn default() -> Partitions<P> {
        Partitions { by_topic: RefCell::default() }
    }
}

impl<P: Platform> Partitions<P> {
    pub fn get(&self, topic: &str, partition: i32) -> Option<Rc<Partition<P>>> {
        self.by_topic.borrow().get(topic)?.get(&partition).cloned()
    }

    pub fn add(&self, partition: Rc<Partition<P>>) {
        let TopicPartition { topic, partition: index } = partition.topic_partition.clone();
        self.by_topic.borrow_mut().entry(topic).or_default().insert(index, partition);
    }

    pub fn remove(&self, gone: &TopicPartition) -> Option<Rc<Partition<P>>> {
        let mut by_topic = self.by_topic.borrow_mut();
        let topic = by_topic.get_mut(&gone.topic)?;
        let removed = topic.remove(&gone.partition);
        if topic.is_empty() {
            by_topic.remove(&gone.topic);
        }
        removed
    }

    /// Those of one topic.
    pub fn of_topic(&self, topic: &str) -> Vec<Rc<Partition<P>>> {
        self.by_topic.borrow().get(topic).map_or_else(Vec::new, |topic| topic.values().cloned().collect())
    }

    /// All of them. Of many that alone takes milliseconds, which a stop or a failure may.
    pub fn all(&self) -> Vec<Rc<Partition<P>>> {
        self.by_topic.borrow().values().flat_map(|topic| topic.values().cloned()).collect()
    }

    /// Shows `look` each of them. Others get their turn in between: one that is made or removed meanwhile is shown or not.
    pub async fn each(&self, mut look: impl FnMut(&Rc<Partition<P>>)) {
        let mut some = self.behind(None);
        while let Some(last) = some.last().map(|partition| partition.topic_partition.clone()) {
            some.iter().for_each(&mut look);
            yield_now().await;
            some = self.behind(Some(&last));
        }
    }

    /// The next [`PARTITIONS_A_TURN`] of them, in order of topic and number.
    fn behind(&self, last: Option<&TopicPartition>) -> Vec<Rc<Partition<P>>> {
        let by_topic = self.by_topic.borrow();
        let rest_of_topic = last
            .and_then(|last| Some(by_topic.get(&last.topic)?.range((Excluded(last.partition), Unbounded))))
            .into_iter()
            .flatten();
        let topics = match last {
            Some(last) => by_topic.range::<Arc<str>, _>((Excluded(&last.topic), Unbounded)),
            None => by_topic.range::<Arc<str>, _>(..),
        };
        let behind = rest_of_topic.chain(topics.flat_map(|(_, topic)| topic.range(..)));
        behind.take(PARTITIONS_A_TURN).map(|(_, partition)| Rc::clone(partition)).collect()
    }
}
