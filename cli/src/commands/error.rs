//! Every way a command fails, and the exit code of each.

use std::io;

use hostnet::apply::ApplyError;
use hostnet::inspect::InspectError;
use hostnet::journal::JournalError;
use hostnet::nft::NftError;
use hostnet::plan::PlanError;
use hostnet::slot::{NameError, SlotName};
use hostnet::tap::TapError;
use hostnet::world::WorldError;
use store::transfer::TransferError;
use store::{MigrateError, StoreError};
use vmm::arch::smbios::SmbiosError;
use vmm::kvm::KvmError;
use vmm::machine::MachineError;
use vmm::vm::{BootError, RunError};

use crate::client::{ClientError, FreezeError, SnapshotFailure};
use crate::config::ConfigError;
use crate::credentials::{CredentialError, ValueError};
use crate::disk::DiskError;
use crate::exit::Exit;
use crate::rundir::RunDirError;
use crate::share::ShareError;
use crate::ssh::DialError;
use crate::systemd::UnitError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// What was typed names no slot.
    #[error(transparent)]
    Name(#[from] NameError),
    /// What was typed names no state or snapshot.
    #[error(transparent)]
    StateName(#[from] store::NameError),
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A state was not moved.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// A state was not exported or imported.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// Nobody wants to read a stream.
    #[error("The stream would go to a terminal: name a file, or redirect standard output")]
    Terminal,
    /// A slot has an image of its own, or none.
    #[error(
        "{slot} has no state: `slotvmm state assign {slot} <state>` gives it one, \
         and `slotvmm state list` shows those that there are"
    )]
    NoState {
        /// The slot.
        slot: store::Name,
    },
    /// The user did not confirm.
    #[error("Aborted")]
    Aborted,
    /// `--json` with a verb that prints no report.
    #[error("`{verb}` prints no report, so it takes no --json; leave it out")]
    NoJson {
        /// The verb.
        verb: &'static str,
    },
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A disk cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A tap cannot be opened.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The kernel does not serve a card.
    #[error(transparent)]
    Vhost(#[from] crate::tap::VhostError),
    /// An open tap does not suit.
    #[error(transparent)]
    TapSettings(#[from] devices::net::TapError),
    /// A directory cannot be shared.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// A credential cannot be read.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The slot's directory cannot be claimed.
    #[error("{slot} cannot be run")]
    RunDir {
        /// The slot.
        slot: SlotName,
        /// Why.
        #[source]
        source: RunDirError,
    },
    /// The kernel cannot be found.
    #[error(transparent)]
    Open(#[from] vmm::boot::OpenError),
    /// The machine does not boot.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The machine cannot go on.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A running slot cannot be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A running slot took no snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotFailure),
    /// A guest's file systems were not frozen.
    #[error(transparent)]
    Freeze(#[from] FreezeError),
    /// A port of the guest cannot be reached.
    #[error("Failed to connect to port {port} of {slot}")]
    Dial {
        /// The slot.
        slot: SlotName,
        /// The port.
        port: u32,
        /// Why.
        #[source]
        source: DialError,
    },
    /// systemd does not do what was asked.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// Nothing is known of a boot.
    #[error(
        "Nothing is known of a boot of {slot}: it does not run, and no boot has left {} behind",
        path.display()
    )]
    NoBoot {
        /// The slot.
        slot: SlotName,
        /// Where its record would be.
        path: std::path::PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// A series of boots was not completed.
    #[error(transparent)]
    Bench(boot_bench::series::SeriesError),
    /// A disk cannot be copied for a benchmark.
    #[error(
        "Disk {disk}: {} is a block device, and a benchmark writes to copies only: give the slot an image \
         file for it, or `readonly = true`",
        path.display()
    )]
    NoCopy {
        /// The disk.
        disk: String,
        /// The device.
        path: std::path::PathBuf,
    },
    /// A share cannot be served.
    #[error(transparent)]
    FsBackend(#[from] fs_backend::RunError),
    /// The network cannot be looked at.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// The network cannot become what it should be.
    #[error(transparent)]
    NetPlan(#[from] PlanError),
    /// The network was not changed.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The network's rules cannot be looked at.
    #[error(transparent)]
    Rules(#[from] NftError),
    /// The host's network cannot be looked at.
    #[error(transparent)]
    World(#[from] WorldError),
    /// What was done to the network is not known.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// No packet would pass.
    #[error(
        "The network of {slot} is not complete: run `slotvmm net apply {slot}` as root ({lacks})"
    )]
    NetworkIncomplete {
        /// The slot.
        slot: SlotName,
        /// What is missing.
        lacks: String,
    },
    /// There is no such user.
    #[error("There is no user {user} in /etc/passwd: expected a name there, or a number")]
    NoUser {
        /// Who was asked for.
        user: String,
    },
    /// The slot has no bridge to make.
    #[error("{slot} has no bridge of its own: its first network card is configured without one")]
    NoBridge {
        /// The slot.
        slot: SlotName,
    },
    /// Anything else that the host refused.
    #[error("Failed to {action}")]
    Host {
        /// What was being done.
        action: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}

impl CommandError {
    /// For `map_err`: names what failed.
    pub(crate) fn on(action: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Host { action, source }
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Name(_) | Self::StateName(_) | Self::NoJson { .. } => Exit::Usage,
            Self::Config(_) | Self::Open(_) | Self::NoBridge { .. } => Exit::Config,
            Self::Disk(error) => of_disk(error),
            Self::Store(error) | Self::Migrate(MigrateError::Store(error)) => of_store(error),
            Self::Transfer(TransferError::Store(error)) => of_store(error),
            Self::Terminal => Exit::Usage,
            Self::NoCopy { .. } => Exit::Config,
            Self::Bench(_) | Self::NoBoot { .. } => Exit::Failed,
            Self::Transfer(_) | Self::Migrate(_) | Self::NoState { .. } | Self::Aborted => {
                Exit::Failed
            }
            Self::RunDir {
                source: RunDirError::AlreadyRunning { .. },
                ..
            } => Exit::DiskLocked,
            Self::Credential(error) => of_value(&error.source),
            Self::Boot(error) => of_boot(error),
            Self::Unit(error) => error.exit(),
            Self::Client(_)
            | Self::Snapshot(_)
            | Self::Freeze(_)
            | Self::Run(_)
            | Self::Dial { .. } => Exit::Failed,
            Self::FsBackend(fs_backend::RunError::Daemon(_)) => Exit::Failed,
            Self::FsBackend(_)
            | Self::Tap(_)
            | Self::Vhost(_)
            | Self::TapSettings(_)
            | Self::Share(_)
            | Self::Inspect(_)
            | Self::NetPlan(_)
            | Self::Apply(_)
            | Self::Rules(_)
            | Self::World(_)
            | Self::Journal(_)
            | Self::NetworkIncomplete { .. }
            | Self::NoUser { .. }
            | Self::RunDir { .. }
            | Self::Host { .. } => Exit::Host,
        }
    }
}

fn of_disk(error: &DiskError) -> Exit {
    match error {
        DiskError::Locked { .. } => Exit::DiskLocked,
        DiskError::Missing { .. }
        | DiskError::Dangling { .. }
        | DiskError::Kind { .. }
        | DiskError::Size { .. }
        | DiskError::TemplateTooLarge { .. } => Exit::Config,
        DiskError::NoDirectory { .. }
        | DiskError::Denied { .. }
        | DiskError::NoLocks { .. }
        | DiskError::Create { .. }
        | DiskError::Mkfs { .. }
        | DiskError::NoMkfs { .. }
        | DiskError::Host { .. } => Exit::Host,
    }
}

fn of_store(error: &StoreError) -> Exit {
    match error {
        StoreError::InUse { .. } | StoreError::BeingMade { .. } => Exit::DiskLocked,
        StoreError::Damaged { .. } => Exit::Config,
        StoreError::NoStore { .. }
        | StoreError::NoDataSet { .. }
        | StoreError::Zfs { .. }
        | StoreError::PoolFull { .. }
        | StoreError::Unseen { .. }
        | StoreError::NoZfs { .. }
        | StoreError::Host { .. } => Exit::Host,
        StoreError::NoState { .. }
        | StoreError::StateExists { .. }
        | StoreError::NoImage { .. }
        | StoreError::NoOwnImage { .. }
        | StoreError::NoManifest { .. }
        | StoreError::OtherImage { .. }
        | StoreError::NoSnapshot { .. }
        | StoreError::Ambiguous { .. }
        | StoreError::SnapshotExists { .. }
        | StoreError::Assigned { .. } => Exit::Failed,
    }
}

fn of_value(error: &ValueError) -> Exit {
    match error {
        ValueError::Missing { .. } | ValueError::Kind { .. } | ValueError::TooLarge { .. } => {
            Exit::Config
        }
        ValueError::NoDirectory | ValueError::Changed { .. } | ValueError::Read { .. } => {
            Exit::Host
        }
    }
}

fn of_boot(error: &BootError) -> Exit {
    match error {
        BootError::Config(_)
        | BootError::Open(_)
        | BootError::Load(_)
        | BootError::Machine(MachineError::Smbios(
            SmbiosError::TooLarge { .. }
            | SmbiosError::TooManyStrings { .. }
            | SmbiosError::BadString { .. },
        )) => Exit::Config,
        BootError::Kvm(error) | BootError::Machine(MachineError::Kvm(error)) => of_kvm(error),
        BootError::Machine(_)
        | BootError::Memory(_)
        | BootError::Vcpu(_)
        | BootError::Host { .. } => Exit::Host,
        BootError::LoaderPanicked => Exit::Failed,
    }
}

fn of_kvm(error: &KvmError) -> Exit {
    match error {
        KvmError::NoHardware | KvmError::Version { .. } | KvmError::Lacks { .. } => Exit::CannotRun,
        KvmError::Absent(_)
        | KvmError::Foreign(_)
        | KvmError::Denied(_)
        | KvmError::Open(_)
        | KvmError::Operation { .. } => Exit::Host,
        KvmError::Panicked => Exit::Failed,
    }
}
