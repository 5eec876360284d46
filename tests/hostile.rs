//! A guest that writes garbage to every register and ring: the device asks for a reset, the others
//! work on, and a well-behaved driver can take the device over afterwards.

use anyhow::{Context as _, Result, ensure};
use fixture::{Lab, TestVm, net};

/// Bits of a virtio device's status (virtio 1.2 §2.1).
const NEEDS_RESET: u64 = 0x40;

/// Writes to all registers, one word at a time. Byte and halfword writes are no part of the
/// transport and come as well.
const SWEEP: &str = "for v in 0xffffffff 0x5a5a5a5a 0; do for o in $(seq 0 4 316); do \
     devmem $((B + o)) 32 $v; done; done; \
     for o in 0 1 2 5 80 81 112 115 256 257; do devmem $((B + o)) 8 0xff; done; \
     for o in 2 48 80 114 256 258; do devmem $((B + o)) 16 0xffff; done";

/// A driver that is polite up to the addresses of queue `$Q`'s rings (virtio 1.2 §3.1, §4.2.2):
/// `open_queue LOW HIGH`, then the low halves of the avail and the used ring.
const HANDSHAKE: &str = "w() { devmem $((B + $1)) 32 $2; }; open_queue() { \
     w 0x70 0; w 0x70 1; w 0x70 3; w 0x24 1; w 0x20 1; w 0x24 0; w 0x20 0; w 0x70 11; \
     w 0x30 $Q; w 0x38 8; \
     w 0x80 $1; w 0x84 $2; w 0x90 $3; w 0x94 $2; w 0xa0 $4; w 0xa4 $2; \
     w 0x44 1; w 0x70 15; }";

/// Memory that the guest's kernel does not use when it is told to use 192 MiB of 256.
const SPARE: &str = "0xd000000";

/// `desc NUMBER ADDRESS LENGTH FLAGS_AND_NEXT` writes a descriptor; `avail INDEX HEAD` makes it
/// available; `empty` clears rings and descriptors.
const RING_WRITER: &str = "put() { devmem $((R + $1)) 32 $2; }; \
     desc() { put $((16 * $1)) $2; put $((16 * $1 + 4)) 0; put $((16 * $1 + 8)) $3; \
     put $((16 * $1 + 12)) $4; }; \
     avail() { put 0x1004 $2; put 0x1000 $(($1 << 16)); }; \
     empty() { for n in 0 1 2; do desc $n 0 0 0; done; avail 0 0; put 0x2000 0; }";

/// What a device may do about a ring.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// It asks for a reset: the ring makes no sense.
    Reset,
    /// That, or an error for this request alone.
    ResetOrUsed,
    /// It does what it is asked to do.
    Used,
}

/// Rings in good memory with garbage in them, as commands of [`RING_WRITER`]. Flags: 1 for one more
/// descriptor (whose number is in the upper half), 2 for one that the device writes, 4 for indirect.
const GARBAGE: [(&str, &str, Answer); 7] = [
    (
        "more available than the queue holds",
        "avail 0x7fff 0",
        Answer::Reset,
    ),
    ("a head beyond the queue", "avail 1 0xffff", Answer::Reset),
    (
        "a chain that bites its tail",
        "desc 0 $R 16 1; avail 1 0",
        Answer::Reset,
    ),
    (
        "a next beyond the queue",
        "desc 0 $R 16 0xffff0001; avail 1 0",
        Answer::Reset,
    ),
    (
        "a buffer beyond memory",
        "desc 0 0xe0000000 16 0; avail 1 0",
        Answer::ResetOrUsed,
    ),
    (
        "a buffer of 4 GiB",
        "desc 0 $R 0xffffffff 2; avail 1 0",
        Answer::ResetOrUsed,
    ),
    (
        "an indirect table of 3 bytes",
        "desc 0 $R 3 4; avail 1 0",
        Answer::ResetOrUsed,
    ),
];

/// Addresses of rings, low and high half: beyond all memory, in the device itself, wrapping around.
const RINGS: [(&str, &str); 3] = [
    ("0xfffff000", "0x7fff"),
    ("0xd0000000", "0"),
    ("0xfffffff0", "0xffffffff"),
];

/// A device as the guest names it: its node, and where its registers are.
struct Victim {
    name: &'static str,
    node: &'static str,
    registers: &'static str,
    /// The queue that is looked at as soon as it is kicked.
    queue: u8,
}

const DISK: Victim = Victim {
    name: "the data disk",
    node: "LNRO0005:01",
    registers: "0xd0001000",
    queue: 0,
};

const CARD: Victim = Victim {
    name: "the network card",
    node: "LNRO0005:02",
    registers: "0xd0008000",
    queue: 1,
};

const ENTROPY: Victim = Victim {
    name: "the entropy source",
    node: "LNRO0005:03",
    registers: "0xd000c000",
    queue: 0,
};

const DRIVER: &str = "/sys/bus/platform/drivers/virtio-mmio";

impl Victim {
    /// Takes the device from its driver, so that its registers are anybody's.
    fn unbind(&self, vm: &mut TestVm) -> Result<()> {
        vm.guest
            .run(&format!("echo {} >{DRIVER}/unbind", self.node))?;
        let Self {
            registers, queue, ..
        } = self;
        vm.guest
            .run(&format!("B={registers} Q={queue} R={SPARE}"))?;
        vm.guest.run(HANDSHAKE)?;
        vm.guest.run(RING_WRITER)?;
        let magic = vm.guest.run("devmem $B 32")?;
        ensure!(
            magic == "0x74726976",
            "{} is not at its registers: {magic}",
            self.name
        );
        Ok(())
    }

