//! Start order and stop order of the whole process.
