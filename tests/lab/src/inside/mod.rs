//! What the lab's own commands do inside the lab: the part of `demo` and `matrix` that needs KVM.
//! The lab starts itself there, as a hidden subcommand.

mod demo;
mod matrix;
mod slot;

pub use demo::{DemoArgs, demo};
pub use matrix::{Boot, Case, MatrixArgs, Outcome, matrix};
