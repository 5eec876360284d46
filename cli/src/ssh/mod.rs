//! Logging in to a guest: the key of this boot, the way to its SSH server, and `ssh`'s arguments.
//!
//! The way through the slot's socket needs no network: `ssh` starts this program once more, which
//! connects to the guest's port 22 and hands the connection over. Both ends of the socket are the
//! slot's own process, so there is no other machine to be taken for the guest, and the guest's host
//! key is not looked at. The way by the guest's address is like any other use of `ssh`.

mod dial;
mod key;

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use hostnet::slot::SlotName;

pub(crate) use self::dial::{DialError, dial, hand_over};
pub(crate) use self::key::issue;

/// Port of the guest's SSH server, on either way.
pub(crate) const PORT: u32 = 22;

/// How to reach the guest.
#[derive(Debug)]
pub(crate) enum Way {
    /// Through its socket.
    Socket {
        /// This program.
        program: PathBuf,
        /// Its configuration directory.
        config: PathBuf,
        /// The key of this boot, where there is one.
        key: Option<PathBuf>,
    },
    /// By its address.
    Address(Ipv4Addr),
}

/// Whom to log in as, and what to run there.
#[derive(Debug)]
pub(crate) struct Login<'a> {
    /// The user.
    pub(crate) user: &'a str,
    /// The slot.
    pub(crate) slot: &'a SlotName,
    /// The command; empty for a shell.
    pub(crate) command: &'a [OsString],
}

/// The arguments of `ssh`.
pub(crate) fn arguments(way: &Way, login: &Login<'_>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut option = |text: String| arguments.extend(["-o".into(), text.into()]);
    // Keys are kept under the slot's name, whatever its address is.
    option(format!("HostKeyAlias={}", login.slot));
    option("CheckHostIP=no".to_owned());
    let host = match way {
        Way::Socket {
            program,
            config,
            key,
        } => {
            let (program, config) = (quoted(program), quoted(config));
            let slot = login.slot;
            option(format!(
                "ProxyCommand={program} --config {config} vsock-connect {slot} {PORT}"
            ));
            option("ProxyUseFdpass=yes".to_owned());
            option("StrictHostKeyChecking=no".to_owned());
            option("UserKnownHostsFile=/dev/null".to_owned());
            // Else it warns at each login that it has learned the key.
            option("LogLevel=ERROR".to_owned());
            if let Some(key) = key {
                arguments.extend(["-i".into(), key.into()]);
            }
            slot.to_string()
        }
        Way::Address(address) => address.to_string(),
    };
    arguments.extend(["-l".into(), login.user.into(), "--".into(), host.into()]);
    arguments.extend(login.command.iter().cloned());
    arguments
}

/// A word for the shell that `ssh` runs the command with, after `ssh` has expanded its own signs.
fn quoted(path: &std::path::Path) -> String {
    let text = path.to_string_lossy().replace('%', "%%");
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(way: &Way, command: &[&str]) -> String {
        let command: Vec<OsString> = command.iter().map(Into::into).collect();
        let login = Login {
            user: "root",
            slot: &"slot1".parse().unwrap(),
            command: &command,
        };
        let words = arguments(way, &login);
        let words = words.iter().map(|word| word.to_string_lossy());
        words.collect::<Vec<_>>().join("|")
    }

    #[test]
    fn socket_is_reached_by_this_program_with_the_key_of_the_boot() {
        let way = Way::Socket {
            program: "/opt/it's 100%/slotvmm".into(),
            config: "/etc/slotvmm".into(),
            key: Some("/run/slotvmm/slot1/ssh_key".into()),
        };
        let line = line(&way, &["uname", "-r"]);
        let proxy = r"|ProxyCommand='/opt/it'\''s 100%%/slotvmm' --config '/etc/slotvmm' vsock-connect slot1 22|";
        assert!(line.contains(proxy), "{line}");
        assert!(line.ends_with("|-i|/run/slotvmm/slot1/ssh_key|-l|root|--|slot1|uname|-r"));
    }

    #[test]
    fn address_is_checked_like_any_other_host() {
        let line = line(&Way::Address([10, 1, 0, 2].into()), &[]);
        assert_eq!(
            line,
            "-o|HostKeyAlias=slot1|-o|CheckHostIP=no|-l|root|--|10.1.0.2"
        );
    }
}
