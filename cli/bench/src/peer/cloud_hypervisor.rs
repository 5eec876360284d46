//! cloud-hypervisor (docs/api.md and `--help` of it).

use std::ffi::OsString;
use std::path::Path;

use super::{joined, split};
use crate::machine::{Access, Machine};

pub(super) fn arguments(machine: &Machine, socket: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> = split("--serial tty --console off").collect();
    words.extend(["--cpus".into(), format!("boot={}", machine.vcpus).into()]);
    words.extend([
        "--memory".into(),
        format!("size={}M", machine.memory_mib).into(),
    ]);
    words.extend(["--kernel".into(), machine.kernel.clone().into()]);
    if let Some(initrd) = &machine.initrd {
        words.extend(["--initramfs".into(), initrd.clone().into()]);
    }
    words.extend(["--cmdline".into(), machine.cmdline.clone().into()]);
    if !machine.disks.is_empty() {
        // One option with several values: each further `--disk` would be an error.
        words.push("--disk".into());
    }
    words.extend(machine.disks.iter().map(|disk| {
        let readonly = match disk.access {
            Access::ReadOnly => ",readonly=on",
            Access::ReadWrite => ",readonly=off",
        };
        joined("path=", &disk.path, readonly)
    }));
    if let Some(cid) = machine.cid {
        words.push("--vsock".into());
        words.push(joined(&format!("cid={cid},socket="), socket, ""));
    }
    words
}
