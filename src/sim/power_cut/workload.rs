//! What a seed's process does between two cuts: one step after the other, by the dice.

use super::*;

/// One seed's process, ended and started again and again.
pub struct Workload {
    pub shared: Rc<Shared>,
    pub shape: Shape,
    pub plant: Option<Plant>,
    pub dice: Dice,
    pub directory: Directory,
    pub topics_made: u8,
}

impl Workload {
    pub fn step(&mut self) -> Outcome<()> {
        let (topic, partition) = LOGS[self.dice.below(LOGS.len() as u64) as usize];
        let tp = TopicPartition { topic: topic.into(), partition };
        let Some(batch_count) = self.shared.model.borrow().get(&tp).map(LogModel::batch_count) else {
            return self.create(&tp);
        };
        if batch_count > self.shape.log_batches_max {
            return self.delete(&tp);
        }
        match self.dice.below(100) {
            0..=48 => self.append(&tp),
            49..=61 => self.flush(&tp),
            62..=67 => self.roll(&tp),
            68..=74 => self.checkpoint(&tp),
            75..=78 => self.new_reign(&tp),
            79..=81 => self.stop(),
            82..=83 => self.end_and_start(self.directory.disk().restart(), Keeps::Written),
            84 => self.kill_within_append(&tp),
            85..=88 => {
                let cut = self.directory.disk().power_cut(self.dice.next_u64());
                self.end_and_start(cut, Keeps::Flushed)
            }
            89..=96 if is_compacted(&tp) => self.compact(&tp),
            89..=92 => self.retain(&tp),
            93..=96 => self.delete_records(&tp),
            _ => self.delete(&tp),
        }
    }

    fn create(&mut self, tp: &TopicPartition) -> Outcome<()> {
        self.topics_made += 1;
        let topic_id = TopicId([self.topics_made; 16]);
        let log = if is_compacted(tp) { LogModel::compacted(topic_id) } else { LogModel::new(topic_id) };
        self.shared.model.borrow_mut().insert(tp.clone(), log);
        self.directory.create(tp, topic_id)?;
        self.directory.assign_epoch(tp, 0)
    }

    /// Tells the model of a log.
    fn tell<T>(&self, tp: &TopicPartition, what: impl FnOnce(&mut LogModel) -> T) -> T {
        what(self.shared.model.borrow_mut().get_mut(tp).expect("a log that is there"))
    }

    fn append(&mut self, tp: &TopicPartition) -> Outcome<()> {
        let (count, sizes) = (1 + self.dice.below(self.shape.batches_max), self.shape.sizes);
        let log = self.shared.model.borrow()[tp].clone();
        let batches = log.new_batches(count, sizes, &mut self.dice);
        let shared = Rc::clone(&self.shared);
        self.directory.append(tp, batches, log.leader_epoch, |batch, base_offset| {
            shared.model.borrow_mut().get_mut(tp).expect("a log that is there").staged(batch, base_offset);
        })?;
        self.tell(tp, LogModel::written);
        Ok(())
    }

    /// A part of the last write is in the file, and nobody was told of it.
    fn kill_within_append(&mut self, tp: &TopicPartition) -> Outcome<()> {
        let written = self.dice.below(400) as usize;
        let fault = Fault::Append { kind: ErrorKind::Interrupted, written };
        self.directory.disk().inject(fault.under(partition_directory(tp)));
        match self.append(tp) {
            Err(_) => self.end_and_start(self.directory.disk().restart(), Keeps::Written),
            Ok(()) => Err("a write that was cut off was reported as written".into()),
        }
    }

    /// What may come between the halves of something longer.
    fn meanwhile(&mut self, tp: &TopicPartition) -> Outcome<()> {
        match self.dice.below(4) {
            0 => self.append(tp),
            1 => self.roll(tp),
            _ => Ok(()),
        }
    }

    fn flush(&mut self, tp: &TopicPartition) -> Outcome<()> {
        let is_whole = self.dice.below(self.shape.flushes_per_whole) == 0;
        let flush = match is_whole {
            true => Some(self.directory.begin_flush(tp)),
            false => self.directory.begin_flush_closed(tp),
        };
        let Some(flush) = flush else { return Ok(()) };
        if self.plant == Some(Plant::AcknowledgedBeforeSync) {
            self.tell(tp, |log| log.flushed(log.end_offset()));
        }
        self.meanwhile(tp)?;
        let flushed = run(flush);
        self.meanwhile(tp)?;
        let flushed_offset = self.directory.finish_flush(tp, flushed)?;
        self.tell(tp, |log| log.flushed(flushed_offset));
        Ok(())
    }

    fn roll(&mut self, tp: &TopicPartition) -> Outcome<()> {
        // Only a segment that holds something is rolled; without a batch since the last roll there is none.
        match self.directory.can_roll(tp) {
            true => self.directory.roll(tp),
            false => Ok(()),
        }
    }

    fn checkpoint(&mut self, tp: &TopicPartition) -> Outcome<()> {
        let mut checkpoints = self.directory.checkpoints();
        if self.plant == Some(Plant::CheckpointBeforeFlush) {
            checkpoints.iter_mut().for_each(|checkpoint| checkpoint.recovery_point = checkpoint.high_watermark);
        }
        self.meanwhile(tp)?;
        self.write_checkpoints(&checkpoints)?;
        if self.plant == Some(Plant::CheckpointBeforeFlush) {
            let all: Vec<_> = self.shared.model.borrow().keys().cloned().collect();
            all.iter().try_for_each(|tp| self.flush(tp))?;
        }
        Ok(())
    }

