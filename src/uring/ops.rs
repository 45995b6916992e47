//! One file per kernel operation: each builds its entry and says what it owns meanwhile.
//!
//! Each waits for room in the submission queue first ([`Ring::room`](super::Ring)), so that a full one is no error, and
//! is tried again where it was interrupted.

use std::io;

pub mod accept;
pub mod connect;
pub mod poll;
pub mod read;
pub mod receive;
pub mod send;
pub mod write;

/// How often one operation is begun anew before what keeps it from being done is its result.
const TRIES_MAX: u32 = 16;

/// Whether an operation did nothing for a reason that may be gone the next time: a signal to the worker that had it
/// (EINTR), or nobody to do it (EAGAIN).
pub(super) fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}

/// Counts the tries of one operation.
#[derive(Default)]
pub(super) struct Tries(u32);

impl Tries {
    /// The result, or `None`: it is to be tried again.
    pub fn settle<T>(&mut self, result: io::Result<T>) -> Option<io::Result<T>> {
        self.0 += 1;
        match &result {
            Err(error) if is_passing(error) && self.0 < TRIES_MAX => None,
            _ => Some(result),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_operation_is_begun_anew_a_bounded_number_of_times_and_another_error_is_its_result() {
        for code in [libc::EINTR, libc::EAGAIN] {
            let mut tries = Tries::default();
            let failing = || Err::<(), _>(io::Error::from_raw_os_error(code));
            assert!((1..TRIES_MAX).all(|_| tries.settle(failing()).is_none()), "{code}");
            assert!(tries.settle(failing()).is_some_and(|result| result.is_err()));
            let mut tries = Tries::default();
            assert!(tries.settle(failing()).is_none() && tries.settle(Ok(())).is_some_and(|result| result.is_ok()));
        }
        for code in [libc::EIO, libc::ENOMEM, libc::ECANCELED] {
            assert!(Tries::default().settle(Err::<(), _>(io::Error::from_raw_os_error(code))).is_some(), "{code}");
        }
    }
}
