//! What users do with states, from the first to the last step, as they have always typed it: with
//! `vm-state`, slots that systemd runs, and guests that write.

use anyhow::{Result, ensure};
use fixture::Lab;
use fixture::guest::Guest;
use fixture::systemd::{Files, SystemdHost};
use fixture::zfs::Pool;

/// A slot that is ready when its guest takes commands.
const SLOT: &str = "[ready]\nwhen = \"console:MINI ready\"\n";

/// A slot whose guest never comes up.
const BROKEN: &str = "[boot]\nparams = [\"mini.then=panic\"]\n[ready]\nwhen = \"console:never\"\n";

/// The files of a host with three slots, of which one is broken.
fn files(lab: &Lab) -> Result<Files> {
    let files = Files::new(lab, SLOT)?;
    files.write("etc/slotvmm/slots/slot2.toml", BROKEN)?;
    files.write("etc/slotvmm/slots/slot3.toml", SLOT)?;
    Ok(files)
}

/// Runs `vm-state` and checks what it says last.
fn vm_state(host: &SystemdHost, arguments: &str, said: &str) -> Result<()> {
    let words: Vec<&str> = ["vm-state"]
        .into_iter()
        .chain(arguments.split(' '))
        .collect();
    let printed = host.run(&words)?;
    ensure!(printed.contains(said), "{arguments}: {printed}");
    Ok(())
}

/// The guest of a slot, with the image of its state mounted.
fn guest(host: &SystemdHost, slot: &str) -> Result<Guest> {
    let mut guest = host.console(slot)?;
    guest.wait_ready()?;
    guest.run("load ext4 && mount -t ext4 /dev/vdb /mnt")?;
    Ok(guest)
}

fn write(guest: &mut Guest, word: &str) -> Result<()> {
    guest.run(&format!("echo {word} >/mnt/word && sync"))?;
    Ok(())
}

/// The guest of a slot, if its state holds `word`.
fn guest_with(host: &SystemdHost, slot: &str, word: &str) -> Result<Guest> {
    let mut guest = guest(host, slot)?;
    let found = guest.run("cat /mnt/word")?;
    ensure!(found == word, "{slot} has {found}, not {word}");
    Ok(guest)
}

fn start(host: &SystemdHost, slot: &str) -> Result<()> {
    host.run(&["systemctl", "start", &format!("slotvmm@{slot}.service")])?;
    Ok(())
}

/// What the assignments say.
fn assigned(host: &SystemdHost, slot: &str) -> Result<String> {
    let listed = host.run(&["slotvmm", "state", "list", "--json"])?;
    let listed: serde_json::Value = serde_json::from_str(&listed)?;
    let slots = listed["slots"].as_array().into_iter().flatten();
    let mut its = slots.filter(|it| it["slot"] == slot);
    let state = its.next().and_then(|it| it["state"].as_str());
    Ok(state.unwrap_or_default().to_owned())
}

/// A slot that does not come up has its state go back, and the slot that had it runs again.
fn migrate_in_vain(host: &SystemdHost) -> Result<()> {
    let refused = host.call(&["vm-state", "migrate", "dev-env", "slot2"])?;
    let refused = refused.expect_code(1)?;
    let said = "Failed to start slot2 with state 'dev-env', so it was moved back";
    ensure!(refused.stderr.contains(said), "{refused:?}");
    assert_eq!(assigned(host, "slot3")?, "dev-env");
    assert_ne!(assigned(host, "slot2")?, "dev-env");
    host.wait_property("slotvmm@slot3.service", ("ActiveState", "active"))?;
    let broken = host.property("slotvmm@slot2.service", "ActiveState")?;
    ensure!(
        broken != "active" && broken != "activating",
        "slot2 is {broken}"
    );
    Ok(())
}

/// The whole workflow.
fn work(host: &SystemdHost) -> Result<()> {
    host.run(&["ln", "-s", "slotvmm", "/usr/bin/vm-state"])?;
    vm_state(host, "create baseline", "[OK] State 'baseline' created")?;
    vm_state(
        host,
        "assign slot1 baseline",
        "[OK] Assigned state 'baseline' to slot1",
    )?;
    start(host, "slot1")?;
    write(&mut guest(host, "slot1")?, "first")?;

    vm_state(
        host,
        "clone baseline dev-env",
        "[OK] State 'baseline' cloned to 'dev-env'",
    )?;
    let moved = "[OK] Migration complete. slot3 is now running state 'dev-env'";
    vm_state(host, "migrate dev-env slot3", moved)?;
    write(&mut guest_with(host, "slot3", "first")?, "changed")?;
    migrate_in_vain(host)?;
    let _running = guest_with(host, "slot3", "changed")?;

    let warned = "[WARN] slot3 is running - snapshot will be crash-consistent";
    vm_state(host, "snapshot slot3 good", warned)?;
    vm_state(
        host,
        "clone dev-env slot1-new",
        "[OK] State 'dev-env' cloned",
    )?;
    host.run(&["systemctl", "stop", "slotvmm@slot1.service"])?;
    vm_state(
        host,
        "assign slot1 slot1-new",
        "[OK] Assigned state 'slot1-new' to slot1",
    )?;
    start(host, "slot1")?;
    let _running = guest_with(host, "slot1", "changed")?;

    let process = host.property("slotvmm@slot1.service", "MainPID")?;
    let busy = host.call(&["slotvmm", "state", "reset", "slot1"])?;
    busy.expect_error(32, &format!("the running slot slot1 (process {process})"))?;
    let refused = host
        .call(&["vm-state", "delete", "dev-env"])?
        .expect_code(1)?;
    ensure!(refused.stderr.contains("assigned to slot3"), "{refused:?}");
    host.run(&["sh", "-c", "echo DELETE | vm-state delete baseline"])?;
    vm_state(host, "list", "dev-env@good")?;
    host.run(&["slotvmm", "state", "fsck"])?;
    Ok(())
}

#[test]
fn workflow_of_the_guide_works_to_its_end() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    work(&files(&lab)?.boot()?)
}

#[test]
fn workflow_of_the_guide_works_to_its_end_on_zfs() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let mut files = files(&lab)?;
    let Some(_pool) = Pool::of_host(&mut files)? else {
        return Ok(());
    };
    let host = files.boot()?;
    // As docs/states.md has it: slots do not run as root.
    host.run(&["chown", "microvm:kvm", "/var/lib/microvms/states"])?;
    work(&host)?;
    let sets = host.run(&["zfs", "list", "-H", "-o", "name", "-r", "microvms"])?;
    for state in ["dev-env", "slot1-new"] {
        let set = format!("microvms/storage/states/{state}");
        ensure!(sets.lines().any(|line| line == set), "No {set}: {sets}");
    }
    Ok(())
}
