//! What the lab's own commands do inside the lab: the part of `demo`, `matrix`,
//! `measure`, `bench`, `reads`, `throughput` and `shares` that needs KVM.
//! The lab starts itself there, as a hidden subcommand.

mod bench;
mod deadline;
mod demo;
mod exits;
mod follow;
mod matrix;
mod measure;
mod monitors;
mod portable;
mod reads;
mod shares;
mod slot;
mod throughput;

pub use bench::{BenchArgs, bench};
pub use demo::{DemoArgs, demo};
pub use matrix::{Boot, Case, MatrixArgs, Outcome, matrix};
pub use measure::{MeasureArgs, Sample, measure};
pub use monitors::{Peer, Variant};
pub use reads::{Reads, ReadsArgs, reads};
pub use shares::{Contender, Reading, SharesArgs, With, shares};
pub use throughput::{ThroughputArgs, Transfer, throughput};
