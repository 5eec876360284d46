//! QEMU, with the machine that its makers have for short boots
//! (docs/system/i386/microvm.rst in its sources).

use std::ffi::OsString;
use std::path::Path;

use super::{SHARE_QUEUE, joined, share_socket, split};
use crate::machine::{Access, Machine, Nic};

/// Without `rtc=on` Linux polls a clock that is not there for more than a second; without
/// `force-legacy=false` its virtio devices are those of before 2014. `pit=off,pic=off` is what its makers
/// advise, and more: with ACPI Linux does not set the interrupt controller of the PC up, and a tick of the
/// timer before it has masked both arrives as vector 0, which it takes for a division by zero.
const ALWAYS: &str = "-M microvm,accel=kvm,isa-serial=on,rtc=on,pit=off,pic=off -cpu host -nodefaults \
     -no-user-config -no-reboot -display none -serial stdio -global virtio-mmio.force-legacy=false";

pub(super) fn arguments(machine: &Machine, dir: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> = split(ALWAYS).collect();
    words.extend(["-smp".into(), machine.vcpus.to_string().into()]);
    words.extend(["-m".into(), format!("{}M", machine.memory_mib).into()]);
    words.extend(["-kernel".into(), machine.kernel.clone().into()]);
    if let Some(initrd) = &machine.initrd {
        words.extend(["-initrd".into(), initrd.clone().into()]);
    }
    // The last one counts. The machine has no keyboard controller to reset it.
    let cmdline = format!("{} reboot=t", machine.cmdline);
    words.extend(["-append".into(), cmdline.into()]);
    for (index, disk) in machine.disks.iter().enumerate() {
        let readonly = match disk.access {
            Access::ReadOnly => "on",
            Access::ReadWrite => "off",
        };
        let drive = format!("if=none,id=disk{index},format=raw,readonly={readonly},file=");
        words.extend(["-drive".into(), joined(&drive, &disk.path, "")]);
        // No bus is named: QEMU takes them so that the guest finds disks in this order, and a disk that is
        // put on the first of them gets no interrupts with ACPI.
        let device = format!("virtio-blk-device,drive=disk{index}");
        words.extend(["-device".into(), device.into()]);
    }
    for (index, nic) in machine.nics.iter().enumerate() {
        words.extend(card(index, nic));
    }
    words.extend(shares(machine, dir));
    if let Some(cid) = machine.cid {
        words.extend([
            "-device".into(),
            format!("vhost-vsock-device,guest-cid={cid}").into(),
        ]);
    }
    words
}

fn card(index: usize, nic: &Nic) -> [OsString; 4] {
    let Nic { tap, mac, .. } = nic;
    let mut netdev = format!("tap,id=net{index},ifname={tap},script=no,downscript=no");
    let mut device = format!("virtio-net-device,netdev=net{index},mac={mac}");
    if nic.queues > 1 {
        netdev.push_str(&format!(",queues={}", nic.queues));
        device.push_str(",mq=on");
    }
    if nic.vhost {
        netdev.push_str(",vhost=on");
    }
    [
        "-netdev".into(),
        netdev.into(),
        "-device".into(),
        device.into(),
    ]
}

/// Memory that can be shared with who serves directories, and a device for each.
fn shares(machine: &Machine, dir: &Path) -> Vec<OsString> {
    if machine.shares.is_empty() {
        return Vec::new();
    }
    let size = machine.memory_mib;
    let memory = format!("memory-backend-memfd,id=ram,size={size}M,share=on");
    let mut words: Vec<OsString> = vec!["-object".into(), memory.into()];
    words.extend(split("-machine memory-backend=ram"));
    for (index, share) in machine.shares.iter().enumerate() {
        let (tag, queues) = (&share.tag, share.queues);
        let socket = joined(
            &format!("socket,id=fs{index},path="),
            &share_socket(dir, index),
            "",
        );
        let device = format!(
            "vhost-user-fs-device,chardev=fs{index},tag={tag},num-request-queues={queues},queue-size={SHARE_QUEUE}"
        );
        words.extend(["-chardev".into(), socket, "-device".into(), device.into()]);
    }
    words
}
