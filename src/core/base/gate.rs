//! Where tasks of any shard wait for what another thread brings about.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Poll, Waker};

/// Tasks that wait until something is so. Whoever changes what they look at calls [`Gate::look_again`]. They are at most as
/// many as there are tasks.
#[derive(Debug, Default)]
pub struct Gate {
    waiting: Mutex<Vec<Waker>>,
    /// Of `waiting`: who opens often need not take the lock.
    count: AtomicUsize,
}

impl Gate {
    /// Resolves once `is_open`, which may look at what other threads write with `SeqCst`.
    pub async fn pass(&self, is_open: impl Fn() -> bool) {
        poll_fn(|context| {
            if is_open() {
                return Poll::Ready(());
            }
            {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                waiting.push(context.waker().clone());
                self.count.store(waiting.len(), Ordering::SeqCst);
            }
            // Whoever has changed it since did not see this task wait.
            if is_open() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Has all who wait look whether they may pass: to be called after each change that may let them.
    pub fn look_again(&self) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let waiting = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            self.count.store(0, Ordering::SeqCst);
            std::mem::take(&mut *waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::task::{Context, Wake};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn who_waits_passes_when_another_thread_has_opened_and_not_before() {
        let (gate, open, woken) = (Gate::default(), AtomicBool::new(false), Arc::new(Woken::default()));
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let mut waiting = pin!(gate.pass(|| open.load(Ordering::SeqCst)));
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        gate.look_again();
        assert!(waiting.as_mut().poll(&mut context).is_pending(), "nothing has changed");
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                open.store(true, Ordering::SeqCst);
                gate.look_again();
            });
        });
        assert_eq!(woken.0.load(Ordering::SeqCst), 2);
        assert!(waiting.as_mut().poll(&mut context).is_ready());
        gate.look_again();
        assert_eq!(woken.0.load(Ordering::SeqCst), 2, "nobody waits any more");
    }
}
