//! Proposals under way: each is answered once, when the last of its parts is decided.

#![forbid(unsafe_code)]

use crate::metadata::proposal::{Answer, TopicRefusal};

use super::Controller;
use super::event::{Effect, Ticket, When};

/// A proposal of several parts, until the last is decided.
pub struct Open {
    /// As far as it is known.
    answer: Answer,
    undecided: usize,
    when: When,
}

impl Controller {
    /// Waits until `undecided` parts of a proposal are decided. If there are none, `answer` is the last word, and leaves now.
    pub(super) fn open(
        &mut self,
        ticket: Ticket,
        answer: Answer,
        undecided: usize,
        when: When,
        effects: &mut Vec<Effect>,
    ) {
        match undecided {
            0 => self.answer(ticket, answer, When::Now, effects),
            _ => drop(self.open.insert(ticket, Open { answer, undecided, when })),
        }
    }

    /// So many parts of a proposal are decided, as `note` puts down. Answers if these were the last.
    pub(super) fn decide(
        &mut self,
        ticket: Ticket,
        count: usize,
        note: impl FnOnce(&mut Answer),
        effects: &mut Vec<Effect>,
    ) {
        let open = self.open.get_mut(&ticket).expect("what is decided is under way");
        note(&mut open.answer);
        open.undecided -= count;
        if open.undecided == 0
            && let Some(Open { answer, when, .. }) = self.open.remove(&ticket)
        {
            self.answer(ticket, answer, when, effects);
        }
    }

    /// The same for topics of a proposal, each with its place in the results.
    pub(super) fn decide_topics(
        &mut self,
        ticket: Ticket,
        outcomes: Vec<(usize, Result<(), TopicRefusal>)>,
        effects: &mut Vec<Effect>,
    ) {
        let note = |answer: &mut Answer, index: usize, refusal| match answer {
            Answer::CreateTopics(results) => results[index].outcome = Err(refusal),
            Answer::DeleteTopics(results) => results[index].outcome = Err(refusal),
            Answer::CreatePartitions(results) => results[index] = Err(refusal),
            other => unreachable!("{other:?} is not about topics"),
        };
        let count = outcomes.len();
        let note_all = |answer: &mut Answer| {
            for (index, outcome) in outcomes {
                if let Err(refusal) = outcome {
                    note(answer, index, refusal);
                }
            }
        };
        self.decide(ticket, count, note_all, effects);
    }

    /// Answers a proposal; if others waited for its end, the next of them begins.
    pub(super) fn answer(&mut self, ticket: Ticket, answer: Answer, when: When, effects: &mut Vec<Effect>) {
        if self.serial_running == Some(ticket) {
            self.serial_running = None;
        }
        effects.push(Effect::Answer { ticket, answer, when });
    }
}
