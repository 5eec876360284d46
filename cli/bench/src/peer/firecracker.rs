//! Firecracker with a configuration file (docs/getting-started.md of it).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;

use serde_json::json;

use super::split;
use crate::machine::{Access, Machine};

pub(super) fn arguments(machine: &Machine, dir: &Path, socket: &Path) -> io::Result<Vec<OsString>> {
    let drives = machine.disks.iter().enumerate().map(|(index, disk)| {
        json!({
            "drive_id": format!("disk{index}"),
            "path_on_host": disk.path,
            // The parameters say which disk is the root, as they do for the others.
            "is_root_device": false,
            "is_read_only": disk.access == Access::ReadOnly,
        })
    });
    let cards = machine.nics.iter().enumerate().map(|(index, nic)| {
        json!({
            "iface_id": format!("net{index}"),
            "guest_mac": nic.mac,
            "host_dev_name": nic.tap,
        })
    });
    let mut file = json!({
        "boot-source": {
            "kernel_image_path": machine.kernel,
            "initrd_path": machine.initrd,
            "boot_args": machine.cmdline,
        },
        "drives": drives.collect::<Vec<_>>(),
        "network-interfaces": cards.collect::<Vec<_>>(),
        "machine-config": { "vcpu_count": machine.vcpus, "mem_size_mib": machine.memory_mib },
    });
    if let (Some(cid), Some(file)) = (machine.cid, file.as_object_mut()) {
        let vsock = json!({ "guest_cid": cid, "uds_path": socket });
        file.insert("vsock".to_owned(), vsock);
    }
    let path = dir.join("firecracker.json");
    fs::write(&path, file.to_string())?;
    let mut words: Vec<OsString> = split("--no-api --config-file").collect();
    words.push(path.into());
    Ok(words)
}
