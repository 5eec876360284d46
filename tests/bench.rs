//! `slotvmm bench boot` with a stock kernel, beside QEMU where the machine has one.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use fixture::Lab;
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
        ensure!(init <= number(&marks["exit"])?, "{run}");
        ensure!(number(&run["system_ms"])? > 0.0, "{run}");
    }
    let seen = &entry["inspection"];
    let private = number(&seen["memory"]["value"]["private_kib"])?;
    // Guest RAM alone would be more.
    ensure!(private > 0.0 && private < 200_000.0, "{seen}");
    let exits = &seen["exits"]["value"];
    ensure!(number(&exits["total"])? > 100.0, "{seen}");
    ensure!(number(&exits["by_reason"]["io_exits"])? > 0.0, "{seen}");
    Ok(())
}

#[test]
fn slot_and_qemu_are_measured_in_turns_and_data_is_untouched() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    // The test has a /sys of its own.
    let (debug, none) = (Some("debugfs"), None::<&str>);
    mount(debug, "/sys/kernel/debug", debug, MsFlags::empty(), none)?;
    let slot = lab.slot(SLOT)?;
    let page = slot.path("report.html");
    let arguments = [
        "bench",
        "boot",
        "slot1",
        "-n",
        "1",
        "--mark",
        "init=MINI init",
        "--timeout",
        "60",
        "--json",
        "--html",
    ];
    // No deadline here: it makes many boots, and has one for each of them.
    let output = slot
        .command(&[&arguments[..], &[&page.to_string_lossy()]].concat())
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let entries = report["results"]["entries"]
        .as_array()
        .context("Nobody was measured")?;
    let (ours, peers) = entries.split_first().context("We were not measured")?;
    check(ours)?;
    ensure!(
        number(&ours["runs"][0]["marks"]["vcpu_run"])? > 0.0,
        "{ours}"
    );
    let qemu = peers.iter().find(|entry| entry["name"] == "qemu");
    match qemu {
        Some(qemu) => {
            check(qemu)?;
            ensure!(qemu["runs"][0]["marks"]["vcpu_run"].is_null(), "{qemu}");
            let compared =
                |figure: &&Value| figure["monitor"] == "qemu" && figure["ratio"].is_object();
            let figures = report["figures"]
                .as_array()
                .context("There are no figures")?;
            ensure!(figures.iter().any(|figure| compared(&figure)), "{report}");
        }
        None => eprintln!("skipped: QEMU is not on the search path"),
    }
    let page = fs::read_to_string(page)?;
    ensure!(page.matches("<svg").count() == entries.len(), "{page}");
    ensure!(
        !slot.data_image().exists(),
        "The benchmark made the slot's data image"
    );
    Ok(())
}
