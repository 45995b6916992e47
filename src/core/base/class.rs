//! Classes of back-pressure: what one of them fills keeps no other from going on.

/// Whose work a request or a message is. Each class has bytes of requests and of answers, mailbox credits and queues of its
/// own, so that clients that wait for a replica can't take what that replica's fetch needs, nor either of them what a
/// controller does. A bound is each class's: all together may hold as many times as much as there are classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Client,
    /// What followers ask of a leader: fetches, and where their logs part.
    Replication,
    /// What keeps the broker and its cluster in order. Nothing that is served is of this class yet, so nothing is held of what
    /// is its own.
    Control,
}

impl Class {
    /// The most urgent first: it is also the one that sends least.
    pub const ALL: [Class; 3] = [Class::Control, Class::Replication, Class::Client];
}

/// One of something for each class.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByClass<T> {
    pub client: T,
    pub replication: T,
    pub control: T,
}

impl<T> ByClass<T> {
    pub fn of(make: impl Fn(Class) -> T) -> ByClass<T> {
        ByClass { client: make(Class::Client), replication: make(Class::Replication), control: make(Class::Control) }
    }

    pub fn get(&self, class: Class) -> &T {
        match class {
            Class::Client => &self.client,
            Class::Replication => &self.replication,
            Class::Control => &self.control,
        }
    }
}
