//! Logging in to real guests: without a network where the guest can, else by its address.

use anyhow::{Context as _, Result};
use fixture::system::{Distribution, Overlay};
use fixture::{Ended, Lab, Slot, TestVm};

/// What a guest needs whose distribution has a unit of its own for connections.
const DROP_IN: &str = include_str!("../systemd/guest/sshd@.service.d/slotvmm.conf");

fn boot(lab: &Lab, distribution: Distribution, wait: &str) -> Result<(Slot, TestVm)> {
    let slot = lab.slot("")?;
    let overlay = Overlay::new(&slot)?;
    overlay.put("etc/systemd/system/sshd@.service.d/slotvmm.conf", DROP_IN)?;
    slot.write_slot(&overlay.slot_text(lab, distribution)?)?;
    let mut vm = slot.boot()?;
    vm.guest
        .run(&format!("systemctl start {wait}"))
        .with_context(|| format!("{wait} does not come up"))?;
    Ok((slot, vm))
}

fn ssh(slot: &Slot, arguments: &[&str]) -> Result<Ended> {
    slot.call(&[&["ssh", "-o", "BatchMode=yes"], arguments].concat())
}

#[test]
fn guest_with_sockets_lets_the_key_of_the_boot_in_without_a_network() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let (slot, mut vm) = boot(&lab, Distribution::Trixie, "systemd-udevd.service")?;
    // systemd listens when the driver is there before it looks, which is up to the initrd.
    vm.guest.run("modprobe vmw_vsock_virtio_transport")?;
    vm.guest.run("systemctl daemon-reload")?;
    vm.guest.run("systemctl start sshd-vsock.socket")?;
    vm.guest.run("ip link set eth0 down")?;
    // The lab's own key is in the image, and must not be what opens.
    vm.guest.run("rm -r /root/.ssh")?;
    let expected = vm.guest.run("cat /proc/sys/kernel/random/boot_id")?;
    let ended = ssh(&slot, &["slot1", "cat", "/proc/sys/kernel/random/boot_id"])?;
    assert_eq!(ended.expect_code(0)?.stdout.trim(), expected);
    let ended = ssh(&slot, &["root@slot1", "exit 7"])?;
    ended.expect_code(7)?;

    let key = slot.path("run/slot1/ssh_key");
    assert!(key.exists());
    drop(slot.call(&["stop", "slot1"])?.expect_code(0)?);
    vm.wait()?.expect_code(0)?;
    assert!(!key.exists());
    Ok(())
}

#[test]
fn guest_without_is_reached_by_its_address() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let (slot, _vm) = boot(&lab, Distribution::Bookworm, "multi-user.target")?;
    let key = lab.image("demo/id");
    let key = key.to_string_lossy();
    let known = format!("UserKnownHostsFile={}", slot.path("known_hosts").display());
    let options = ["-o", "StrictHostKeyChecking=accept-new", "-o", &known, "-i"];
    let options = [&options[..], &[&key, "slot1", "--", "hostname"]].concat();
    let ended = ssh(&slot, &options)?.expect_code(0)?;
    assert!(ended.stderr.contains("trying 10.1.0.2"), "{ended:?}");
    assert_eq!(ended.stdout.trim(), "slot1");
    let names = std::fs::read_to_string(slot.path("known_hosts"))?;
    assert!(names.starts_with("slot1 "), "{names}");
    Ok(())
}
