//! `slotvmm fs-backend` with Debian's QEMU as its frontend and the stock virtiofs driver.

use std::fs;

use anyhow::{Context as _, Result};
use fixture::Lab;
use fixture::qemu::{Backend, Guest};
use fixture::share::{CONTENTS, NAMES, digests, plant, plant_odd_names};

/// The value that the guest printed after `name`.
fn said<'a>(console: &'a str, name: &str) -> Result<&'a str> {
    let line = console.lines().find_map(|line| line.strip_prefix(name));
    let line = line.with_context(|| format!("The guest did not say {name}: {console}"))?;
    Ok(line.trim())
}

#[test]
fn qemu_mounts_our_share_and_reads_it_as_it_is() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let place = tempfile::tempdir_in(lab.scratch())?;
    let (source, socket) = (place.path().join("shared"), place.path().join("socket"));
    fs::create_dir(&source)?;
    plant(&source, 500)?;
    plant_odd_names(&source)?;
    fs::write(source.join("zeroes"), vec![0; 5 << 20])?;
    let expected = digests(&source)?;
    let mut backend = Backend::start(lab.program(), &source, &socket)?;
    let script = format!(
        "set -e; load virtio_pci; load virtiofs; mount -t virtiofs share /mnt; cd /mnt\n\
         echo \"NAMES $({NAMES})\"; echo \"CONTENTS $({CONTENTS})\"\n\
         cd /; umount /mnt; mount -t virtiofs -o ro share /mnt; cd /mnt\n\
         echo \"AGAIN $({CONTENTS})\"; ! touch /mnt/x; cd /; umount /mnt"
    );
    let guest = Guest::new(&lab, "6.12-cloud", &socket, place.path());
    let console = guest.run(&script, || Ok(()))?;
    assert_eq!(said(&console, "NAMES ")?, expected.names);
    assert_eq!(said(&console, "CONTENTS ")?, expected.contents);
    assert_eq!(said(&console, "AGAIN ")?, expected.contents);
    assert_eq!(said(&console, "MINI exit ")?, "0");
    assert_eq!(backend.wait()?, Some(0));
    Ok(())
}
