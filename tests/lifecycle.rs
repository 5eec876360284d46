//! The life of a slot: how it ends and with which code, pausing, the control socket.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result};
use fixture::{Lab, PATIENCE, Slot, TestVm, net};
use nix::sys::signal::Signal;

/// Boots `slot`, has its guest do `last`, and checks how the run ends.
fn ends(slot: &Slot, last: &str, code: i32, says: &str) -> Result<()> {
    let mut vm = slot.boot()?;
    vm.guest.send(last)?;
    let ended = vm.wait()?.expect_code(code)?;
    let said = ended.stderr.lines().last().unwrap_or_default();
    assert_eq!(said, says, "{ended:?}");
    expect_no_sockets(slot)
}

fn expect_no_sockets(slot: &Slot) -> Result<()> {
    let mut left: Vec<_> = fs::read_dir(slot.path("run/slot1"))?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<std::io::Result<_>>()?;
    left.sort();
    assert_eq!(left, ["last-boot.json", "lock"]);
    Ok(())
}

#[test]
fn each_end_of_a_guest_has_its_code() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    ends(&slot, "poweroff -f", 0, "")?;
    ends(
        &slot,
        "reboot -f",
        10,
        "slot1: the guest asked for a reboot",
    )?;
    let panic = "echo c >/proc/sysrq-trigger";
    ends(&slot, panic, 20, "slot1: the guest's kernel panicked")?;
    slot.write_slot("[boot]\nparams = [\"reboot=t\"]\n")?;
    ends(
        &slot,
        "reboot -f",
        21,
        "slot1: the guest ran into a triple fault",
    )
}

#[test]
fn sigterm_presses_the_power_button_and_so_does_stop() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    let mut vm = slot.boot()?;
    vm.signal(Signal::SIGTERM)?;
    let ended = vm.wait()?.expect_code(0)?;
    assert!(ended.stdout.contains("reboot: Power down"), "{ended:?}");
    expect_no_sockets(&slot)?;

    let mut vm = slot.boot()?;
    slot.call(&["stop", "slot1"])?.expect_code(0)?;
    let ended = vm.wait()?.expect_code(0)?;
    assert!(ended.stdout.contains("reboot: Power down"), "{ended:?}");
    Ok(())
}

/// A guest that does not listen to its power button.
fn deaf(slot: &Slot) -> Result<TestVm> {
    let mut vm = slot.boot()?;
    vm.guest.run("killall acpid")?;
    Ok(vm)
}

#[test]
fn deaf_guest_is_stopped_hard_by_a_second_signal_or_at_a_deadline() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    let mut vm = deaf(&slot)?;
    vm.signal(Signal::SIGTERM)?;
    slot.wait_state("stopping")?;
    assert_eq!(vm.guest.run("echo still here")?, "still here");
    vm.signal(Signal::SIGTERM)?;
    vm.wait()?.expect_code(22)?;
    expect_no_sockets(&slot)?;

    let mut vm = deaf(&slot)?;
    slot.call(&["stop", "slot1", "--timeout", "1"])?
        .expect_code(22)?;
    vm.wait()?.expect_code(22)?;
    slot.call(&["status", "slot1"])?
        .expect_error(1, "slot1 is not running")?;
    Ok(())
}

/// Clock ticks that the process was given so far.
fn processor_time(vm: &TestVm) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", vm.pid()))?;
    let (_, fields) = stat.rsplit_once(") ").context("Strange /proc/PID/stat")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks =
        |at: usize| -> Result<u64> { Ok(fields.get(at).context("Short /proc/PID/stat")?.parse()?) };
    Ok(ticks(11)? + ticks(12)?)
}

#[test]
fn paused_guest_does_nothing_and_goes_on_as_if_nothing_was() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("[machine]\nvcpus = 2\n")?;
    let mut vm = slot.boot()?;
    assert!(net::answers_ping()?);
    let info = slot.json(&["status", "slot1"])?;
    assert_eq!(info["slot"], "slot1");
    assert_eq!(info["pid"], vm.pid());
    assert_eq!(info["vcpus"], 2);
    assert_eq!(info["memory_mib"], 256);
    assert_eq!(info["panicked"], false);

    // Busy while it is paused: that must not show.
    vm.guest.run("(while :; do :; done) & busy=$!")?;
    let uptime = vm.guest.run("cut -d. -f1 /proc/uptime")?.parse::<u64>()?;
    slot.call(&["pause", "slot1"])?.expect_code(0)?;
    assert_eq!(slot.state()?, "paused");
    let before = processor_time(&vm)?;
    assert!(net::is_silent()?, "a paused guest answers");
    let used = processor_time(&vm)? - before;
    assert!(used <= 5, "a paused guest was given {used} ticks");
    slot.call(&["pause", "slot1"])?
        .expect_error(1, "slot1 refused PUT /v1/vm/pause: ")?;

    slot.call(&["resume", "slot1"])?.expect_code(0)?;
    assert_eq!(slot.state()?, "running");
    assert!(net::answers_ping()?, "a resumed guest does not answer");
    let later = vm
        .guest
        .run("kill $busy; cut -d. -f1 /proc/uptime")?
        .parse::<u64>()?;
    assert!(
        (uptime..uptime + 60).contains(&later),
        "{uptime} s, then {later} s"
    );
    let complaints = vm
        .guest
        .run("dmesg | grep -E 'stall|lockup|Marking clocksource|BUG:' || true")?;
    assert_eq!(complaints, "");

    // A paused guest can be ended, too.
    slot.call(&["pause", "slot1"])?.expect_code(0)?;
    slot.call(&["stop", "slot1", "--timeout", "0"])?
        .expect_code(22)?;
    vm.wait()?.expect_code(22)?;
    Ok(())
}

