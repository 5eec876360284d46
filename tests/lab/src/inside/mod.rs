//! What the lab's own commands do inside the lab: the part of `demo`, `matrix`,
//! `measure`, `throughput` and `shares` that needs KVM.
//! The lab starts itself there, as a hidden subcommand.

mod deadline;
mod demo;
mod exits;
mod matrix;
mod measure;
mod monitors;
mod shares;
mod slot;
mod throughput;

pub use demo::{DemoArgs, demo};
pub use matrix::{Boot, Case, MatrixArgs, Outcome, matrix};
pub use measure::{MeasureArgs, Sample, measure};
pub use monitors::Peer;
pub use shares::{Contender, Reading, SharesArgs, shares};
pub use throughput::{ThroughputArgs, Transfer, throughput};
