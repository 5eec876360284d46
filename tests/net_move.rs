//! A state that moves to another slot comes up with the address and the name of that slot, without
//! a change inside: real systemd guests that have no idea of slots.

use std::fs;

use anyhow::Result;
use fixture::system::{Distribution, Overlay};
use fixture::{Lab, Slot, TestVm};

/// Takes the image's own networks by slot away.
fn without_networks(slot: &Slot) -> Result<Overlay> {
    let overlay = Overlay::new(slot)?;
    for n in 1..=9 {
        let path = format!("etc/systemd/network/10-slot{n}.network");
        overlay.link("/dev/null", &path)?;
    }
    Ok(overlay)
}

/// Boots the state as the slot called `name`, and looks what it takes itself for.
fn identity(slot: &Slot, name: &str) -> Result<String> {
    let mut vm = TestVm::start(slot.command(&["run", name, "--console"]))?;
    vm.guest.wait_ready()?;
    vm.guest
        .run("until [ -n \"$(ip -4 route show default)\" ]; do sleep 0.1; done")?;
    let address = vm
        .guest
        .run("ip -c=never -4 -o address show scope global")?;
    let address = address.split_whitespace().nth(3).unwrap_or_default();
    let route = vm.guest.run("ip -c=never -4 route show default")?;
    let gateway = route.split_whitespace().nth(2).unwrap_or_default();
    let host = vm.guest.run("hostname")?;
    let seen = format!("{host} {address} {gateway}");
    vm.guest
        .run(&format!("ping -c 1 -W 20 {gateway} >/dev/null"))?;
    vm.guest.run("echo x >>/var/lib/boots")?;
    let boots = vm.guest.run("wc -l </var/lib/boots")?;
    // A clean end, so that the disk is whole; the guest's own way takes longer.
    vm.guest.send("sync; systemctl poweroff -ff")?;
    vm.wait()?.expect_code(0)?;
    Ok(format!("{seen} boots {boots}"))
}

/// Moves the state of slot1 to slot `to`.
fn give(slot: &Slot, to: &str) -> Result<()> {
    let directory = slot.path("state").join(to);
    fs::create_dir_all(&directory)?;
    Ok(fs::rename(slot.data_image(), directory.join("data.img"))?)
}

/// Boots as slot1, then as a slot with a number that nothing in the guest has heard of.
fn moves(slot: &Slot, text: &str, names: [&str; 2]) -> Result<()> {
    slot.write_slot(text)?;
    fs::write(slot.path("etc/slots/slot42.toml"), text)?;
    slot.call(&["net", "apply"])?.expect_code(0)?;
    let first = identity(slot, "slot1")?;
    assert_eq!(first, format!("{} 10.1.0.2/24 10.1.0.1 boots 1", names[0]));
    give(slot, "slot42")?;
    let second = identity(slot, "slot42")?;
    assert_eq!(
        second,
        format!("{} 10.42.0.2/24 10.42.0.1 boots 2", names[1])
    );
    Ok(())
}

#[test]
fn systemd_guest_takes_its_address_from_kernel_parameters() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    let overlay = without_networks(&slot)?;
    let generator = "/usr/lib/systemd/system/systemd-network-generator.service";
    overlay.link(
        generator,
        "etc/systemd/system/sysinit.target.wants/systemd-network-generator.service",
    )?;
    let text = overlay.slot_text(&lab, Distribution::Trixie)?;
    moves(&slot, &text, ["slot1", "slot42"])
}

#[test]
fn systemd_guest_takes_its_address_from_dhcp() -> Result<()> {
    let covered = "net_dhcp has guests that do DHCP, and the other test a systemd that moves";
    let Some(lab) = Lab::enter_for_long(covered)? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    let overlay = without_networks(&slot)?;
    overlay.put(
        "etc/systemd/network/50-dhcp.network",
        "[Match]\nType=ether\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n",
    )?;
    let text = overlay.slot_text(&lab, Distribution::Bookworm)?;
    let text = text.replacen("[boot]\n", "[boot]\nidentity = \"none\"\n", 1);
    // Its name is its own here: a name in its files is stronger than one from DHCP.
    moves(&slot, &format!("{text}[[net]]\ndhcp = true\n"), ["slot"; 2])
}