/// What the control socket answers to `request`, up to the end of the connection.
fn answer(slot: &Slot, request: &[u8]) -> Result<String> {
    let mut socket = UnixStream::connect(slot.path("run/slot1/control.sock"))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // The other end may hang up in the middle of what it does not want.
    let _ = socket.write_all(request);
    let _ = socket.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    match socket.read_to_end(&mut answer) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => Err(error.into()),
        _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}

#[test]
fn garbage_on_the_control_socket_is_refused_and_nothing_else() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    let mut vm = slot.boot()?;
    let close = "Host: x\r\nConnection: close\r\n\r\n";
    let long = format!("GET /v1/vm HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(4 << 20));
    let many = format!("GET /v1/vm HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(5000));
    let cases: [(Vec<u8>, &str); 9] = [
        (b"\0\xff\xfe garbage \r\n\r\n".to_vec(), "HTTP/1.1 400"),
        (b"GET".to_vec(), ""),
        (Vec::new(), ""),
        (long.into_bytes(), "HTTP/1.1 431"),
        (many.into_bytes(), "HTTP/1.1 431"),
        (
            format!("PATCH /v1/vm HTTP/1.1\r\n{close}").into_bytes(),
            "HTTP/1.1 405",
        ),
        (
            format!("GET /v1/vm/pause HTTP/1.1\r\n{close}").into_bytes(),
            "HTTP/1.1 405",
        ),
        (
            format!("GET /etc/passwd HTTP/1.1\r\n{close}").into_bytes(),
            "HTTP/1.1 404",
        ),
        (
            format!("PUT /v1/vm/resume HTTP/1.1\r\n{close}").into_bytes(),
            "HTTP/1.1 409",
        ),
    ];
    for (request, status) in cases {
        let shown =
            String::from_utf8_lossy(request.get(..40.min(request.len())).unwrap_or_default())
                .into_owned();
        let answer = answer(&slot, &request).with_context(|| format!("{shown:?}"))?;
        assert!(answer.starts_with(status), "{shown:?}: {answer:?}");
        assert_eq!(slot.state()?, "running", "after {shown:?}");
    }
    // Connections that never say anything keep nobody else out for good.
    let idle: Vec<_> = (0..40)
        .map(|_| UnixStream::connect(slot.path("run/slot1/control.sock")))
        .collect::<std::io::Result<_>>()?;
    assert_eq!(slot.state()?, "running");
    drop(idle);
    assert_eq!(vm.guest.run("echo well")?, "well");
    vm.power_off()?;
    expect_no_sockets(&slot)
}

#[test]
fn slot_that_runs_is_not_run_again() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    let vm = slot.boot()?;
    let holder = format!("locked by the running slot slot1 (process {})", vm.pid());
    slot.call(&["run", "slot1"])?.expect_error(32, &holder)?;

    // A slot of another configuration, so that only the image's own lock stands in the way.
    let image = slot.data_image();
    let other = lab.slot("")?;
    other.write_slot(&format!("net = []\n[data]\npath = {image:?}\n"))?;
    let refused = other.call(&["run", "slot1"])?.expect_error(32, &holder)?;
    assert!(refused.stderr.contains("data.img"), "{refused:?}");
    vm.power_off()?;
    Ok(())
}

#[test]
fn killed_slot_is_run_again_over_what_it_left() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    let mut vm = slot.boot()?;
    vm.guest
        .run("echo kept | dd of=/dev/vdb conv=fsync,notrunc 2>/dev/null")?;
    vm.signal(Signal::SIGKILL)?;
    assert_eq!(vm.wait()?.code, None);
    assert!(slot.path("run/slot1/control.sock").exists());
    slot.call(&["status", "slot1"])?
        .expect_error(1, "slot1 is not running")?;

    let mut vm = slot.boot()?;
    assert_eq!(vm.guest.run("head -c 4 /dev/vdb")?, "kept");
    assert!(net::answers_ping()?);
    vm.power_off()?;
    expect_no_sockets(&slot)
}

#[test]
fn result_of_a_run_tells_its_phases_in_order() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    // The kernel names its init only when it is not quiet.
    let slot = lab.slot("[boot]\nparams = [\"loglevel=7\", \"mini.then=poweroff\"]\n")?;
    let result = slot.json(&["run", "slot1"])?;
    assert_eq!(result["outcome"], "poweroff");
    let stamps = result["phases"].as_array().context("No phases")?;
    let phase = |name: &str| stamps.iter().position(|stamp| stamp["phase"] == name);
    let order = [
        "exec",
        "config",
        "kernel_loaded",
        "vcpu_run",
        "first_serial_byte",
        "init",
        "guest_ended",
        "machine_stopped",
    ];
    let places: Option<Vec<usize>> = order.iter().map(|name| phase(name)).collect();
    assert!(
        places.is_some_and(|places| places.is_sorted()),
        "{stamps:?}"
    );
    let times: Vec<u64> = stamps
        .iter()
        .filter_map(|stamp| stamp["at_us"].as_u64())
        .collect();
    assert!(
        times.len() == stamps.len() && times.is_sorted(),
        "{stamps:?}"
    );
    Ok(())
}
