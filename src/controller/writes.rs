//! How the controller's writes are cut: multis of a bounded size, each with the fence first.
//!
//! What belongs together is an item, and is in one multi if it fits at all. One item that is refused spoils its multi; it is
//! taken out, and the others are written again.

#![forbid(unsafe_code)]

use crate::metadata::tree::{self, Operation};

/// Operations of one multi, the fence included.
pub const OPERATIONS_PER_WRITE_MAX: usize = 128;

/// Bytes of one multi. One item alone may be larger, and is refused if it is more than a tree takes.
pub const WRITE_BYTES_MAX: usize = 512 * 1024;
const _: () = assert!(WRITE_BYTES_MAX < tree::WRITE_BYTES_MAX, "what shares a multi is never too much");

/// What is written together.
pub trait Item {
    fn operations(&self) -> &[Operation];
}

/// Whether so many operations can be one multi.
pub fn fits(operations: &[Operation]) -> bool {
    operations.len() < OPERATIONS_PER_WRITE_MAX && bytes_of(operations) <= WRITE_BYTES_MAX
}

/// Takes `items` to `operations` if all of them are one multi then; gives what was taken, and what is still to be written.
pub fn join<I: Item>(operations: &mut Vec<Operation>, items: Vec<I>) -> (Vec<I>, Vec<I>) {
    let before = operations.len();
    operations.extend(items.iter().flat_map(Item::operations).cloned());
    if fits(operations) {
        return (items, Vec::new());
    }
    operations.truncate(before);
    (Vec::new(), items)
}

/// Items by multi, in order: as many as fit, and at least one.
pub fn in_parts<I: Item>(items: Vec<I>) -> Vec<Vec<I>> {
    let mut parts: Vec<Vec<I>> = Vec::new();
    let (mut count, mut bytes) = (0, 0);
    for item in items {
        let (more, more_bytes) = (item.operations().len(), bytes_of(item.operations()));
        match parts.last_mut() {
            Some(part) if count + more < OPERATIONS_PER_WRITE_MAX && bytes + more_bytes <= WRITE_BYTES_MAX => {
                (count, bytes) = (count + more, bytes + more_bytes);
                part.push(item);
            }
            _ => {
                (count, bytes) = (more, more_bytes);
                parts.push(vec![item]);
            }
        }
    }
    parts
}

/// The multi of some items.
pub fn multi<I: Item>(fence: Operation, items: &[I]) -> Vec<Operation> {
    let mut operations = vec![fence];
    operations.extend(items.iter().flat_map(|item| item.operations().iter().cloned()));
    operations
}

/// Whose operation was refused; `None` for the fence, which is nobody's, and for what belongs to no operation.
pub fn culprit<I: Item>(items: &[I], operation: Option<usize>) -> Option<usize> {
    place(items, operation).map(|(item, _)| item)
}

/// The item of an operation, and which of the item's own it is.
pub fn place<I: Item>(items: &[I], operation: Option<usize>) -> Option<(usize, usize)> {
    let mut left = operation?.checked_sub(1)?;
    for (at, item) in items.iter().enumerate() {
        match left.checked_sub(item.operations().len()) {
            Some(rest) => left = rest,
            None => return Some((at, left)),
        }
    }
    None
}

fn bytes_of(operations: &[Operation]) -> usize {
    operations.iter().map(Operation::bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::tree::Version;

    struct Sized(Vec<Operation>);

    impl Item for Sized {
        fn operations(&self) -> &[Operation] {
            &self.0
        }
    }

    fn item(count: usize, bytes: usize) -> Sized {
        let set = |_| Operation::Set { path: "/p".into(), data: vec![0; bytes], version: Version::Any };
        Sized((0..count).map(set).collect())
    }

    fn counts(items: Vec<Sized>) -> Vec<usize> {
        in_parts(items).iter().map(Vec::len).collect()
    }

    #[test]
    fn items_share_a_multi_up_to_its_bounds_and_are_never_torn() {
        assert_eq!(counts((0..4).map(|_| item(60, 1)).collect()), [2, 2]);
        assert_eq!(counts(vec![item(127, 1), item(1, 1)]), [1, 1]);
        assert_eq!(counts(vec![item(126, 1), item(1, 1), item(1, 1)]), [2, 1]);
        assert_eq!(counts((0..3).map(|_| item(1, WRITE_BYTES_MAX / 3)).collect()), [2, 1]);
        assert_eq!(counts(vec![item(1, 2 * WRITE_BYTES_MAX), item(1, 1)]), [1, 1], "one may be too large alone");
        assert!(fits(&item(127, 1).0) && !fits(&item(128, 1).0) && !fits(&item(1, WRITE_BYTES_MAX).0));
    }

    #[test]
    fn items_join_a_write_all_or_none() {
        let mut operations = item(2, 1).0;
        let (taken, left) = join(&mut operations, vec![item(100, 1), item(26, 1)]);
        assert_eq!((taken.len(), left.len(), operations.len()), (0, 2, 2));
        let (taken, left) = join(&mut operations, vec![item(100, 1), item(25, 1)]);
        assert_eq!((taken.len(), left.len(), operations.len()), (2, 0, 127));
    }

    #[test]
    fn a_refusal_is_put_down_to_the_item_of_its_operation() {
        let items = [item(2, 1), item(1, 1), item(3, 1)];
        let expected = [None, Some(0), Some(0), Some(1), Some(2), Some(2), Some(2), None];
        for (operation, expected) in expected.into_iter().enumerate() {
            assert_eq!(culprit(&items, Some(operation)), expected, "{operation}");
        }
        assert_eq!(culprit(&items, None), None);
    }
}
