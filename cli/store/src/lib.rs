//! States of slots: portable disk images, their snapshots, and which slot has which.
//!
//! A store is a directory with `states/<state>/data.img`, snapshots below
//! `states/<state>/snapshots/<name>`, and `<slot>/data.img`, a symbolic link to the image of the
//! slot's state. A file beside it says which slot has which state.
//!
//! Three rules keep it whole. Decisions are made under the store's lock, one command at a time
//! ([`Store::lock`]). What is new is made under a name that begins with `.new-`, locked by its
//! maker, made durable and then renamed, so a maker that dies leaves either what was or what is
//! wanted. Whoever reads or writes an image holds a [`lock`] on it.
//!
//! It knows no virtual machine, and asks nobody to start or stop one.

#![forbid(unsafe_code)]

mod assignments;
mod building;
pub mod copy;
mod durable;
mod error;
mod fault;
pub mod fsck;
pub mod holder;
pub mod identity;
mod image;
mod kept;
mod layout;
mod list;
pub mod lock;
mod name;
pub mod snapshot;
mod store;
#[cfg(test)]
mod tests;
pub mod transfer;
mod verbs;
mod zfs;

pub use self::assignments::Assignments;
pub use self::error::StoreError;
pub use self::image::Progress;
pub use self::layout::Layout;
pub use self::list::{SlotInfo, SnapshotInfo, StateInfo};
pub use self::name::{Name, NameError, SnapshotRef};
pub use self::store::{Locked, Store};
pub use self::verbs::{
    Adopted, Assigned, Conflict, ControlError, Keep, MigrateError, Migrated, Retention,
    RetentionError, SlotControl,
};
pub use self::zfs::DataSets;
