//! The project's one test command: steps, and a tally of what passed.

mod abreast;
mod links;
mod nix;
mod place;
mod programs;
mod steps;
mod tally;
mod zfs;

pub use links::broken_links;
pub use steps::{Check, Step};
pub use tally::Tally;
pub use zfs::Transcript;
