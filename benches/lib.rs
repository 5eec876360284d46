//! Shared pieces of the benchmarks: the tiny guest, the machine monitors that boot it, and devices
//! without a transport.
//!
//! `cargo bench -p benches` runs all of them; what cannot run here prints `skipped:` with the
//! reason. Not for correctness: tests do that.

pub mod guest;
pub mod monitor;
pub mod race;
pub mod rig;
