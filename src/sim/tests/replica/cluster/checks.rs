//! What must be so at every moment, and when all has come to rest.

use super::*;

impl Cluster {
    /// Takes note of the high watermark that a leader shows to consumers: under one leader of one epoch it never falls.
    pub fn note_shown(&self, leader: &Replica) {
        let epoch = leader.partition.leader_epoch();
        let Ok(Offsets { high_watermark, .. }) = leader.partition.leader_offsets(epoch) else { return };
        let (shown_epoch, shown) = leader.shown.replace((epoch, high_watermark));
        if shown_epoch == epoch && high_watermark < shown {
            let broken = format!("the high watermark fell from {shown} to {high_watermark} under epoch {epoch}");
            self.state.borrow_mut().broken.get_or_insert(broken);
        }
    }

    /// Every batch lies under the epoch that it was queued under, what was promised is there, and no leader's high
    /// watermark has fallen.
    pub fn check(&self) -> Result<(), String> {
        everybody().into_iter().filter_map(|id| self.running(id)).for_each(|replica| self.note_shown(&replica));
        if let Some(broken) = self.state.borrow_mut().broken.take() {
            return Err(broken);
        }
        let Some(leader) = self.leader() else { return Ok(()) };
        let found = self.records(&leader);
        for (offset, epoch, value) in &found {
            if let Some(queued_under) = Ledger::epoch_of(value)
                && queued_under != *epoch
            {
                return Err(format!("offset {offset} was queued under epoch {queued_under} and lies under {epoch}"));
            }
        }
        self.ledger.borrow().check(&found)
    }

    /// Lets everything come to rest: the logs are the same then, to the last offset, and so is what they know.
    pub fn settle(&self) -> Result<(), String> {
        self.ledger.borrow_mut().stop();
        let all: Vec<_> = everybody().into_iter().map(|id| self.running(id).expect("all run")).collect();
        self.wait_until("agreement", || {
            let epoch = self.state.borrow().leader_epoch;
            let leader = self.leader().expect("it runs");
            let end = offsets(&leader).log_end;
            let is_there = |replica: &Rc<Replica>| {
                let now = offsets(replica);
                now.log_end == end && now.high_watermark == end && replica.partition.leader_epoch() == epoch
            };
            all.iter().all(is_there) && self.state.borrow().isr.len() == all.len()
        })?;
        let first = self.records(&all[0]);
        for other in &all[1..] {
            if self.records(other) != first {
                return Err("the logs differ".to_owned());
            }
            if offsets(other) != offsets(&all[0]) {
                return Err(format!("the offsets differ: {:?} and {:?}", offsets(other), offsets(&all[0])));
            }
            let open = |replica: &Rc<Replica>| {
                let producers = replica.partition.active_producers().expect("open");
                let open = producers.into_iter().map(|one| (one.producer_id, one.transaction_first_offset));
                open.collect::<Vec<_>>()
            };
            if open(other) != open(&all[0]) {
                return Err("what is known of producers differs".to_owned());
            }
        }
        Ok(())
    }

    /// All records of a replica's log, with the epochs that their batches name.
    pub fn records(&self, replica: &Replica) -> Vec<Found> {
        let Offsets { log_start, log_end, .. } = offsets(replica);
        let directory = Path::new(LOG_DIR).join(topic_partition().to_string());
        let is_log =
            |path: &PathBuf| path.starts_with(&directory) && path.extension().is_some_and(|name| name == "log");
        let mut found = Vec::new();
        for path in replica.disk.paths().into_iter().filter(is_log) {
            let bytes = replica.disk.contents(&path).expect("a log");
            for (header, batch) in batches(&bytes).map_while(Result::ok) {
                let all = decode_records(batch, 1 << 20).expect("sound");
                let is_in = |record: &Record| (log_start..log_end).contains(&record.offset);
                let value = |record: Record| {
                    let value = record.value.map_or_else(Vec::new, |value| value.to_vec());
                    (record.offset, header.leader_epoch, value)
                };
                found.extend(all.into_iter().filter(is_in).map(value));
            }
        }
        found
    }
}