    fn write_checkpoints(&self, checkpoints: &[LogCheckpoint]) -> Outcome<()> {
        self.directory.write_checkpoints(checkpoints)?;
        for checkpoint in checkpoints {
            if let Some(log) = self.shared.model.borrow_mut().get_mut(&checkpoint.topic_partition) {
                log.start_written(checkpoint.log_start_offset);
            }
        }
        Ok(())
    }

    /// What is flushed may be given up; what is not could be lost, and the log with it.
    fn delete_records(&mut self, tp: &TopicPartition) -> Outcome<()> {
        let flushed = self.tell(tp, |log| log.flushed_offset());
        let offset = self.dice.below(flushed as u64 + 1) as Offset;
        self.tell(tp, |log| log.start_moves(offset));
        self.directory.delete_records(tp, offset);
        Ok(())
    }

    fn retain(&mut self, tp: &TopicPartition) -> Outcome<()> {
        let segment_bytes = u64::from(self.shape.config.segment_bytes);
        let retention_bytes = self.dice.below(3 * segment_bytes) as i64 - segment_bytes as i64 / 2;
        let shared = Rc::clone(&self.shared);
        self.directory.retain(tp, retention_bytes.max(0), |start| {
            shared.model.borrow_mut().get_mut(tp).expect("a log that is there").start_moves(start);
        })?;
        let log = self.directory.log(tp);
        let (flushed, first) = (log.flushed_offset(), log.first_segment_offset());
        self.tell(tp, |log| {
            log.flushed(flushed);
            log.start_written(first);
        });
        Ok(())
    }

    fn compact(&mut self, tp: &TopicPartition) -> Outcome<()> {
        let shared = Rc::clone(&self.shared);
        self.directory.compact(tp, |below| {
            shared.model.borrow_mut().get_mut(tp).expect("a log that is there").cleaning_begins(below);
        })
    }

    fn new_reign(&mut self, tp: &TopicPartition) -> Outcome<()> {
        let epoch = self.tell(tp, |log| {
            log.leader_epoch += 1;
            log.leader_epoch
        });
        self.directory.assign_epoch(tp, epoch)
    }

    fn stop(&mut self) -> Outcome<()> {
        let early = self.plant == Some(Plant::MarkerBeforeClose);
        if early {
            self.directory.write_clean_shutdown()?;
        }
        let shared = Rc::clone(&self.shared);
        let checkpoints = self.directory.close_logs(|tp, end_offset: Offset| {
            shared.model.borrow_mut().get_mut(tp).expect("a log that is there").flushed(end_offset);
        })?;
        self.write_checkpoints(&checkpoints)?;
        if !early {
            self.directory.write_clean_shutdown()?;
        }
        self.end_and_start(self.directory.disk().restart(), Keeps::Written)
    }

    /// Starts on what the last process left.
    fn end_and_start(&mut self, disk: FakeDisk, keeps: Keeps) -> Outcome<()> {
        let disk = disk.with_watch(watch(&self.shared));
        if keeps == Keeps::Flushed {
            self.shared.model.borrow_mut().values_mut().for_each(LogModel::power_went);
        }
        let expected = self.shared.model.borrow().clone();
        if keeps == Keeps::Written {
            look(&disk.restart(), &self.shape.config, &expected, &mut self.dice, (Keeps::Written, true))?;
        }
        let indexes_first = self.directory.indexes_first;
        self.directory = Directory::start(&disk, &self.shape.config, wanted(&expected))?;
        self.directory.indexes_first = indexes_first;
        for (tp, log) in &expected {
            let found = self.directory.log(tp);
            let (end_offset, flushed_offset) = (found.log_end_offset(), found.flushed_offset());
            let start_offset = found.log_start_offset();
            if keeps == Keeps::Written && end_offset < log.written_offset() {
                return Err(format!("{tp} ends at {end_offset}, written was {}", log.written_offset()));
            }
            let reigns = self.dice.below(2) as i32;
            self.tell(tp, |log| {
                log.cut_to(end_offset);
                log.flushed(flushed_offset);
                log.started_at(start_offset);
                log.leader_epoch += reigns;
            });
        }
        for (tp, log) in expected.iter().filter(|(tp, _)| is_compacted(tp) && keeps == Keeps::Flushed) {
            let (end, found) = (self.directory.log(tp).log_end_offset(), read_compacted(&mut self.directory, tp)?);
            if log.has_hole_in(&found, end) {
                self.delete(tp)?;
            }
        }
        for tp in expected.keys().filter(|tp| self.shared.model.borrow().contains_key(tp)).collect::<Vec<_>>() {
            let epoch = self.tell(tp, |log| log.leader_epoch);
            self.directory.assign_epoch(tp, epoch)?;
        }
        Ok(())
    }

    fn delete(&mut self, tp: &TopicPartition) -> Outcome<()> {
        self.shared.model.borrow_mut().remove(tp);
        self.directory.delete(tp)?;
        match self.plant {
            Some(Plant::RecoveryPointOutlivesItsLog) => Ok(()),
            _ => self.write_checkpoints(&self.directory.checkpoints()),
        }
    }
}
