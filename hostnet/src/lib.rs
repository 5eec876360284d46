//! The network of slots on the host: names and addresses, bridges and taps, rules.
//!
//! [`slot`], [`pool`] and [`policy`] say what should be; [`world`] looks at what is; [`plan`] finds the
//! operations between the two, among them the [`ruleset`]; [`apply`] runs them and notes in the
//! [`journal`] what it does, so that it can be undone. [`facts`] puts both beside each other,
//! [`foreign`] finds what others have in the way. A VMM needs [`check`] and [`tap`] alone. [`private`] has
//! taps for machines that are only measured, and is beside all that.
//!
//! Nothing here knows guest memory or KVM, and nothing is removed that this crate did not create.

#![deny(unsafe_code)]

pub mod apply;
pub mod check;
pub mod facts;
pub mod foreign;
pub mod inspect;
pub mod journal;
mod netlink;
pub mod nft;
pub mod plan;
pub mod policy;
pub mod pool;
pub mod private;
pub mod ruleset;
pub mod slot;
mod sys;
pub mod sysctl;
pub mod tap;
pub mod world;
