//! Boots one guest with several machine monitors in turns, and compares what it cost.
//!
//! - [`machine`]: what is booted, the same for every monitor
//! - [`peer`]: the other monitors, and how their users start them
//! - [`boot`]: one boot as a process, watched from outside
//! - [`inspect`]: memory and KVM exits of a monitor while it runs
//! - [`series`]: many boots, interleaved
//! - [`together`]: several machines at once
//! - [`stats`]: what many figures say
//! - [`report`]: as a table, as JSON, as a page with pictures
//!
//! It knows no configuration and no machine of slotvmm: that is one contender among others, and its
//! caller says how it is started.
#![deny(unsafe_code)]

pub mod boot;
pub mod inspect;
pub mod machine;
pub mod peer;
pub mod report;
pub mod series;
pub mod stats;
mod sys;
pub mod together;

pub use sys::die_with_parent;
