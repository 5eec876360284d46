//! cloud-hypervisor (docs/api.md and `--help` of it).

use std::ffi::OsString;
use std::path::Path;

use super::{SHARE_QUEUE, joined, share_socket, split};
use crate::machine::{Access, Machine};

pub(super) fn arguments(machine: &Machine, dir: &Path, socket: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> = split("--serial tty --console off").collect();
    words.extend(["--cpus".into(), format!("boot={}", machine.vcpus).into()]);
    let mut memory = format!("size={}M", machine.memory_mib);
    if !machine.shares.is_empty() {
        memory.push_str(",shared=on");
    }
    words.extend(["--memory".into(), memory.into()]);
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
    if !machine.nics.is_empty() {
        words.push("--net".into());
    }
    words.extend(machine.nics.iter().map(|nic| {
        // Queues are counted, not pairs of them.
        let queues = u16::from(nic.queues).saturating_mul(2);
        format!("tap={},mac={},num_queues={queues}", nic.tap, nic.mac).into()
    }));
    if !machine.shares.is_empty() {
        words.push("--fs".into());
    }
    words.extend(machine.shares.iter().enumerate().map(|(index, share)| {
        let (tag, queues) = (&share.tag, share.queues);
        let rest = format!(",num_queues={queues},queue_size={SHARE_QUEUE}");
        joined(
            &format!("tag={tag},socket="),
            &share_socket(dir, index),
            &rest,
        )
    }));
    if let Some(cid) = machine.cid {
        words.push("--vsock".into());
        words.push(joined(&format!("cid={cid},socket="), socket, ""));
    }
    words
}
