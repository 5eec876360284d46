//! Runs operations, in order, and reports each.

use std::io;
use std::net::IpAddr;

use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::{Handle, LinkBridge, LinkUnspec};

use crate::inspect;
use crate::netlink::{block_on, io_error};
use crate::plan::{MARK, Operation};
use crate::slot::InterfaceName;
use crate::tap::{self, TapError};

/// Runs `operations` and calls `done` after each. Stops at the first that fails; those before it
/// stay, and applying again goes on from there.
///
/// # Errors
/// When an operation fails, usually for lack of `CAP_NET_ADMIN`.
pub fn run(operations: &[Operation], mut done: impl FnMut(&Operation)) -> Result<(), ApplyError> {
    block_on(async |handle| {
        for operation in operations {
            one(&handle, operation).await?;
            done(operation);
        }
        Ok(())
    })
    .map_err(|source| ApplyError::Connect { source })?
}

async fn one(handle: &Handle, operation: &Operation) -> Result<(), ApplyError> {
    let failed = |source| ApplyError::Operation {
        operation: operation.to_string(),
        source,
    };
    match operation {
        Operation::CreateTap { name, owner } => return Ok(tap::create(name, *owner)?),
        Operation::ChangeOwner { name, owner } => return Ok(tap::change_owner(name, *owner)?),
        Operation::CreateBridge { name } => {
            let message = LinkBridge::new(name.as_str()).down().build();
            handle.link().add(message).execute().await.map_err(io_error)
        }
        Operation::Mark { name } => change(handle, name, |link| link.alias(MARK).build()).await,
        Operation::SetUp { name } => change(handle, name, |link| link.up().build()).await,
        Operation::AddAddress { name, address } => match index(handle, name).await {
            Ok(index) => {
                let ip = IpAddr::V4(address.addr());
                let request = handle.address().add(index, ip, address.prefix_len());
                request.execute().await.map_err(io_error)
            }
            Err(error) => Err(error),
        },
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
