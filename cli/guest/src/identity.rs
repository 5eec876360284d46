//! `identity`: has a guest that was copied become another machine.
//!
//! The host gives a number on the kernel's command line, the same at every start. It is written down
//! last, so that what was interrupted is done again, and what was done is not.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::sync;

/// The parameter that the host gives.
const PARAMETER: &str = "slotvmm.reset_identity=";

/// Where the number is written down.
const RECORD: &str = "var/lib/slotvmm/identity";

/// What a machine has that another one must not have; new ones are made, or the system does without.
const SEED: &str = "var/lib/systemd/random-seed";

/// Why the guest is still the machine that it was copied from, or in between.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    /// A file.
    #[error("Failed to {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A host key of SSH.
    #[error("ssh-keygen made no key of type {kind}: it ended with {status}")]
    Key {
        /// The key's type.
        kind: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> IdentityError {
    move |source| IdentityError::File {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Becomes another machine if the host says so and this has not happened.
///
/// # Errors
/// When a file cannot be changed; the next start tries again.
pub(crate) fn renew() -> Result<(), IdentityError> {
    let path = Path::new("/proc/cmdline");
    let line = fs::read_to_string(path).map_err(failed("read", path))?;
    match number(&line) {
        Some(number) => renew_in(Path::new("/"), number, make_key),
        None => Ok(()),
    }
}

/// The number on the command line; the last one counts.
fn number(line: &str) -> Option<&str> {
    let words = line.split_ascii_whitespace();
    let number = words.rev().find_map(|word| word.strip_prefix(PARAMETER))?;
    let plain = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    (!number.is_empty() && number.len() <= 64 && number.bytes().all(plain)).then_some(number)
}

fn renew_in(
    root: &Path,
    number: &str,
    make_key: impl Fn(&str, &Path) -> Result<(), IdentityError>,
) -> Result<(), IdentityError> {
    let record = root.join(RECORD);
    if fs::read_to_string(&record).is_ok_and(|known| known.trim() == number) {
        return Ok(());
    }
    remove(&root.join(SEED))?;
    renew_keys(&root.join("etc/ssh"), make_key)?;
    let id = new_id()?;
    replace(&root.join("etc/machine-id"), &id)?;
    let dbus = root.join("var/lib/dbus/machine-id");
    if fs::symlink_metadata(&dbus).is_ok_and(|file| file.is_file()) {
        replace(&dbus, &id)?;
    }
    // Everything is on the disk before the record of it is.
    sync();
    if let Some(dir) = record.parent() {
        fs::create_dir_all(dir).map_err(failed("make", dir))?;
    }
    replace(&record, &format!("{number}\n"))?;
    sync();
    println!("This is another machine now: machine id {}", id.trim());
    Ok(())
}

fn remove(path: &Path) -> Result<(), IdentityError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(failed("remove", path)),
    }
}

/// Has every SSH host key replaced by a new one of its type. There is always one: a server that
/// finds none does not start, and not all of them make what is missing.
fn renew_keys(
    dir: &Path,
    make_key: impl Fn(&str, &Path) -> Result<(), IdentityError>,
) -> Result<(), IdentityError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result.map_err(failed("read", dir))?,
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(kind) = name
            .strip_prefix("ssh_host_")
            .and_then(|name| name.strip_suffix("_key"))
        else {
            continue;
        };
        let (new, old) = (dir.join(".slotvmm-new-key"), entry.path());
        for half in [new.clone(), public(&new)] {
            remove(&half)?;
        }
        make_key(kind, &new)?;
        for (new, old) in [(public(&new), public(&old)), (new, old)] {
            fs::rename(&new, &old).map_err(failed("write", &old))?;
        }
    }
    Ok(())
}

/// The public half of a key.
fn public(key: &Path) -> PathBuf {
    let mut path = key.as_os_str().to_owned();
    path.push(".pub");
    path.into()
}

