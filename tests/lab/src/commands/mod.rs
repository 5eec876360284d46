//! One file per verb.

mod bench;
mod check;
mod demo;
mod env;
mod fetch;
mod matrix;
mod measure;
mod place;
mod reads;
mod report;
mod run;
mod shares;
mod throughput;
pub(crate) mod workspace;
mod zfs;

pub use bench::bench;
pub use check::check;
pub use demo::demo;
pub use env::env;
pub use fetch::fetch;
pub use matrix::matrix;
pub use measure::measure;
pub use reads::reads;
pub use report::report;
pub use run::{run, shell};
pub use shares::shares;
pub use throughput::throughput;
pub use zfs::zfs;
