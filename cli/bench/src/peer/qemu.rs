//! QEMU, with the machine that its makers have for short boots
//! (docs/system/i386/microvm.rst in its sources).

use std::ffi::OsString;

use super::{joined, split};
use crate::machine::{Access, Machine};

/// Without `rtc=on` Linux polls a clock that is not there for more than a second; without
/// `force-legacy=false` its virtio devices are those of before 2014. `pit=off,pic=off` is what its makers
/// advise, and more: with ACPI Linux does not set the interrupt controller of the PC up, and a tick of the
/// timer before it has masked both arrives as vector 0, which it takes for a division by zero.
const ALWAYS: &str = "-M microvm,accel=kvm,isa-serial=on,rtc=on,pit=off,pic=off -cpu host -nodefaults \
     -no-user-config -no-reboot -display none -serial stdio -global virtio-mmio.force-legacy=false";

pub(super) fn arguments(machine: &Machine) -> Vec<OsString> {
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
    if let Some(cid) = machine.cid {
        words.extend([
            "-device".into(),
            format!("vhost-vsock-device,guest-cid={cid}").into(),
        ]);
    }
    words
}
