//! Distribution packages without touching the machine's own package state: a private apt directory
//! per suite in the cache, its sources taken from the machine's mirror, its idea of what is
//! installed empty. A request is therefore always the complete closure, and unpacks anywhere.
//!
//! Not for installing anything on the machine.

mod apt;
mod mirror;
mod unpack;

pub use apt::{Apt, Suite};
pub use mirror::Mirror;
pub use unpack::unpack;
