//! How many connections there may be, in all, on one listener and from one address, and how fast new ones come.
//!
//! One for the process (Kafka 3.9 `ConnectionQuotas`): asked when a connection is accepted and told when it ends, never in
//! between. Where there is no room, or they come too fast, accepting waits and the kernel's backlog fills; from an address
//! that has its number already, a connection is closed at once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use crate::base::time::Monotonic;
use crate::config::ConnectionQuotaLimits;
use crate::config::connections::UNLIMITED;

/// How many seconds of its rate a listener that was quiet may take at once.
const BURST_SECONDS: u64 = 1;

#[derive(Debug)]
pub struct ConnectionQuotas {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limits: ConnectionQuotaLimits,
    connections: u32,
    by_listener: Vec<u32>,
    by_address: HashMap<IpAddr, u32>,
    created: Pace,
    created_by_listener: Vec<Pace>,
    /// Listeners that wait for room.
    waiting: Vec<Waker>,
}

/// When the next connection may come, if they come at a rate.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    next: Monotonic,
}

impl Pace {
    /// From when on one may come; `None`: now.
    fn wait(self, now: Monotonic, rate: u32) -> Option<Monotonic> {
        // Not when the one after all of the burst would come, or they would come in gusts.
        let from = Monotonic(self.next.0.saturating_sub(BURST_SECONDS * 1_000_000_000));
        (rate != UNLIMITED && from > now).then_some(from)
    }

    fn take(&mut self, now: Monotonic, rate: u32) {
        if rate != UNLIMITED {
            self.next = self.next.max(now) + Duration::from_secs(1) / rate.max(1);
        }
    }
}

/// What becomes of the next connection of a listener.
#[derive(Debug)]
pub enum Entry {
    Admitted(ConnectionPermit),
    /// Its address has too many: close it.
    TooManyFromAddress(u32),
}

/// Why a listener must not accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Until a connection ends.
    Connections,
    /// Until then.
    Rate(Monotonic),
}

/// A connection's place, given back by drop.
#[derive(Debug)]
pub struct ConnectionPermit {
    quotas: Arc<ConnectionQuotas>,
    listener: usize,
    address: IpAddr,
}

