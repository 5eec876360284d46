//! Arguments of `bench`.

use std::path::PathBuf;

use boot_bench::peer::{Kind, Peer};
use clap::{Args, Subcommand, ValueEnum};

// What can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Boot a slot again and again, in turns with other monitors
    Boot(BenchBoot),
}

// Arguments of `bench boot`.
#[derive(Debug, Args)]
#[command(
    after_help = "Disks are copied first and every boot writes to a copy of its own; the slot must not run.
Network cards are on taps of the benchmark's own. docs/performance.md explains the figures.

Examples:
  slotvmm bench boot slot1
  slotvmm bench boot slot1 -n 30 --html report.html
  slotvmm bench boot slot1 --compare qemu --json > report.json
  slotvmm bench boot slot1 --peer firecracker=/opt/firecracker
  slotvmm bench boot slot1 --peer slotvmm-before=/tmp/slotvmm    another build
  slotvmm bench boot slot1 --together 5
  slotvmm bench boot slot1 --mark 'ready=login: '"
)]
pub(crate) struct BenchBoot {
    /// Name of a slot, or path of a slot's file
    pub(crate) slot: String,
    /// Timed boots of each monitor, besides one to fill caches and one that is looked at
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) boots: u32,
    /// Compare with these only: qemu, cloud-hypervisor, firecracker, or none. Else with each of them
    /// that is on the search path
    #[arg(long, value_name = "MONITOR", value_delimiter = ',')]
    pub(crate) compare: Option<Vec<Compared>>,
    /// Compare with this program: the monitor's name, with a hyphen and more where there are several,
    /// or slotvmm-ANYTHING for another build
    #[arg(long = "peer", value_name = "NAME=PATH")]
    pub(crate) peers: Vec<OtherProgram>,
    /// A text on the console that means init, sysinit or ready
    #[arg(long = "mark", value_name = "MARK=TEXT")]
    pub(crate) marks: Vec<MarkText>,
    /// When a boot is over. Usually `ready` when the slot's file says how that is told, else `exit`
    #[arg(long, value_enum)]
    pub(crate) until: Option<Until>,
    /// Give a boot up after so many seconds; the slot's own `ready.timeout` unless given
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u32>,
    /// Boot without network cards
    #[arg(long)]
    pub(crate) no_net: bool,
    /// Copy disks to a directory here instead of the cache directory
    #[arg(long, value_name = "DIR")]
    pub(crate) scratch: Option<PathBuf>,
    /// Start so many machines at once, after one alone, instead of comparing with others
    #[arg(long, value_name = "N", conflicts_with_all = ["compare", "peers", "html"], value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) together: Option<u32>,
    /// Write a page with figures and timelines
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Write the results to a file, as --json prints them
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
    /// As that of `run`
    #[arg(long)]
    pub(crate) ignore_cpu_check: bool,
}

/// When a boot is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Until {
    /// When the guest is ready; the machine is ended then
    Ready,
    /// When the guest ends the machine
    Exit,
}

/// A monitor to compare with, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compared {
    /// Nobody.
    None,
    /// This one, from the search path.
    With(Kind),
}

impl std::str::FromStr for Compared {
    type Err = boot_bench::peer::UnknownKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            name => name.parse().map(Self::With),
        }
    }
}

/// A program that was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OtherProgram {
    /// Another build of ours.
    Slotvmm {
        /// What it is called in results.
        name: String,
        /// The program.
        program: PathBuf,
    },
    /// Somebody else's.
    Peer(Peer),
}

impl std::str::FromStr for OtherProgram {
    type Err = boot_bench::peer::PeerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((name, path)) if name.starts_with("slotvmm-") && !path.is_empty() => {
                Ok(Self::Slotvmm {
                    name: name.to_owned(),
                    program: path.into(),
                })
            }
            _ => text.parse().map(Self::Peer),
        }
    }
}

/// What a text on the console means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MarkText(pub(crate) boot_bench::boot::Text);

impl std::str::FromStr for MarkText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        use boot_bench::boot::{Mark, Text};
        let (name, shown) = text
            .split_once('=')
            .filter(|(_, shown)| !shown.is_empty())
            .ok_or("expected MARK=TEXT, such as 'ready=login: '")?;
        let mark = [Mark::Init, Mark::Sysinit, Mark::Ready]
            .into_iter()
            .find(|mark| mark.name() == name)
            .ok_or_else(|| format!("{name:?} is no mark, expected init, sysinit or ready"))?;
        Ok(Self(Text::new(mark, &[shown])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_build_of_ours_is_told_from_peers() {
        let ours: OtherProgram = "slotvmm-before=/tmp/x".parse().unwrap();
        assert!(matches!(ours, OtherProgram::Slotvmm { name, .. } if name == "slotvmm-before"));
        assert!(matches!("qemu=/x".parse(), Ok(OtherProgram::Peer(_))));
        let unknown = "bochs=/x".parse::<OtherProgram>().unwrap_err().to_string();
        assert!(unknown.contains("firecracker"), "{unknown}");
        assert!("slotvmm-before=".parse::<OtherProgram>().is_err());
    }

    #[test]
    fn marks_are_named_and_have_a_text() {
        assert!("ready=login: ".parse::<MarkText>().is_ok());
        assert!("ready=".parse::<MarkText>().is_err());
        let unknown = "boot=x".parse::<MarkText>().unwrap_err();
        assert!(unknown.contains("sysinit"), "{unknown}");
    }

    #[test]
    fn comparison_can_be_left_out() {
        assert_eq!("none".parse(), Ok(Compared::None));
        assert_eq!("qemu".parse(), Ok(Compared::With(Kind::Qemu)));
        assert!("xen".parse::<Compared>().is_err());
    }
}