    /// Kicks a queue with `ring` in it, and checks what the device does about it.
    fn kick(&self, vm: &mut TestVm, ring: &str, answer: Answer) -> Result<()> {
        let addresses = "$R 0 $((R + 0x1000)) $((R + 0x2000))";
        vm.guest.run(&format!(
            "w 0x70 0; empty; {ring}; open_queue {addresses}; w 0x50 $Q"
        ))?;
        let outcome = "for i in $(seq 100); do s=$(devmem $((B + 0x70)) 32); \
                       u=$(devmem $((R + 0x2002)) 16); \
                       [ $((s & 64)) = 64 -o $((u)) != 0 ] && break; usleep 20000; done; \
                       echo $((s)) $((u))";
        let outcome = vm.guest.run(outcome)?;
        let (status, used) = outcome.split_once(' ').context("No outcome")?;
        let needs_reset = status.parse::<u64>()? & NEEDS_RESET != 0;
        let accepted = match answer {
            Answer::Reset => needs_reset,
            Answer::ResetOrUsed => needs_reset || used != "0",
            Answer::Used => !needs_reset && used == "1",
        };
        ensure!(accepted, "status {status}, {used} used");
        Ok(())
    }

    /// Gives it to its driver again.
    fn bind(&self, vm: &mut TestVm) -> Result<()> {
        vm.guest.run("devmem $((B + 0x70)) 32 0")?;
        vm.guest
            .run(&format!("echo {} >{DRIVER}/bind", self.node))?;
        Ok(())
    }

    /// Breaks the ring in every way, and checks that the device asks for a reset each time.
    fn attack(&self, vm: &mut TestVm) -> Result<()> {
        vm.guest.run(SWEEP)?;
        for (low, high) in RINGS {
            vm.guest
                .run(&format!("open_queue {low} {high} {low} {low}; w 0x50 $Q"))?;
            let status = "s=0; for i in $(seq 100); do s=$(devmem $((B + 0x70)) 32); \
                          [ $((s & 64)) = 64 ] && break; usleep 20000; done; echo $((s))";
            let status = vm.guest.number(status)?;
            ensure!(
                status & NEEDS_RESET != 0,
                "{}: status {status:#x} after a ring at {high}:{low}",
                self.name
            );
        }
        for (what, ring, answer) in GARBAGE {
            self.kick(vm, ring, answer)
                .with_context(|| format!("{}: {what}", self.name))?;
        }
        // Garbage on top of a broken device.
        vm.guest.run(SWEEP)?;
        ensure!(vm.is_running()?, "{} ended the machine", self.name);
        Ok(())
    }
}

#[test]
fn broken_devices_ask_for_a_reset_and_work_again_after_it() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("[boot]\nparams = [\"mem=192M\"]\n")?;
    let mut vm = slot.boot()?;
    let written = "echo precious >/tmp/p; dd if=/tmp/p of=/dev/vdb conv=fsync,notrunc 2>/dev/null";
    vm.guest.run(written)?;

    DISK.unbind(&mut vm)?;
    DISK.attack(&mut vm)?;
    assert!(net::answers_ping()?, "the network card went with the disk");
    vm.guest.run("head -c 512 /dev/vda >/dev/null")?;
    DISK.bind(&mut vm)?;
    assert_eq!(vm.guest.run("head -c 8 /dev/vdb")?, "precious");
    vm.guest.run(written)?;

    CARD.unbind(&mut vm)?;
    CARD.attack(&mut vm)?;
    assert!(net::is_silent()?);
    vm.guest
        .run("echo 3 >/proc/sys/vm/drop_caches; head -c 8 /dev/vdb >/dev/null")?;
    CARD.bind(&mut vm)?;
    vm.guest
        .run("ip link set eth0 up && ip addr add 10.1.0.2/24 dev eth0")?;
    vm.guest.run("ping -c 1 -W 10 10.1.0.1 >/dev/null")?;
    assert!(
        net::answers_ping()?,
        "the card does not work after its reset"
    );

    ENTROPY.unbind(&mut vm)?;
    ENTROPY.attack(&mut vm)?;
    // The same way leads to success with a ring that makes sense: the garbage was seen.
    let sensible = "desc 0 $((R + 0x3000)) 16 2; avail 1 0";
    ENTROPY.kick(&mut vm, sensible, Answer::Used)?;
    ENTROPY.bind(&mut vm)?;
    assert_eq!(vm.guest.number("head -c 64 /dev/hwrng | wc -c")?, 64);

    assert_eq!(slot.state()?, "running");
    let log = vm.errors().text();
    assert!(log.contains("reset"), "nothing was said about it: {log}");
    ensure!(
        log.lines().count() < 200,
        "a guest can fill the log: {} lines",
        log.lines().count()
    );
    vm.power_off().context("after the attacks")?;
    Ok(())
}

#[test]
fn ports_of_the_machine_take_any_value() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    let mut vm = slot.boot()?;
    // The serial port's divisor, line and modem control; the keyboard controller but for its reset
    // command; the clock; PCI's ports, which are not there.
    let poke = "poke() { printf \"\\\\$(printf %o $2)\" | \
                dd of=/dev/port bs=1 seek=$(($1)) conv=notrunc 2>/dev/null; }";
    vm.guest.run(poke)?;
    let sweep = "for p in 0x3fa 0x3fc 0x3ff 0x60 0x61 0x70 0x71 0x80 0xcf8 0xcfc 0x2f8; do \
                 for v in 255 0 90; do poke $p $v; done; done";
    vm.guest.run(sweep)?;
    let read = "dd if=/dev/port bs=1 skip=$((0x60)) count=1 2>/dev/null | wc -c";
    assert_eq!(vm.guest.number(read)?, 1);
    assert_eq!(slot.state()?, "running");
    vm.guest.send("poweroff -f")?;
    vm.wait()?.expect_code(0)?;
    Ok(())
}
