//! One file per verb; each is a method of the store. Every one leaves the store as it was before or
//! as it is to be, whatever kills it.

mod adopt;
mod assign;
mod clone;
mod create;
mod delete;
mod gc;
mod migrate;
mod reset;
mod restore;
mod snapshot;

pub use self::adopt::Adopted;
pub use self::assign::{Assigned, Conflict};
pub use self::gc::{Retention, RetentionError};
pub use self::migrate::{ControlError, MigrateError, Migrated, SlotControl};
pub use self::reset::Keep;
