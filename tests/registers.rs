//! Device registers as memory of the guest's, and as exits: everything works either way, and with
//! memory nothing leaves the guest for an interrupt.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result, ensure};
use fixture::exits::UserExits;
use fixture::{Lab, PATIENCE, Slot, TestVm, net};

/// Reads of 4 KiB whose exits are counted.
const READS: u64 = 2000;

/// Takes every virtio device from its driver, and gives it back.
const REBIND: &str = "for d in /sys/bus/virtio/drivers/*/virtio*; do \
     n=${d##*/}; cd ${d%/*}; echo $n >unbind; echo $n >bind; done; cd /";

/// A slot with a device of every kind, and the program for tests in its share.
fn slot(lab: &Lab, registers: &str) -> Result<Slot> {
    let slot = lab.slot("")?;
    let source = slot.path("shared");
    fs::create_dir(&source)?;
    let program = std::env::var_os("SLOTVMM_PROBE_BIN").context("SLOTVMM_PROBE_BIN is not set")?;
    fs::copy(program, source.join("probe"))?;
    slot.write_slot(&format!(
        "[machine]\nvcpus = 2\nregisters = {registers:?}\n\
         [[fs]]\ntag = \"share\"\nsource = {source:?}\n"
    ))?;
    Ok(slot)
}

fn boot(slot: &Slot) -> Result<TestVm> {
    let mut vm = slot.boot()?;
    vm.guest.run("load virtiofs")?;
    vm.guest.run("load vmw_vsock_virtio_transport")?;
    vm.guest.run("mkdir -p /share")?;
    Ok(vm)
}

/// Sends a line to the guest's echo over its socket device.
fn expect_echo(slot: &Slot) -> Result<()> {
    let mut stream = UnixStream::connect(slot.path("run/slot1/vsock.sock"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"CONNECT 7\n")?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        answer.extend(byte);
    }
    ensure!(answer.starts_with(b"OK "), "{answer:?}");
    stream.write_all(b"hello")?;
    let mut echo = [0; 5];
    stream.read_exact(&mut echo)?;
    ensure!(echo == *b"hello", "{echo:?}");
    Ok(())
}

/// Uses every device.
fn use_devices(slot: &Slot, vm: &mut TestVm) -> Result<()> {
    vm.guest.run("mount -t virtiofs -o ro share /share")?;
    vm.guest.run("/share/probe direct /dev/vda 50")?;
    vm.guest.run("/share/probe direct /dev/vdb 50")?;
    let write = "seq 1 200000 | dd of=/dev/vdb bs=64k conv=fsync,notrunc 2>/dev/null";
    vm.guest.run(write)?;
    vm.guest.run("echo 3 >/proc/sys/vm/drop_caches")?;
    let written = vm.guest.run("seq 1 200000 | head -c 1000000 | md5sum")?;
    assert_eq!(vm.guest.run("head -c 1000000 /dev/vdb | md5sum")?, written);
    assert_eq!(vm.guest.number("head -c 64 /dev/hwrng | wc -c")?, 64);
    assert!(net::answers_ping()?, "the network card does not answer");
    let start = vm.guest.screen().position();
    vm.guest.run("/share/probe vsock echo 7 &")?;
    vm.guest.screen().see(start, "PROBE listens")?;
    expect_echo(slot)?;
    vm.guest.run("killall probe; umount -l /share")?;
    Ok(())
}

#[test]
fn every_device_works_and_comes_back_however_its_registers_are_read() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    for registers in ["memory", "exits"] {
        let slot = slot(&lab, registers)?;
        let mut vm = boot(&slot)?;
        let used = use_devices(&slot, &mut vm);
        used.with_context(|| format!("{registers}: after boot"))?;
        slot.call(&["pause", "slot1"])?.expect_code(0)?;
        slot.call(&["resume", "slot1"])?.expect_code(0)?;
        vm.guest.run(REBIND)?;
        let address = "ip link set eth0 up && ip addr add 10.1.0.2/24 dev eth0";
        vm.guest.run(address)?;
        let used = use_devices(&slot, &mut vm);
        used.with_context(|| format!("{registers}: after a pause and new drivers"))?;
        // What is at no position reads as it does where no device is.
        let nothing = vm.guest.run("devmem 0xd0002000 32; devmem 0xd000f000 8")?;
        assert_eq!(nothing, "0xFFFFFFFF\n0xFF", "{registers}");
        vm.power_off()?;
    }
    Ok(())
}

#[test]
fn interrupts_of_a_disk_and_a_share_take_no_exit() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let mut of_reads = Vec::new();
    for registers in ["memory", "exits"] {
        let slot = slot(&lab, registers)?;
        fs::write(slot.path("shared/file"), vec![7; 8 << 20])?;
        let mut vm = boot(&slot)?;
        vm.guest.run("mount -t virtiofs -o ro share /share")?;
        vm.guest
            .run("cp /share/probe /tmp; /tmp/probe direct /dev/vdb 10")?;
        for (device, command) in [
            ("disk", format!("/tmp/probe direct /dev/vdb {READS}")),
            ("share", format!("/tmp/probe direct /share/file {READS}")),
        ] {
            let exits = UserExits::count()?;
            let said = vm.guest.run(&command)?;
            let exits = exits.so_far()?;
            println!("registers = {registers}, {device}: {exits} exits for {READS} reads, {said}");
            of_reads.push(exits);
        }
        vm.power_off()?;
    }
    let [disk, share, disk_exits, share_exits] = of_reads[..] else {
        anyhow::bail!("Not everything was counted");
    };
    // The console's share of them is a few dozen.
    assert!(disk <= READS / 10 && share <= READS / 10);
    assert!(
        disk_exits >= READS && share_exits >= READS,
        "the rest are counted"
    );
    Ok(())
}
