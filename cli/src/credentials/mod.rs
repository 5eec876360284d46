//! Values of credentials, between the host's files and the guest.
//!
//! [`value`] reads one, [`reader`] without waiting for long, [`store`] answers the guest's requests out of the files, [`smbios`] words
//! those that lie in the machine's tables. A value lives in erased buffers only; nothing here
//! prints, logs or keeps one.

mod reader;
mod smbios;
mod store;
mod value;

use devices::credentials::{CredentialService, Name};
use vmm::config::OemString;

pub(crate) use self::value::{Places, ValueError, size};
use crate::config::Transport;
use crate::resolve::Slot;

/// Why a slot cannot have its credentials.
#[derive(Debug, thiserror::Error)]
#[error("Credential {name} cannot be used")]
pub(crate) struct CredentialError {
    /// The credential.
    pub(crate) name: Name,
    /// Why.
    #[source]
    pub(crate) source: ValueError,
}

/// What a slot's guest gets.
pub(crate) struct Opened {
    /// What answers it on the socket device.
    pub(crate) service: CredentialService,
    /// What lies in its tables.
    pub(crate) oem_strings: Vec<OemString>,
}

/// Checks every credential, and reads those that the machine has from its start.
///
/// # Errors
/// When one is not there, or cannot be used.
pub(crate) fn open(slot: &Slot) -> Result<Opened, CredentialError> {
    let places = Places::of_process();
    let (vsock, smbios): (Vec<_>, Vec<_>) = slot
        .credentials
        .list
        .iter()
        .partition(|credential| credential.transport == Transport::Vsock);
    Ok(Opened {
        service: CredentialService::new(store::FileStore::open(&vsock, &places)?),
        oem_strings: smbios::strings(&slot.credentials.static_oem_strings, &smbios, &places)?,
    })
}
