//! slotvmm
#![forbid(unsafe_code)]
mod args;
mod config;
mod exit;
mod resolve;
fn main() {}
