//! Logging in to real guests: without a network where the guest can, else by its address.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use fixture::system::{Distribution, Overlay};
use fixture::{Ended, Lab, PATIENCE, Slot};

/// What a guest needs whose distribution has a unit of its own for connections.
const DROP_IN: &str = include_str!("../systemd/guest/sshd@.service.d/slotvmm.conf");

/// Has the initrd load the driver, so that systemd sees the device when it looks for it.
const EARLY: &str = "rd.driver.pre=vmw_vsock_virtio_transport";

/// Logs in with the SSH client of the image `$1` and systemd's own proxy, which is configured as in
/// docs/systemd.md. `$2` is the slot's run directory, `$3` the user, `$4` the command.
const STOCK_CLIENT: &str = r#"set -eu
mount --make-rprivate /
root=$(mktemp -d)
mount -t tmpfs root "$root"
mkdir "$root/image" "$root/upper" "$root/work" "$root/all"
mount -t squashfs -o ro,loop "$1" "$root/image"
mount -t overlay -o "lowerdir=$root/image,upperdir=$root/upper,workdir=$root/work" all "$root/all"
mount --rbind /dev "$root/all/dev"
mount --bind "$2" "$root/all/mnt"
rm -r "$root/all/root/.ssh"
cat >"$root/all/etc/ssh/ssh_config.d/slotvmm.conf" <<'END'
Host vsock-mux/*
    ProxyCommand /usr/lib/systemd/systemd-ssh-proxy %h %p
    ProxyUseFdpass yes
    CheckHostIP no
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
END
exec chroot "$root/all" /usr/bin/ssh -o BatchMode=yes \
    -i /mnt/ssh_key "$3@vsock-mux/mnt/vsock.sock" "$4"
"#;

/// Prints what no two boots have in common.
const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";

/// Bytes that go through `cat` in the guest.
const BYTES: u32 = 300_000;

/// `slotvmm ssh`, which never asks anything.
fn ssh(slot: &Slot, words: &[&str]) -> Result<Ended> {
    slot.call(&[&["ssh", "-o", "BatchMode=yes"], words].concat())
}

/// Sends a file through a program in the guest; returns what comes back.
fn through_cat(slot: &Slot, file: File) -> Result<Vec<u8>> {
    let ssh = slot.command(&["ssh", "-o", "BatchMode=yes", "slot1", "cat"]);
    let mut limited = Command::new("timeout");
    limited.arg(PATIENCE.as_secs().to_string());
    limited.arg(ssh.get_program()).args(ssh.get_args());
    for (name, value) in ssh.get_envs() {
        limited.envs(value.map(|value| (name, value)));
    }
    let output = limited.stdin(file).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "cat ended with {}", output.status);
    Ok(output.stdout)
}

/// An ordinary `ssh` with the proxy that systemd installs for it.
fn stock_ssh(lab: &Lab, slot: &Slot, user: &str, command: &str) -> Result<Ended> {
    let mut client = Command::new("unshare");
    client.args(["--mount", "sh", "-c", STOCK_CLIENT, "sh"]);
    client.arg(Distribution::Trixie.image(lab));
    client.arg(slot.path("run/slot1")).args([user, command]);
    Ended::of(client)
}

/// Checks what the guest says of its boot: units and initcalls, as bars of a picture as well.
fn check_boot_report(slot: &Slot) -> Result<()> {
    let picture = slot.path("boot.svg");
    let path = picture.to_string_lossy();
    let report = slot.json(&["boot-report", "slot1", "--svg", &path])?;
    for (kind, known) in [
        ("units", "systemd-journald.service"),
        ("initcalls", "virtio_mmio_init"),
    ] {
        let list = report[kind].as_array().context("The guest said nothing")?;
        ensure!(list.iter().any(|one| one["name"] == known), "{report}");
        for one in list {
            let (start, end) = (one["start_ms"].as_f64(), one["end_ms"].as_f64());
            ensure!(Some(0.0) <= start && start <= end, "{one}");
        }
    }
    ensure!(
        report["causes"].as_array().map(Vec::len) == Some(3),
        "{report}"
    );
    let picture = fs::read_to_string(picture)?;
    ensure!(picture.contains(".service"), "{picture}");
    Ok(())
}

#[test]
fn key_of_the_boot_opens_a_guest_without_a_network() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    let mut overlay = Overlay::new(&slot)?;
    overlay.parameter(EARLY);
    // For the report of the boot. The kernel's own log is too short for all of it.
    overlay.parameter("initcall_debug log_buf_len=4M");
    overlay.put("etc/systemd/system/sshd@.service.d/slotvmm.conf", DROP_IN)?;
    let text = overlay.slot_text(&lab, Distribution::Trixie)?;
    slot.write_slot(&format!("net = []\n{text}"))?;
    let mut vm = slot.boot()?;
    vm.guest.run("systemctl start multi-user.target")?;
    assert_eq!(vm.guest.run("ls /sys/class/net")?, "lo");
    // The lab's own key is in the image, and must not be what opens.
    vm.guest.run("rm -r /root/.ssh")?;
    vm.guest.run("useradd --create-home admin")?;

    let expected = vm.guest.run(BOOT_ID)?;
    let ended = ssh(&slot, &["slot1", BOOT_ID])?.expect_code(0)?;
    assert_eq!(
        (ended.stdout.trim(), ended.stderr.as_str()),
        (expected.as_str(), "")
    );
    let ended = ssh(&slot, &["admin@slot1", "id -un; echo why >&2; exit 7"])?.expect_code(7)?;
    assert_eq!((ended.stdout.trim(), ended.stderr.trim()), ("admin", "why"));
    check_boot_report(&slot)?;
    let ended = stock_ssh(&lab, &slot, "root", BOOT_ID)?.expect_code(0)?;
    assert_eq!(ended.stdout.trim(), expected);
    let ended = stock_ssh(&lab, &slot, "admin", "id -un; exit 7")?.expect_code(7)?;
    assert_eq!(ended.stdout.trim(), "admin");

    let sent: Vec<u8> = (0..BYTES)
        .map(|place| (place.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    fs::write(slot.path("sent"), &sent)?;
    let back = through_cat(&slot, File::open(slot.path("sent"))?)?;
    ensure!(
        back == sent,
        "{} of {BYTES} bytes come back, or others",
        back.len()
    );

    // It is that key and no other that opens.
    let key = slot.path("run/slot1/ssh_key");
    let kept = fs::read(&key).context("No key of this boot")?;
    fs::remove_file(&key)?;
    let ended = ssh(&slot, &["slot1", "true"])?.expect_code(255)?;
    assert!(ended.stderr.contains("Permission denied"), "{ended:?}");
    fs::write(&key, kept)?;

    slot.call(&["stop", "slot1"])?.expect_code(0)?;
    vm.wait()?.expect_code(0)?;
    assert!(!key.exists());
    Ok(())
}

#[test]
fn guest_without_sockets_is_reached_by_its_address() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    let overlay = Overlay::new(&slot)?;
    slot.write_slot(&overlay.slot_text(&lab, Distribution::Bookworm)?)?;
    let mut vm = slot.boot()?;
    vm.guest.run("systemctl start multi-user.target")?;
    let key = lab.image("demo/id");
    let key = key.to_string_lossy();
    let known = slot.path("known_hosts");
    let file = format!("UserKnownHostsFile={}", known.display());
    let login = |check: &str, command: &str| {
        let check = format!("StrictHostKeyChecking={check}");
        ssh(
            &slot,
            &["-o", &check, "-o", &file, "-i", &key, "slot1", command],
        )
    };
    let ended = login("accept-new", "hostname; exit 7")?.expect_code(7)?;
    assert!(ended.stderr.contains("trying 10.1.0.2"), "{ended:?}");
    assert_eq!(ended.stdout.trim(), "slot1");

    // The guest's key is kept under the slot's name, and another one is noticed.
    let mut search = Command::new("ssh-keygen");
    Ended::of({
        search.args(["-F", "slot1", "-f"]).arg(&known);
        search
    })?
    .expect_code(0)?;
    login("yes", "true")?.expect_code(0)?;
    let mut other = Command::new("ssh-keygen");
    other.args(["-y", "-f", &key]);
    let other = Ended::of(other)?.expect_code(0)?.stdout;
    fs::write(&known, format!("slot1 {other}"))?;
    let ended = login("yes", "true")?.expect_code(255)?;
    assert!(
        ended.stderr.contains("IDENTIFICATION HAS CHANGED"),
        "{ended:?}"
    );
    drop(vm);
    Ok(())
}
