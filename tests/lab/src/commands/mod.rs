//! One file per verb.

mod env;
mod fetch;
mod run;
mod workspace;

pub use env::env;
pub use fetch::fetch;
pub use run::{run, shell};
