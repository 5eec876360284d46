//! Saving and restoring while the protocol goes on: `SET_DEVICE_STATE_FD` and what follows it.
//!
//! The frontend gives a pipe and waits until the other end is closed; only then it asks how it
//! went. The pipe is served by a thread, since the protocol's must not wait for it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use vhost::vhost_user::message::VhostTransferStateDirection;

use crate::server::{MAX_STATE, Server, StateError};

/// Why a transfer failed.
#[derive(Debug, thiserror::Error)]
enum TransferError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("The pipe to the frontend broke")]
    Pipe(#[from] io::Error),
}

/// The transfer that is under way, if one is.
#[derive(Debug, Default)]
pub(super) struct Transfer(Mutex<Option<JoinHandle<Result<(), TransferError>>>>);

impl Transfer {
    /// Begins one.
    pub(super) fn begin(
        &self,
        server: Arc<Server>,
        direction: VhostTransferStateDirection,
        pipe: File,
    ) -> io::Result<()> {
        let mut transfer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if transfer.is_some() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let thread = Builder::new().name("state".to_owned());
        *transfer = Some(thread.spawn(move || match direction {
            VhostTransferStateDirection::SAVE => save(&server, pipe),
            VhostTransferStateDirection::LOAD => load(&server, pipe),
        })?);
        Ok(())
    }

    /// How it went; waits for its end.
    pub(super) fn end(&self) -> io::Result<()> {
        let mut transfer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let thread = transfer.take().ok_or(io::ErrorKind::InvalidInput)?;
        let result = thread
            .join()
            .map_err(|_| io::Error::other("The transfer of the state panicked"))?;
        result.map_err(io::Error::other)
    }
}

fn save(server: &Server, mut pipe: File) -> Result<(), TransferError> {
    pipe.write_all(&server.save()?)?;
    Ok(())
}

fn load(server: &Server, pipe: File) -> Result<(), TransferError> {
    let mut state = Vec::new();
    let limit = u64::try_from(MAX_STATE)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    pipe.take(limit).read_to_end(&mut state)?;
    server.restore(&state)?;
    Ok(())
}