/// Has OpenSSH make a key of the type `kind` at `path`.
fn make_key(kind: &str, path: &Path) -> Result<(), IdentityError> {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", kind, "-N", "", "-f"]).arg(path);
    let status = command.status();
    let status = status.map_err(failed("start ssh-keygen for", path))?;
    if status.success() {
        return Ok(());
    }
    Err(IdentityError::Key {
        kind: kind.to_owned(),
        status,
    })
}

/// A machine id, as machine-id(5) says: a random UUID of version 4 without hyphens.
fn new_id() -> Result<String, IdentityError> {
    let source = Path::new("/dev/urandom");
    let mut bytes = [0; 16];
    File::open(source)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(failed("read", source))?;
    let number = u128::from_be_bytes(bytes);
    let number = number & !(0xf << 76) | 4 << 76;
    let number = number & !(0x3 << 62) | 2 << 62;
    Ok(format!("{number:032x}\n"))
}

/// Replaces a file in one step, so that there is always one.
fn replace(path: &Path, text: &str) -> Result<(), IdentityError> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    File::create(&new)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&new, path))
        .map_err(failed("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root with the identity of a machine.
    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for dir in ["etc/ssh", "var/lib/systemd", "var/lib/dbus"] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        for name in ["etc/machine-id", "var/lib/dbus/machine-id", SEED] {
            fs::write(root.path().join(name), "old\n").unwrap();
        }
        for name in ["ssh_host_rsa_key", "ssh_host_rsa_key.pub", "sshd_config"] {
            fs::write(root.path().join("etc/ssh").join(name), "old\n").unwrap();
        }
        root
    }

    fn key(kind: &str, path: &Path) -> Result<(), IdentityError> {
        fs::write(path, format!("new {kind}")).unwrap();
        fs::write(public(path), format!("new {kind} public")).unwrap();
        Ok(())
    }

    fn read(root: &tempfile::TempDir, name: &str) -> String {
        fs::read_to_string(root.path().join(name)).unwrap_or_default()
    }

    #[test]
    fn what_tells_machines_apart_is_renewed_once() {
        let root = machine();
        renew_in(root.path(), "1", key).unwrap();
        let id = read(&root, "etc/machine-id");
        assert_eq!(id.len(), 33);
        assert_eq!(id.as_bytes()[12], b'4');
        assert_eq!(read(&root, "var/lib/dbus/machine-id"), id);
        assert!(!root.path().join(SEED).exists());
        assert_eq!(read(&root, "etc/ssh/ssh_host_rsa_key"), "new rsa");
        assert_eq!(
            read(&root, "etc/ssh/ssh_host_rsa_key.pub"),
            "new rsa public"
        );
        assert_eq!(
            fs::read_dir(root.path().join("etc/ssh")).unwrap().count(),
            3
        );
        assert_eq!(read(&root, "etc/ssh/sshd_config"), "old\n");

        let keep = |kind: &str, _: &Path| panic!("another key of type {kind}");
        renew_in(root.path(), "1", keep).unwrap();
        assert_eq!(read(&root, "etc/machine-id"), id);
        renew_in(root.path(), "2", key).unwrap();
        assert_ne!(read(&root, "etc/machine-id"), id);
    }

    #[test]
    fn what_was_interrupted_is_done_again() {
        let root = machine();
        let interrupted =
            |_: &str, _: &Path| Err(failed("start", Path::new("x"))(io::ErrorKind::Other.into()));
        renew_in(root.path(), "1", interrupted).unwrap_err();
        assert_eq!(read(&root, "etc/machine-id"), "old\n");
        assert_eq!(read(&root, "etc/ssh/ssh_host_rsa_key"), "old\n");
        renew_in(root.path(), "1", key).unwrap();
        assert_ne!(read(&root, "etc/machine-id"), "old\n");
    }

    #[test]
    fn number_is_the_last_one_and_plain() {
        let line = "quiet slotvmm.reset_identity=1a slotvmm.reset_identity=2b-3c ro";
        assert_eq!(number(line), Some("2b-3c"));
        for line in ["", "slotvmm.reset_identity=", "slotvmm.reset_identity=../x"] {
            assert_eq!(number(line), None, "{line}");
        }
    }
}
