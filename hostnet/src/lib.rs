//! The network of a slot on the host: names and addresses, bridge, tap.
//!
//! [`slot`] is pure: it derives every name and address of a slot from its name and index.
//! [`tap`] opens an existing tap for a VMM. [`desired`], [`inspect`], [`plan`] and [`apply`] bring
//! the host's links to what a slot needs, in that order: what is wanted, what is there, the
//! operations between the two, and running them.
//!
//! Nothing here knows guest memory or KVM, and nothing is removed that this crate did not create.

#![deny(unsafe_code)]

pub mod slot;
