//! Machines whose devices are announced on the kernel command line: they have an MP table and no
//! ACPI, and with it no power button.

use anyhow::Result;
use fixture::{Lab, Slot};
use nix::sys::signal::Signal;

/// A slot without ACPI. Debian's generic kernels read MP tables, its cloud kernels do not; neither
/// takes devices from the command line, so there is no network to wait for.
fn without_acpi(lab: &Lab, vcpus: u8) -> Result<Slot> {
    let kernel = lab.image("kernels/6.1-generic/vmlinux");
    let initrd = lab.image("kernels/6.1-generic/initrd");
    let slot = lab.slot("")?;
    slot.write_slot(&format!(
        "net = []\n[boot]\nkernel = {kernel:?}\ninitrd = {initrd:?}\ndiscovery = \"cmdline\"\n\
         params = [\"quiet\"]\n[machine]\nvcpus = {vcpus}\nmemory = 512\n"
    ))?;
    Ok(slot)
}

#[test]
fn interrupts_are_numbered_as_the_command_line_says_and_only_a_hard_stop_ends_it() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = without_acpi(&lab, 3)?;
    let mut vm = slot.boot()?;
    let parameters = vm.guest.run("cat /proc/cmdline")?;
    for device in ["4K@0xd0001000:7", "4K@0xd000c000:8"] {
        let parameter = format!("virtio_mmio.device={device}");
        assert!(parameters.contains(&parameter), "{parameters}");
    }
    assert_eq!(vm.guest.number("nproc")?, 3);
    vm.guest.run("test ! -e /sys/firmware/acpi/tables")?;

    // What is typed here arrives by an interrupt that has the number of its pin.
    let console = "grep -E '^ +4: .* IO-APIC +4-edge +ttyS0$' /proc/interrupts";
    let before = vm.guest.run(console)?;
    assert_ne!(vm.guest.run(console)?, before);

    let refused = slot.call(&["stop", "slot1"])?;
    refused.expect_error(1, "no power button")?;
    assert_eq!(slot.state()?, "running");

    vm.guest.send("poweroff -f")?;
    vm.guest.screen().see(0, "reboot: System halted")?;
    assert!(vm.is_running()?);
    vm.signal(Signal::SIGTERM)?;
    let ended = vm.wait()?.expect_code(22)?;
    assert!(ended.stderr.contains("no power button"), "{ended:?}");
    Ok(())
}

#[test]
fn reboot_ends_a_machine_without_acpi() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let mut vm = without_acpi(&lab, 1)?.boot()?;
    vm.guest.send("reboot -f")?;
    vm.wait()?.expect_code(10)?;
    Ok(())
}
