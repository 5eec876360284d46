//! The lab: gives any machine a real KVM host with stock kernels, makes the guest images that tests
//! boot, and holds the project's demo and test commands. Use it as `cargo lab`.
//!
//! - [`cache`], [`packages`], [`tools`], [`kernels`]: what comes from the distribution
//! - [`zfs`]: OpenZFS for the emulated host, when it is asked for
//! - [`guest`]: the images that guests boot from
//! - [`host`]: where commands run, directly or in an emulated machine
//! - [`inside`]: the part of our own commands that runs there
//! - [`check`]: the steps of the test command
//! - [`record`], [`report`]: measurements, and the tables made of them
//! - [`commands`]: the verbs
#![deny(unsafe_code)]

pub mod args;
pub mod cache;
pub mod check;
pub mod commands;
pub mod cpio;
pub mod emulator;
pub mod guest;
pub mod host;
pub mod inside;
pub mod kernels;
pub mod packages;
pub mod process;
pub mod progress;
pub mod record;
pub mod report;
#[expect(unsafe_code, reason = "the one module for it")]
mod sys;
pub mod tools;
pub mod zfs;
