//! The configuration directory: `host.toml` and one file per slot, TOML or JSON.
//!
//! ```text
//! text ──toml/json──▶ node ──reader──▶ SlotFile, HostFile ──crate::resolve──▶ Slot
//! ```
//!
//! A file is read completely before anything is reported, so one run names every problem in it.
//! Unknown keys are problems. Defaults are not applied here: [`crate::resolve`] does that.

mod credentials;
mod host;
mod json;
mod load;
mod net;
mod node;
mod problem;
mod reader;
mod ready;
mod share;
mod slot;
mod snapshot;
#[cfg(test)]
mod tests;
mod toml;
mod values;
mod vsock;
mod words;

pub(crate) use credentials::{CredentialFile, Source, Transport};
pub(crate) use host::HostFile;
pub(crate) use load::{ConfigDir, ConfigError, LoadedSlot};
pub(crate) use net::{
    EgressClass, EgressFile, EgressRuleFile, PairFile, PolicyFile, PublishFile, RedirectFile,
};
pub(crate) use problem::{Located, Location, Problem};
pub(crate) use reader::Ranged;
pub(crate) use ready::{Goal, When};
pub(crate) use share::{Cache, Dax, FsFile, OnBackendExit, Poll};
pub(crate) use slot::{BootFile, DataFile, DiskFile, DiskTuning, LimitFile, NetFile, Setting};
pub(crate) use snapshot::RunningSnapshotFile;
pub(crate) use values::{AbsolutePath, ByteSize};
pub(crate) use words::{ConsoleMode, Discovery, Engine, Identity, Profile, Registers, Vhost};
