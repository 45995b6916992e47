//! A broker's entry into the cluster: the paths everyone expects, the cluster's id, and its own ephemeral node.

#![forbid(unsafe_code)]

use std::sync::Arc;

use base64::Engine as _;
use thiserror::Error;

use crate::base::ids::BrokerId;
use crate::base::time::WallMs;

use super::ask::Ask;
use super::inputs::BrokerImage;
use super::tree::{CreateMode, MetadataTree, Operation, Outcome, TreeError, Version, Watch};
use super::znodes::{self, BadValue};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub cluster_id: Arc<str>,
    /// czxid of the broker's node: larger for every later registration.
    pub broker_epoch: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RegistrationError {
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Value(#[from] BadValue),
    #[error("another live broker is registered as broker.id {}", .0.0)]
    IdInUse(BrokerId),
}

/// Registers `broker`; durable, and seen by others, on return. `random` makes the id of a new cluster.
pub async fn register(
    tree: &impl MetadataTree,
    broker: &BrokerImage,
    wall: WallMs,
    random: &mut dyn FnMut() -> u64,
) -> Result<Registration, RegistrationError> {
    make_paths(tree).await?;
    let cluster_id = cluster_id(tree, random).await?.into();
    let broker_epoch = register_broker(tree, broker, wall).await?;
    Ok(Registration { cluster_id, broker_epoch })
}

/// Makes what is missing of [`znodes::PERSISTENT_PATHS`].
async fn make_paths(tree: &impl MetadataTree) -> Result<(), TreeError> {
    loop {
        let mut missing = Vec::new();
        for path in znodes::PERSISTENT_PATHS {
            if tree.exists(path, Watch::None).await?.is_none() {
                let mode = CreateMode::Persistent;
                missing.push(Operation::Create { path: path.to_owned(), data: Vec::new(), mode });
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        match tree.multi(missing).await {
            Ok(_) => return Ok(()),
            // Another broker starts too; each round finds fewer missing.
            Err(failed) if matches!(failed.error, TreeError::NodeExists(_)) => {}
            Err(failed) => return Err(failed.error),
        }
    }
}

async fn cluster_id(tree: &impl MetadataTree, random: &mut dyn FnMut() -> u64) -> Result<String, RegistrationError> {
    match tree.get(znodes::CLUSTER_ID, Watch::None).await {
        Ok((data, _)) => return Ok(znodes::decode_cluster_id(&data)?),
        Err(TreeError::NoNode(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let bytes = [random().to_be_bytes(), random().to_be_bytes()].concat();
    let id = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    match tree.create(znodes::CLUSTER_ID, &znodes::encode_cluster_id(&id), CreateMode::Persistent).await {
        Ok(_) => Ok(id),
        Err(TreeError::NodeExists(_)) => {
            let (data, _) = tree.get(znodes::CLUSTER_ID, Watch::None).await?;
            Ok(znodes::decode_cluster_id(&data)?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Made empty and then set, in one multi: Kafka does so, and its brokers' nodes have data version 1.
async fn register_broker(
    tree: &impl MetadataTree,
    broker: &BrokerImage,
    wall: WallMs,
) -> Result<i64, RegistrationError> {
    let path = znodes::broker_path(broker.id);
    let operations = vec![
        Operation::Create { path: path.clone(), data: Vec::new(), mode: CreateMode::Ephemeral },
        Operation::Set { path: path.clone(), data: znodes::encode_broker(broker, wall), version: Version::Exactly(0) },
    ];
    match tree.multi(operations).await {
        Ok(outcomes) => match outcomes.first() {
            Some(Outcome::Created(_, stat)) => Ok(stat.czxid),
            other => unreachable!("a create answered {other:?}"),
        },
        Err(failed) if matches!(failed.error, TreeError::NodeExists(_)) => Err(RegistrationError::IdInUse(broker.id)),
        Err(failed) => Err(failed.error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::embedded::EmbeddedTree;
    use super::super::thread::block_on;
    use super::*;

    fn register_at(tree: &EmbeddedTree) -> Result<Registration, RegistrationError> {
        let broker = BrokerImage { id: BrokerId(1), endpoints: vec![], rack: None };
        let mut random = 0;
        block_on(register(tree, &broker, 1, &mut || {
            random += 1;
            random
        }))
    }

    #[test]
    fn a_cluster_keeps_its_id_and_a_broker_gets_a_larger_epoch_each_time() {
        let tree = EmbeddedTree::in_memory().unwrap();
        let first = register_at(&tree).unwrap();
        assert_eq!(first.cluster_id.len(), 22);
        let (_, stat) = block_on(tree.get("/brokers/ids/1", Watch::None)).unwrap();
        assert_eq!((stat.version, stat.czxid), (1, first.broker_epoch));
        assert_eq!(register_at(&tree), Err(RegistrationError::IdInUse(BrokerId(1))));

        let tree = tree.reopen().unwrap();
        let second = register_at(&tree).unwrap();
        assert_eq!(second.cluster_id, first.cluster_id);
        assert!(second.broker_epoch > first.broker_epoch);
    }
}
