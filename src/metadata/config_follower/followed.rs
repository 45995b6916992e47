//! What a broker lives by, and how a topic's settings are made of its node and the broker's.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::dynamic::ConfigMap;
use crate::config::{DynamicConfig, TopicConfig};
use crate::metadata::shared_map::SharedMap;

/// What this broker lives by. Clones share.
#[derive(Clone, Debug)]
pub struct Followed {
    pub dynamic: Arc<DynamicConfig>,
    pub(super) topics: SharedMap<Arc<str>, TopicSettings>,
}

#[derive(Clone, Debug)]
pub enum TopicSettings {
    Known(Arc<TopicConfig>),
    /// Its node can't be read; the log has the reason.
    Damaged,
}

impl Followed {
    pub fn new(dynamic: Arc<DynamicConfig>) -> Followed {
        Followed { dynamic, topics: SharedMap::new() }
    }

    /// Whether a topic's leader may be one that is not in sync; never where that is not known.
    pub fn is_unclean(&self, name: &str) -> bool {
        matches!(self.topic(name), Some(TopicSettings::Known(config)) if config.unclean_leader_election_enable)
    }

    pub fn set(&mut self, topic: Arc<str>, settings: TopicSettings) {
        self.topics.insert(topic, settings);
    }

    /// `None`: not read yet.
    pub fn topic(&self, name: &str) -> Option<&TopicSettings> {
        self.topics.get(name)
    }
}

/// A topic's settings from its node. What is wrong with them is logged and left out: the topic stays usable, and the tree
/// keeps what it has.
pub(super) fn resolve(topic: &str, overrides: &ConfigMap, defaults: &Arc<TopicConfig>) -> Arc<TopicConfig> {
    if overrides.is_empty() {
        return defaults.clone();
    }
    if let Ok(config) = defaults.with_overrides(overrides) {
        return Arc::new(config);
    }
    let mut good = BTreeMap::new();
    for (name, value) in overrides {
        match defaults.with_overrides(&BTreeMap::from([(name.clone(), value.clone())])) {
            Ok(_) => drop(good.insert(name.clone(), value.clone())),
            Err(error) => tracing::warn!(topic, %error, "a topic config is ignored"),
        }
    }
    // Two that are fine alone may still contradict each other.
    defaults.with_overrides(&good).map_or_else(|_| defaults.clone(), Arc::new)
}
