//! A key for one boot. Its private half is a file in the slot's run directory, which only the slot's
//! user reads; its public half lies in the machine's SMBIOS tables, where systemd of the guest finds
//! it as the credential `ssh.ephemeral-authorized_keys-all` (systemd 256 and later).

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use ssh_key::rand_core::OsRng;
use ssh_key::{Algorithm, LineEnding, PrivateKey};
use vmm::config::OemString;

/// How systemd knows the credential.
const CREDENTIAL: &str = "io.systemd.credential:ssh.ephemeral-authorized_keys-all=";

/// Makes a key, writes it to `path` in place of an older one, and returns the string for the guest.
///
/// # Errors
/// When it cannot be made or written.
pub(crate) fn issue(path: &Path) -> io::Result<OemString> {
    let key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).map_err(io::Error::other)?;
    let private = key.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
    let public = key.public_key().to_openssh().map_err(io::Error::other)?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(private.as_bytes())?;
    Ok(OemString::new(format!("{CREDENTIAL}{public}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn both_halves_belong_together_and_the_private_one_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ssh_key");
        let first = issue(&path).unwrap();
        let second = issue(&path).unwrap();
        assert_ne!(first.as_str(), second.as_str());
        let key = PrivateKey::read_openssh_file(&path).unwrap();
        let public = key.public_key().to_openssh().unwrap();
        assert_eq!(second.as_str(), format!("{CREDENTIAL}{public}"));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
