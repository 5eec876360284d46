//! Credentials that systemd gives to a slot's unit, sealed ones among them, on a host under systemd.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use fixture::Lab;
use fixture::search;
use fixture::share::digest;
use fixture::systemd::{Files, SystemdHost};

const UNIT: &str = "slotvmm@slot1.service";

const SLOT: &str = "[ready]\nwhen = \"console:MINI ready\"\n[credentials.map.PLAIN]\n[credentials.map.SEALED]\n\
    [[disk]]\npath = \"/lab/guest.squashfs\"\nposition = 2\nreadonly = true\n";

/// As the documentation shows it.
const DROP_IN: &str = "[Service]\nLoadCredential=HOST-PLAIN:/etc/secrets/plain\n\
    LoadCredentialEncrypted=HOST-SEALED:/etc/secrets/sealed.cred\n";

/// What both values begin with.
const MARK: &str = "b41f6d0c2e957a38";

/// A host whose slot1 gets two credentials, and a disk with the program for guests.
fn host(lab: &Lab) -> Result<SystemdHost> {
    let mut files = Files::new(lab, SLOT)?;
    files.write(
        &format!("etc/systemd/system/{UNIT}.d/credentials.conf"),
        DROP_IN,
    )?;
    files.write("etc/secrets/plain", &format!("{MARK} plain\n"))?;
    files.write("etc/secrets/sealed", &format!("{MARK} sealed"))?;
    let image = lab.scratch().join("guest-program.squashfs");
    lab.pack_program("SLOTVMM_GUEST_BIN", &image)?;
    files.bind(&image, "guest.squashfs")?;
    let host = files.boot()?;
    let seal = [
        "systemd-creds",
        "encrypt",
        "--with-key=host",
        "--name=HOST-SEALED",
    ];
    let paths = ["/etc/secrets/sealed", "/etc/secrets/sealed.cred"];
    host.run(&[&seal[..], &paths].concat())?;
    host.run(&["rm", "/etc/secrets/sealed"])?;
    Ok(host)
}

#[test]
fn sealed_and_plain_credentials_of_the_unit_reach_the_guest() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let host = host(&lab)?;
    host.run(&["systemctl", "start", UNIT])?;
    let mut guest = host.console("slot1")?;
    guest.wait_ready()?;
    guest.run("load vmw_vsock_virtio_transport && load squashfs")?;
    guest.run("mount -t squashfs -o ro /dev/vdc /mnt")?;
    guest.run("/mnt/slotvmm-guest creds fetch /run/credstore")?;
    for (name, value) in [("PLAIN", "plain\n"), ("SEALED", "sealed")] {
        let sum = guest.run(&format!("sha256sum </run/credstore/HOST-{name}"))?;
        let expected = digest(format!("{MARK} {value}").as_bytes());
        assert_eq!(sum.get(..64), Some(expected.as_str()), "{name}");
    }

    let checked = host.run(&["slotvmm", "creds", "check", "slot1"])?;
    assert_eq!(checked, "No problems with 2 of slot1");
    let found = search::processes(&host.path("proc"), MARK)?;
    ensure!(found.is_empty(), "{found:?}");
    for said in [
        &["journalctl", "--all", "--output=export"][..],
        &["systemctl", "show", UNIT],
        &["slotvmm", "creds", "list", "slot1"],
        &["slotvmm", "status", "slot1"],
    ] {
        let text = host.run(said)?;
        ensure!(!text.contains(MARK), "{said:?}");
    }
    host.run(&["systemctl", "stop", UNIT])?;
    let image = fs::read(host.path("var/lib/microvms/slot1/data.img"))?;
    ensure!(!search::holds(&image, MARK), "the data image");
    let left = host.path("run/credentials").join(UNIT);
    ensure!(!Path::new(&left).exists(), "{} is left", left.display());
    Ok(())
}
