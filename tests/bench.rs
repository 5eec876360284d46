//! `slotvmm bench boot` with a stock kernel, beside QEMU where the machine has one.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fixture::{Lab, Slot};
use nix::mount::{MsFlags, mount};
use serde_json::Value;

/// The guest ends its machine as soon as its init has looked around.
const SLOT: &str = "[boot]\nparams = [\"quiet\", \"mini.then=reboot\"]\n[vsock]\nenabled = false\n";

fn number(value: &Value) -> Result<f64> {
    value
        .as_f64()
        .with_context(|| format!("Expected a number, found {value}"))
}

/// Checks one monitor's part of a report: a boot that got where they should, marks in order.
fn check(entry: &Value) -> Result<()> {
    let runs = entry["runs"].as_array().context("There are no boots")?;
    ensure!(
        runs.len() == 1 && entry["failures"] == Value::Array(Vec::new()),
        "{entry}"
    );
    for run in runs {
        let marks = &run["marks"];
        let (output, init) = (number(&marks["first_output"])?, number(&marks["init"])?);
        ensure!(output > 0.0 && output <= init, "{run}");
        let ready = number(&marks["ready"])?;
        ensure!(init < ready && ready <= number(&marks["exit"])?, "{run}");
        ensure!(number(&run["system_ms"])? > 0.0, "{run}");
    }
    let seen = &entry["inspection"];
    for when in ["most", "last"] {
        let private = number(&seen["memory"]["value"][when]["private_kib"])?;
        // Guest RAM alone would be more.
        ensure!(private > 0.0 && private < 200_000.0, "{seen}");
    }
    let exits = &seen["exits"]["value"];
    ensure!(number(&exits["total"])? > 100.0, "{seen}");
    ensure!(number(&exits["by_reason"]["io_exits"])? > 0.0, "{seen}");
    Ok(())
}

/// Boots the slot once for each monitor, with `options`; a report of every boot that got where it should
/// and said `ready`.
fn measure(slot: &Slot, ready: &str, options: &[&str]) -> Result<Value> {
    // The test has a /sys of its own.
    let (debug, none) = (Some("debugfs"), None::<&str>);
    mount(debug, "/sys/kernel/debug", debug, MsFlags::empty(), none)?;
    let ready = format!("ready={ready}");
    let arguments = [
        &["bench", "boot", "slot1", "-n", "1", "--json"][..],
        &["--mark", "init=MINI init", "--mark", &ready],
        // Ours and others are to end in the same way.
        &["--until", "exit", "--timeout", "60"],
        options,
    ];
    // No deadline here: it makes many boots, and has one for each of them.
    let output = slot.command(&arguments.concat()).output()?;
    ensure!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout)?;
    check(entry(&report, "slotvmm").context("We were not measured")?)?;
    match entry(&report, "qemu") {
        Some(qemu) => check(qemu)?,
        None => eprintln!("skipped: QEMU is not on the search path"),
    }
    Ok(report)
}

/// What a monitor's boots came to.
fn entry<'a>(report: &'a Value, name: &str) -> Option<&'a Value> {
    let entries = report["results"]["entries"].as_array()?;
    entries.iter().find(|entry| entry["name"] == name)
}

#[test]
fn slot_and_qemu_are_measured_in_turns_and_data_is_untouched() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot(SLOT)?;
    let page = slot.path("report.html");
    // Said when its card is there, with the slot's address.
    let ready = "MINI ip 10.1.0.2/24";
    let report = measure(&slot, ready, &["--html", &page.to_string_lossy()])?;
    let ours = entry(&report, "slotvmm").context("We were not measured")?;
    ensure!(
        number(&ours["runs"][0]["marks"]["vcpu_run"])? > 0.0,
        "{ours}"
    );
    if let Some(qemu) = entry(&report, "qemu") {
        ensure!(qemu["runs"][0]["marks"]["vcpu_run"].is_null(), "{qemu}");
        let compared = |figure: &&Value| figure["monitor"] == "qemu" && figure["ratio"].is_object();
        let figures = report["figures"]
            .as_array()
            .context("There are no figures")?;
        ensure!(figures.iter().any(|figure| compared(&figure)), "{report}");
    }
    let pictures = fs::read_to_string(page)?.matches("<svg").count();
    let entries = report["results"]["entries"].as_array().map(Vec::len);
    ensure!(entries == Some(pictures), "{pictures} pictures: {report}");
    ensure!(
        !slot.data_image().exists(),
        "The benchmark made the slot's data image"
    );
    Ok(())
}

#[test]
fn share_is_served_to_qemu_as_well() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    let shared = slot.path("shared");
    fs::create_dir(&shared)?;
    fs::write(shared.join("hello"), "MINI share\n")?;
    let script = STANDARD.encode("load virtiofs && mount -t virtiofs store /mnt && cat /mnt/hello");
    slot.write_slot(&format!(
        "net = []\n[boot]\nparams = [\"quiet\", \"mini.then=reboot\", \"mini.run={script}\"]\n\
         [vsock]\nenabled = false\n[[fs]]\ntag = \"store\"\nsource = {shared:?}\n"
    ))?;
    measure(&slot, "MINI share", &[])?;
    Ok(())
}
