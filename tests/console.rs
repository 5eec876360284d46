//! Consoles: attaching to a slot that runs, running one on a terminal, and the terminal afterwards.

use anyhow::Result;
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
