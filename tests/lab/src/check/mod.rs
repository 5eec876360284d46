//! The project's one test command: steps, and a tally of what passed.

mod links;
mod nix;
mod steps;
mod tally;

pub use links::broken_links;
pub use steps::{Check, Step};
pub use tally::Tally;
