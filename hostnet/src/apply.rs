//! Runs a plan, step by step, and reports each.

use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::{Handle, LinkBridge, LinkUnspec};

use crate::inspect;
use crate::journal::{JournalDir, JournalError, JournalLock};
use crate::netlink::{block_on, io_error};
use crate::nft::{self, NftError};
use crate::plan::{MARK, Operation, Plan};
use crate::slot::InterfaceName;
use crate::sysctl::SysctlError;
use crate::tap::{self, Form, TapError};

/// Runs `plan` and calls `done` after each step. Stops at the first that fails; those before it
/// stay, and applying again goes on from there. The lock says that nobody else does so meanwhile.
///
/// # Errors
/// When a step fails, usually for lack of `CAP_NET_ADMIN`.
pub fn run(
    plan: Plan,
    directory: &JournalDir,
    _lock: &JournalLock,
    mut done: impl FnMut(&Operation),
) -> Result<(), ApplyError> {
    let mut journal = plan.journal;
    let before = directory.read()?;
    if plan.operations.is_empty() && journal == before {
        return Ok(());
    }
    // Noted before it is done; what is being removed stays noted until it is gone.
    let mut intent = before;
    intent.include(&journal);
    directory.write(&intent)?;
    block_on(async |handle| {
        for operation in &plan.operations {
            one(&handle, operation).await?;
            done(operation);
        }
        Ok::<(), ApplyError>(())
    })
    .map_err(|source| ApplyError::Connect { source })??;
    if !journal.slots.is_empty() && journal.listing.is_empty() {
        journal.listing = nft::listing()?;
    }
    Ok(directory.write(&journal)?)
}

/// Runs one step.
pub(crate) async fn one(handle: &Handle, operation: &Operation) -> Result<(), ApplyError> {
    let failed = |source| ApplyError::Operation {
        operation: operation.to_string(),
        source,
    };
    match operation {
        Operation::LoadRules { ruleset, .. } | Operation::RemoveRules { ruleset } => {
            return Ok(nft::apply(ruleset)?);
        }
        Operation::Set { sysctl, on } => return Ok(sysctl.write(*on)?),
        Operation::CreateTap { name, owner } => {
            return Ok(tap::create(name, *owner, Form::Several)?);
        }
        Operation::ChangeOwner { name, owner } => return Ok(tap::change_owner(name, *owner)?),
        Operation::CreateBridge { name } => {
            let message = LinkBridge::new(name.as_str()).down().build();
            handle.link().add(message).execute().await.map_err(io_error)
        }
        Operation::Mark { name } => change(handle, name, |link| link.alias(MARK).build()).await,
        Operation::SetUp { name } => change(handle, name, |link| link.up().build()).await,
        Operation::SetDown { name } => change(handle, name, |link| link.down().build()).await,
        Operation::Release { name } => {
            // No index stands for no bridge.
            change(handle, name, |link| link.controller(0).build()).await
        }
        Operation::AddAddress { name, address } => match index(handle, name).await {
            Ok(index) => {
                let ip = IpAddr::V4(address.addr());
                let request = handle.address().add(index, ip, address.prefix_len());
                request.execute().await.map_err(io_error)
            }
            Err(error) => Err(error),
        },
        Operation::RemoveAddress { name, address } => remove_address(handle, name, *address).await,
        Operation::Enslave { name, bridge } => match index(handle, bridge).await {
            Ok(bridge) => change(handle, name, |link| link.controller(bridge).build()).await,
            Err(error) => Err(error),
        },
        Operation::Delete { name } => match index(handle, name).await {
            Ok(index) => handle.link().del(index).execute().await.map_err(io_error),
            Err(error) => Err(error),
        },
    }
    .map_err(failed)
}

async fn remove_address(handle: &Handle, name: &InterfaceName, address: Ipv4Net) -> io::Result<()> {
    let index = index(handle, name).await?;
    let mut addresses = handle
        .address()
        .get()
        .set_link_index_filter(index)
        .execute();
    while let Some(message) = addresses.try_next().await.map_err(io_error)? {
        let local = IpAddr::V4(address.addr());
        let is_it = message.header.prefix_len == address.prefix_len()
            && message.attributes.contains(&AddressAttribute::Local(local));
        if is_it {
            let request = handle.address().del(message);
            return request.execute().await.map_err(io_error);
        }
    }
    Ok(())
}

type LinkChange = rtnetlink::LinkMessageBuilder<LinkUnspec>;

async fn change(
    handle: &Handle,
    name: &InterfaceName,
    message: impl FnOnce(LinkChange) -> LinkMessage,
) -> io::Result<()> {
    let index = index(handle, name).await?;
    let message = message(LinkUnspec::new_with_index(index));
    handle.link().set(message).execute().await.map_err(io_error)
}

/// Looked up at every step: the interface may be one that the step before made.
async fn index(handle: &Handle, name: &InterfaceName) -> io::Result<u32> {
    let message = inspect::message(handle, name).await?;
    message
        .map(|message| message.header.index)
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Why the host's network was not changed as planned.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// No connection to the kernel.
    #[error("Failed to open a netlink connection")]
    Connect {
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The journal was not written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The rules were not changed.
    #[error(transparent)]
    Rules(#[from] NftError),
    /// A setting was not changed.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// A step on a tap failed.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// Another step failed.
    #[error("Failed to {operation}: this needs root or CAP_NET_ADMIN")]
    Operation {
        /// The step.
        operation: String,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}
