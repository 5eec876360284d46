//! The lines of a notification, and the few of them that mean something.

use std::fmt;

/// Longest line that is looked at; a longer one is dropped whole. systemd's longest is a status of
/// some hundred bytes.
pub const MAX_LINE_BYTES: usize = 1024;

/// Most bytes of a status text that are kept.
pub const MAX_STATUS_BYTES: usize = 200;

/// Longest name of a unit that systemd takes (`UNIT_NAME_MAX`).
const MAX_TARGET_BYTES: usize = 255;

/// What a guest says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// `READY=1`: nothing is left to start. systemd says so in emergency mode as well.
    Ready,
    /// `STATUS=`: free text, without control characters.
    Status(String),
    /// `X_SYSTEMD_UNIT_ACTIVE=`: a target is reached (systemd 256 and later).
    Active(Target),
    /// `X_SYSTEMD_UNIT_INACTIVE=`: a target is left.
    Inactive(Target),
    /// `X_SYSTEMD_SHUTDOWN=`: every process is gone, and this comes next.
    Shutdown(Shutdown),
    /// `EXIT_STATUS=`: what `systemctl exit` was given.
    ExitStatus(u8),
}

impl Report {
    /// The report in a line without its line break; nothing when it is not one of ours.
    fn parse(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?;
        let (key, value) = line.split_once('=')?;
        match key {
            "READY" => (value == "1").then_some(Self::Ready),
            "STATUS" => Some(Self::Status(printable(value))),
            "X_SYSTEMD_UNIT_ACTIVE" => value.parse().ok().map(Self::Active),
            "X_SYSTEMD_UNIT_INACTIVE" => value.parse().ok().map(Self::Inactive),
            "X_SYSTEMD_SHUTDOWN" => Shutdown::parse(value).map(Self::Shutdown),
            "EXIT_STATUS" => value.parse().ok().map(Self::ExitStatus),
            _ => None,
        }
    }
}

/// Text that can be shown on a terminal and in a log.
fn printable(text: &str) -> String {
    let mut kept = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if kept.len().saturating_add(c.len_utf8()) > MAX_STATUS_BYTES {
            break;
        }
        kept.push(c);
    }
    kept
}

/// The name of a target, such as `multi-user.target`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target(String);

/// A name that no target has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Expected the name of a target, such as multi-user.target")]
pub struct TargetError;

impl std::str::FromStr for Target {
    type Err = TargetError;

    fn from_str(name: &str) -> Result<Self, TargetError> {
        let stem = name.strip_suffix(".target").unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        if stem.is_empty() || name.len() > MAX_TARGET_BYTES || !stem.chars().all(plain) {
            return Err(TargetError);
        }
        Ok(Self(name.to_owned()))
    }
}

impl Target {
    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a guest ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// It powers the machine off.
    Poweroff,
    /// It resets the machine.
    Reboot,
    /// Its processors stop, and the machine stays.
    Halt,
    /// It starts another kernel by itself.
    Kexec,
}

impl Shutdown {
    fn parse(verb: &str) -> Option<Self> {
        Some(match verb {
            "poweroff" | "exit" => Self::Poweroff,
            "reboot" => Self::Reboot,
            "halt" => Self::Halt,
            "kexec" => Self::Kexec,
            _ => return None,
        })
    }
}

/// Splits what arrives, in pieces of any size, into lines.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    /// The line is longer than any we know.
    too_long: bool,
}

impl Parser {
    /// Takes some bytes and hands every report that they complete to `hear`.
    pub fn feed(&mut self, bytes: &[u8], mut hear: impl FnMut(Report)) {
        for byte in bytes {
            match byte {
                b'\n' => self.end(&mut hear),
                _ if self.line.len() < MAX_LINE_BYTES => self.line.push(*byte),
                _ => self.too_long = true,
            }
        }
    }

    /// The line ends here: the last one of a message has no line break.
    pub fn end(&mut self, mut hear: impl FnMut(Report)) {
        if !self.too_long
            && let Some(report) = Report::parse(&self.line)
        {
            hear(report);
        }
        self.line.clear();
        self.too_long = false;
    }
}
