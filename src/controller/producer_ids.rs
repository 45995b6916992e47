//! Blocks of producer ids (contract: `zookeeper.md` section 10, Kafka 3.9 `ZkProducerIdManager`).
//!
//! The last block given out is in the tree; the next follows it. A block is given once: the write expects the version
//! that was read, and ids of a block that nobody used are lost, which is fine. One proposal runs at a time: two would write
//! the same over the same version, and after a lost reply each would take the other's block for its own (see
//! [`crate::metadata::requests`]).

#![forbid(unsafe_code)]

use crate::metadata::proposal::{Answer, PRODUCER_ID_BLOCK_SIZE, ProducerIdBlock, ProposalError};
use crate::metadata::tree::{Operation, Outcome, Request, RequestError, Stat, TreeError, Version};
use crate::metadata::znodes;

use super::event::{Effect, Ticket, When};
use super::{Controller, Waiting};

impl Controller {
    pub(super) fn allocate_producer_ids(&mut self, ticket: Ticket, effects: &mut Vec<Effect>) {
        self.ask(Request::get(znodes::LATEST_PRODUCER_ID_BLOCK), Waiting::ProducerIdsRead { ticket }, effects);
    }

    pub(super) fn producer_ids_read(
        &mut self,
        ticket: Ticket,
        result: Result<Option<(Vec<u8>, Stat)>, TreeError>,
        effects: &mut Vec<Effect>,
    ) {
        let next = result
            .map_err(|error| error.to_string())
            .and_then(|found| found.ok_or_else(|| format!("no node {}", znodes::LATEST_PRODUCER_ID_BLOCK)))
            .and_then(|(data, stat)| Ok((next_block(&data)?, stat.version)));
        let (block, version) = match next {
            Ok(next) => next,
            Err(reason) => return self.refuse_ids(ticket, ProposalError::Tree(reason), effects),
        };
        let broker_id = self.settings.broker_id;
        let Some(cluster) = self.cluster() else {
            return self.refuse_ids(ticket, ProposalError::NotController, effects);
        };
        let set = Operation::Set {
            path: znodes::LATEST_PRODUCER_ID_BLOCK.to_owned(),
            data: znodes::encode_producer_id_block(broker_id, block),
            version: Version::Exactly(version),
        };
        let operations = vec![cluster.fence(), set];
        self.write(operations, Waiting::ProducerIdsWritten { ticket, block }, effects);
    }

    pub(super) fn producer_ids_written(
        &mut self,
        ticket: Ticket,
        block: ProducerIdBlock,
        result: Result<Vec<Outcome>, RequestError>,
        effects: &mut Vec<Effect>,
    ) {
        let failed = match result {
            Ok(_) => return self.answer(ticket, Answer::AllocateProducerIds(block), When::Now, effects),
            Err(failed) => failed,
        };
        if !self.survives(&failed, effects) {
            let error = self.refusal().unwrap_or(ProposalError::NotController);
            return self.refuse_ids(ticket, error, effects);
        }
        match failed.error {
            // Another took that block: look again.
            TreeError::BadVersion(_) => self.allocate_producer_ids(ticket, effects),
            other => self.refuse_ids(ticket, ProposalError::Tree(other.to_string()), effects),
        }
    }

    fn refuse_ids(&mut self, ticket: Ticket, error: ProposalError, effects: &mut Vec<Effect>) {
        self.answer(ticket, Answer::Failed(error), When::Now, effects);
    }
}

fn next_block(data: &[u8]) -> Result<ProducerIdBlock, String> {
    let last = znodes::decode_producer_id_block(data).map_err(|error| error.to_string())?;
    let start = last.map_or(Some(0), |block| block.last.checked_add(1));
    let block =
        start.and_then(|start| Some(ProducerIdBlock { start, last: start.checked_add(PRODUCER_ID_BLOCK_SIZE - 1)? }));
    block.ok_or_else(|| "all producer ids are used".to_owned())
}
