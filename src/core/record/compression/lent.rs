//! Decoders' contexts, kept per thread: lent to one decoder at a time, so that nothing of a frame outlives its decoder.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// What costs more to make than a small batch to decompress.
pub trait Context: Sized + 'static {
    fn new() -> Self;

    /// Forgets everything of what was decoded before; `false`: it is not worth keeping, or can't be trusted any more.
    fn reset(&mut self) -> bool;

    /// Shows where this thread keeps one.
    fn on_shelf<R>(visit: impl FnOnce(&RefCell<Option<Self>>) -> R) -> R;
}

/// A context in use; this thread gets it back, clean, when it is dropped.
pub struct Lent<T: Context>(Option<T>);

impl<T: Context> Lent<T> {
    pub fn take() -> Lent<T> {
        Lent(Some(T::on_shelf(RefCell::take).unwrap_or_else(T::new)))
    }
}

impl<T: Context> Deref for Lent<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("there until it is dropped")
    }
}

impl<T: Context> DerefMut for Lent<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("there until it is dropped")
    }
}

impl<T: Context> Drop for Lent<T> {
    fn drop(&mut self) {
        if let Some(context) = self.0.take().and_then(|mut context| context.reset().then_some(context)) {
            T::on_shelf(|shelf| shelf.replace(Some(context)));
        }
    }
}
