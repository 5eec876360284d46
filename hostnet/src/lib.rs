//! The network of a slot on the host: names and addresses, bridge, tap.
//!
//! [`slot`] is pure: it derives every name and address of a slot from its name and index.
//! [`tap`] opens an existing tap for a VMM. [`inspect`], [`plan`] and [`apply`] bring the host's
//! links to what a slot needs, in that order: what is there, the operations from there to what is
//! wanted, and running them.
//!
//! Nothing here knows guest memory or KVM, and nothing is removed that this crate did not create.

#![deny(unsafe_code)]

pub mod apply;
pub mod inspect;
mod netlink;
pub mod plan;
pub mod slot;
mod sys;
pub mod tap;

#[cfg(test)]
mod tests;
