//! Consoles: attaching to a slot that runs, running one on a terminal, and the terminal afterwards.

use anyhow::Result;
use fixture::exits::UserExits;
use fixture::terminal::Terminal;
use fixture::{Lab, TestVm};
use nix::sys::signal::Signal;

#[test]
fn console_attaches_detaches_and_leaves_the_guest_alone() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    let vm = slot.boot()?;
    for round in 0..2 {
        let mut terminal = Terminal::start(slot.command(&["console", "slot1"]))?;
        // What was printed before is shown first.
        terminal.screen().see(0, "MINI ready")?;
        assert!(
            !terminal.is_as_before()?,
            "round {round}: the terminal is not raw"
        );
        assert_eq!(terminal.guest()?.run("echo $((6 * 7))")?, "42");
        terminal.press(b"\x01x")?;
        terminal.screen().see(0, "Detached from slot1")?;
        assert_eq!(terminal.wait()?, Some(0));
        assert!(
            terminal.is_as_before()?,
            "round {round}: the terminal stays raw"
        );
    }
    assert_eq!(slot.state()?, "running");
    let mut watcher = TestVm::start(slot.command(&["console", "slot1"]))?;
    watcher.guest.screen().see(0, "MINI ready")?;
    let mut last = Terminal::start(slot.command(&["console", "slot1"]))?;
    last.screen().see(0, "MINI ready")?;
    vm.power_off()?;
    let watched = watcher.wait()?.expect_code(0)?.stdout;
    assert!(
        watched.contains("MINI ready") && watched.contains("Power down"),
        "{watched}"
    );
    assert_eq!(last.wait()?, Some(0));
    assert!(
        last.is_as_before()?,
        "the end of the guest leaves the terminal raw"
    );
    Ok(())
}

/// A terminal takes lines of up to 4095 bytes; the port's FIFO has 64, and Linux reads 256 at once.
#[test]
fn long_lines_arrive_whole() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    let mut vm = slot.boot()?;
    for length in [60, 250, 330, 1000, 4000] {
        for round in 0..5 {
            let text = "x".repeat(length);
            let counted = vm.guest.number(&format!("t={text}; echo ${{#t}}"))?;
            assert_eq!(counted, length as u64, "round {round}");
        }
    }
    vm.power_off()?;
    Ok(())
}

#[test]
fn run_brings_its_terminal_back_however_it_ends() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    let run = || -> Result<Terminal> {
        let terminal = Terminal::start(slot.command(&["run", "slot1", "--console"]))?;
        terminal.guest()?.wait_ready()?;
        assert!(!terminal.is_as_before()?, "the terminal is not raw");
        Ok(terminal)
    };
    let restored = |mut terminal: Terminal, code: i32| -> Result<()> {
        assert_eq!(terminal.wait()?, Some(code), "{}", terminal.screen().text());
        assert!(
            terminal.is_as_before()?,
            "exit {code} leaves the terminal raw"
        );
        Ok(())
    };

    let terminal = run()?;
    terminal.guest()?.send("poweroff -f")?;
    restored(terminal, 0)?;

    let terminal = run()?;
    terminal.signal(Signal::SIGTERM)?;
    restored(terminal, 0)?;

    let terminal = run()?;
    terminal.guest()?.run("killall acpid")?;
    terminal.signal(Signal::SIGTERM)?;
    slot.wait_state("stopping")?;
    terminal.signal(Signal::SIGTERM)?;
    restored(terminal, 22)?;

    let mut terminal = run()?;
    terminal.press(b"\x01x")?;
    terminal.screen().see(0, "Detached; the guest goes on")?;
    assert!(
        terminal.is_as_before()?,
        "detaching leaves the terminal raw"
    );
    assert_eq!(slot.state()?, "running");
    slot.call(&["stop", "slot1"])?.expect_code(0)?;
    restored(terminal, 0)
}

/// Bytes of output whose exits are counted.
const PRINTED: u64 = 16 << 10;

/// How many exits to user space it takes the guest to print.
fn exits_of_printing(vm: &mut TestVm) -> Result<u64> {
    vm.guest.run(&format!(
        "head -c {PRINTED} /dev/zero | tr '\\0' x | fold -w 63 >/run/text"
    ))?;
    let exits = UserExits::count()?;
    let printed = vm.guest.run("cat /run/text")?;
    let taken = exits.so_far()?;
    let bytes = printed.bytes().filter(|byte| *byte == b'x').count();
    assert_eq!(bytes as u64, PRINTED);
    Ok(taken)
}

#[test]
fn virtio_console_takes_over_and_leaves_the_guest_less_often() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("[console]\nmode = \"hvc\"\n")?;
    let mut vm = slot.boot()?;
    // Without a driver the serial port is the console both ways.
    assert_eq!(
        vm.guest.run("tail -n 1 /proc/consoles | cut -c1-5")?,
        "ttyS0"
    );
    let serial = exits_of_printing(&mut vm)?;
    vm.guest
        .run("load virtio_console && exec </dev/hvc0 >/dev/hvc0 2>&1; stty -echo")?;
    assert_eq!(
        vm.guest.run("head -n 1 /proc/consoles | cut -c1-4")?,
        "hvc0"
    );
    let hvc = exits_of_printing(&mut vm)?;
    println!("{PRINTED} bytes: {serial} exits by the serial port, {hvc} by the virtio console");
    assert!(hvc * 16 < serial, "{hvc} and {serial}");
    for length in [250, 4000] {
        let text = "x".repeat(length);
        let counted = vm.guest.number(&format!("t={text}; echo ${{#t}}"))?;
        assert_eq!(counted, length as u64);
    }
    slot.call(&["pause", "slot1"])?.expect_code(0)?;
    slot.call(&["resume", "slot1"])?.expect_code(0)?;
    assert_eq!(vm.guest.run("echo $((6 * 7))")?, "42");
    // The driver goes, and the serial port is the console again.
    vm.guest
        .run("exec </dev/ttyS0 >/dev/ttyS0 2>&1; cd /sys/bus/virtio/drivers/virtio_console; echo virtio*[0-9] >unbind; cd /")?;
    assert_eq!(vm.guest.run("echo back")?, "back");
    vm.power_off()?;
    Ok(())
}
