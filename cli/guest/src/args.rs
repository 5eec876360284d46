//! What was typed. A few verbs do not need a parser that is larger than the rest of the program.

use std::ffi::OsString;
use std::path::PathBuf;

/// Where systemd looks for credentials by itself.
const CREDSTORE: &str = "/run/credstore";

/// The target that a guest is ready with unless it says otherwise.
const TARGET: &str = "multi-user.target";

/// What `--help` prints.
pub(crate) const HELP: &str = "\
Runs inside of a guest of slotvmm, beside systemd.

Usage: slotvmm-guest <command>

  creds fetch [DIR]   get every credential from the host into DIR, /run/credstore when not said:
                      units then name them in ImportCredential= and LoadCredential=
  creds serve         answer systemd on standard input, a connection to the socket that a unit
                      names in LoadCredential=, with the credential's value of this moment
  ready [TARGET]      tell the host that TARGET (multi-user.target) is reached: for guests whose
                      systemd is older than 254 and does not do that itself
  identity            become another machine, once, if the host says so (a copy of a state): new
                      machine id and SSH host keys, no random seed from before
  freeze              freeze file systems for the host, which asks on standard input, a connection to
                      the socket of slotvmm-freeze.socket, and thaw them
  freeze listen       the same without systemd: listen for the host, and serve it again and again
  thaw                thaw every file system, if this program was killed and they are frozen
  --version, --help

Needs CAP_NET_BIND_SERVICE, to freeze CAP_SYS_ADMIN, and the module vmw_vsock_virtio_transport.
";

/// A verb with its arguments.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
    /// Get every credential.
    Fetch {
        /// Where they are put.
        directory: PathBuf,
    },
    /// Answer one connection of systemd.
    Serve,
    /// Become another machine if the host says so.
    Identity,
    /// Tell the host.
    Ready {
        /// What is reached.
        target: String,
    },
    /// Freeze for the host that is standard input.
    Freeze,
    /// Freeze for every host that connects.
    FreezeListen,
    /// Thaw when the parent dies; not for people.
    FreezeGuard {
        /// After so many seconds anyhow.
        seconds: u32,
        /// File systems.
        places: Vec<OsString>,
    },
    /// Thaw whatever is frozen.
    Thaw,
}

/// What was typed is no command.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("There is no command {typed:?}, expected one of those below")]
pub(crate) struct ArgsError {
    typed: String,
}

impl Command {
    /// From the arguments after the program's name.
    pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, ArgsError> {
        let raw: Vec<OsString> = arguments.collect();
        let typed: Vec<String> = raw
            .iter()
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect();
        let words: Vec<&str> = typed.iter().map(String::as_str).collect();
        Ok(match words.as_slice() {
            ["--help" | "-h"] => Self::Help,
            ["--version" | "-V"] => Self::Version,
            ["creds", "fetch"] => Self::Fetch {
                directory: CREDSTORE.into(),
            },
            ["creds", "fetch", directory] if !directory.starts_with('-') => Self::Fetch {
                directory: directory.into(),
            },
            ["creds", "serve"] => Self::Serve,
            ["identity"] => Self::Identity,
            ["ready"] => Self::Ready {
                target: TARGET.to_owned(),
            },
            ["ready", target] if !target.starts_with('-') => Self::Ready {
                target: (*target).to_owned(),
            },
            ["freeze"] => Self::Freeze,
            ["freeze", "listen"] => Self::FreezeListen,
            ["freeze", "guard", seconds, ..] if seconds.parse::<u32>().is_ok() => {
                Self::FreezeGuard {
                    seconds: seconds.parse().unwrap_or_default(),
                    // Places need not be text.
                    places: raw.get(3..).unwrap_or_default().to_vec(),
                }
            }
            ["thaw"] => Self::Thaw,
            _ => {
                return Err(ArgsError {
                    typed: words.join(" "),
                });
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(typed: &str) -> Result<Command, ArgsError> {
        Command::parse(typed.split_whitespace().map(OsString::from))
    }

    #[test]
    fn every_verb_of_the_help_is_known() {
        let fetch = |directory: &str| Command::Fetch {
            directory: directory.into(),
        };
        let ready = |target: &str| Command::Ready {
            target: target.to_owned(),
        };
        let table = [
            ("creds fetch", fetch("/run/credstore")),
            ("creds fetch /tmp/c", fetch("/tmp/c")),
            ("creds serve", Command::Serve),
            ("ready", ready("multi-user.target")),
            ("ready basic.target", ready("basic.target")),
            ("freeze", Command::Freeze),
            ("freeze listen", Command::FreezeListen),
            ("thaw", Command::Thaw),
            ("--version", Command::Version),
            ("--help", Command::Help),
        ];
        for (typed, expected) in table {
            assert_eq!(parse(typed), Ok(expected), "{typed}");
        }
        for typed in ["", "creds", "creds fetch --to", "serve", "ready a b"] {
            assert!(parse(typed).is_err(), "{typed}");
        }
    }
}