impl ConnectionQuotas {
    pub fn new(limits: ConnectionQuotaLimits) -> Arc<ConnectionQuotas> {
        let listeners = limits.listener_connections_max.len();
        let state = State {
            limits,
            connections: 0,
            by_listener: vec![0; listeners],
            by_address: HashMap::new(),
            created: Pace::default(),
            created_by_listener: vec![Pace::default(); listeners],
            waiting: Vec::new(),
        };
        Arc::new(ConnectionQuotas { state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Other limits from now on; connections that there are stay.
    pub fn set_limits(&self, limits: &ConnectionQuotaLimits) {
        let mut state = self.state();
        if state.limits != *limits {
            state.limits = limits.clone();
            state.waiting.drain(..).for_each(Waker::wake);
        }
    }

    /// Whether a listener may accept one more now. Where it must wait for a connection to end, `waker` is woken then.
    pub fn room(&self, listener: usize, now: Monotonic, waker: &Waker) -> Result<(), Full> {
        let mut state = self.state();
        let limits = &state.limits;
        let is_full = state.connections >= limits.connections_max
            || state.by_listener[listener] >= limits.listener_connections_max[listener];
        if is_full {
            state.waiting.retain(|waiting| !waiting.will_wake(waker));
            state.waiting.push(waker.clone());
            return Err(Full::Connections);
        }
        let pace = state.created.wait(now, limits.creation_rate);
        let listener_pace = state.created_by_listener[listener].wait(now, limits.listener_creation_rate[listener]);
        pace.max(listener_pace).map_or(Ok(()), |until| Err(Full::Rate(until)))
    }

    /// Counts an accepted connection in.
    pub fn enter(self: &Arc<Self>, listener: usize, address: IpAddr, now: Monotonic) -> Entry {
        // An IPv4 client of an IPv6 listener is the same client.
        let address = address.to_canonical();
        let mut state = self.state();
        let State { limits, connections, by_listener, by_address, created, created_by_listener, .. } = &mut *state;
        created.take(now, limits.creation_rate);
        created_by_listener[listener].take(now, limits.listener_creation_rate[listener]);
        let most = *limits.address_overrides.get(&address).unwrap_or(&limits.address_connections_max);
        let of_address = by_address.entry(address).or_default();
        if *of_address >= most {
            if *of_address == 0 {
                by_address.remove(&address);
            }
            return Entry::TooManyFromAddress(most);
        }
        *of_address += 1;
        *connections += 1;
        by_listener[listener] += 1;
        Entry::Admitted(ConnectionPermit { quotas: Arc::clone(self), listener, address })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut state = self.quotas.state();
        state.connections -= 1;
        state.by_listener[self.listener] -= 1;
        if let Some(of_address) = state.by_address.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                state.by_address.remove(&self.address);
            }
        }
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const START: Monotonic = Monotonic(1_000_000_000_000);

    fn limits() -> ConnectionQuotaLimits {
        ConnectionQuotaLimits {
            connections_max: UNLIMITED,
            listener_connections_max: vec![UNLIMITED; 2],
            address_connections_max: UNLIMITED,
            address_overrides: BTreeMap::new(),
            creation_rate: UNLIMITED,
            listener_creation_rate: vec![UNLIMITED; 2],
        }
    }

    fn room(quotas: &Arc<ConnectionQuotas>, listener: usize, now: Monotonic) -> Result<(), Full> {
        quotas.room(listener, now, Waker::noop())
    }

    fn enter(quotas: &Arc<ConnectionQuotas>, listener: usize, address: IpAddr) -> ConnectionPermit {
        match quotas.enter(listener, address, START) {
            Entry::Admitted(permit) => permit,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_full_broker_or_listener_has_room_again_when_a_connection_ends() {
        let quotas = ConnectionQuotas::new(ConnectionQuotaLimits {
            connections_max: 3,
            listener_connections_max: vec![2, UNLIMITED],
            ..limits()
        });
        let first = enter(&quotas, 0, HERE);
        let second = enter(&quotas, 0, HERE);
        assert_eq!((room(&quotas, 0, START), room(&quotas, 1, START)), (Err(Full::Connections), Ok(())));
        let third = enter(&quotas, 1, THERE);
        assert_eq!(room(&quotas, 1, START), Err(Full::Connections));
        drop(first);
        assert_eq!((room(&quotas, 0, START), room(&quotas, 1, START)), (Ok(()), Ok(())));
        drop((second, third));
        assert_eq!(quotas.state().connections, 0);
        assert!(quotas.state().by_address.is_empty());
    }

    #[test]
    fn an_address_has_its_number_or_its_own_one_and_others_do_not_count() {
        let v6 = "::ffff:127.0.0.1".parse().unwrap();
        let overrides = BTreeMap::from([(THERE, 0)]);
        let quotas = ConnectionQuotas::new(ConnectionQuotaLimits {
            address_connections_max: 1,
            address_overrides: overrides,
            ..limits()
        });
        let held = enter(&quotas, 0, HERE);
        assert!(matches!(quotas.enter(1, v6, START), Entry::TooManyFromAddress(1)));
        assert!(matches!(quotas.enter(0, THERE, START), Entry::TooManyFromAddress(0)));
        drop(held);
        enter(&quotas, 1, v6);
    }

    #[test]
    fn connections_come_at_their_rate_with_a_second_of_it_at_once() {
        let quotas = ConnectionQuotas::new(ConnectionQuotaLimits { creation_rate: 10, ..limits() });
        let mut held = Vec::new();
        let mut now = START;
        let mut count = 0;
        while now.since(START) < Duration::from_secs(5) {
            match quotas.room(0, now, Waker::noop()) {
                Ok(()) => {
                    count += 1;
                    held.push(quotas.enter(0, HERE, now));
                }
                Err(Full::Rate(until)) => now = until,
                Err(Full::Connections) => panic!("no such limit"),
            }
        }
        assert!((40..=75).contains(&count), "{count} in five seconds");
    }

    #[test]
    fn other_limits_hold_at_once_and_wake_who_waits() {
        let quotas = ConnectionQuotas::new(ConnectionQuotaLimits { connections_max: 0, ..limits() });
        assert_eq!(room(&quotas, 0, START), Err(Full::Connections));
        quotas.set_limits(&limits());
        assert!(quotas.state().waiting.is_empty());
        assert_eq!(room(&quotas, 0, START), Ok(()));
    }
}
