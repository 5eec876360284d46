//! The other side, for tests, fuzzers and benches.

mod frontend;
pub mod fuzz;

pub use self::frontend::{Frontend, Notification, Reads, TestError};
