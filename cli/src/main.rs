//! slotvmm
#![forbid(unsafe_code)]
mod args;
mod config;
mod console;
mod disk;
mod exit;
mod resolve;
fn main() {}
