//! What makes the installed system a slot's guest: files written over it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context, Result};

/// Slots that the guest knows its address for.
const SLOTS: std::ops::RangeInclusive<u8> = 1..=9;

/// Units that cost a guest time and give it nothing.
const MASKED: [&str; 19] = [
    "apt-daily.timer",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "modprobe@configfs.service",
    "modprobe@dm_mod.service",
    "modprobe@loop.service",
    "sys-kernel-tracing.mount",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "systemd-firstboot.service",
    "systemd-networkd-wait-online.service",
    "systemd-pstore.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "sys-kernel-debug.mount",
];

/// Host keys are made at the first start, on the writable layer, so that no two slots share them.
/// One kind is enough, and an RSA key takes long.
const SSH_KEY_UNIT: &str = "[Service]\nExecStartPre=\n\
    ExecStartPre=/bin/sh -c '[ -s /etc/ssh/ssh_host_ed25519_key ] || \
    ssh-keygen -q -t ed25519 -N \"\" -f /etc/ssh/ssh_host_ed25519_key'\n\
    ExecStartPre=/usr/sbin/sshd -t\n";

const SSHD: &str = "HostKey /etc/ssh/ssh_host_ed25519_key\nUseDNS no\n";

/// Whoever has the serial console has the disk as well.
const AUTOLOGIN: &str = "[Service]\nExecStart=\n\
    ExecStart=-/sbin/agetty --autologin root --noclear --keep-baud 115200,57600,38400,9600 - $TERM\n";

/// Writes them into `root`. `public_key` logs in as root.
pub(super) fn write(root: &Path, public_key: &str) -> Result<()> {
    let put = |path: &str, text: &str| put(&root.join(path), text);
    put("etc/hostname", "slot\n")?;
    put("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")?;
    put("etc/fstab", "")?;
    // Empty rather than absent: each slot gets an identity of its own, and no question is asked.
    put("etc/machine-id", "")?;
    put(
        "etc/systemd/journald.conf.d/volatile.conf",
        "[Journal]\nStorage=volatile\n",
    )?;
    put(
        "etc/systemd/system/ssh.service.d/host-key.conf",
        SSH_KEY_UNIT,
    )?;
    put(
        "etc/systemd/system/serial-getty@ttyS0.service.d/autologin.conf",
        AUTOLOGIN,
    )?;
    put("etc/ssh/sshd_config.d/slot.conf", SSHD)?;
    put("root/.ssh/authorized_keys", public_key)?;
    fs::set_permissions(root.join("root/.ssh"), fs::Permissions::from_mode(0o700))?;
    for slot in SLOTS {
        put(
            &format!("etc/systemd/network/10-slot{slot}.network"),
            &network(slot),
        )?;
    }
    for unit in MASKED {
        let link = root.join("etc/systemd/system").join(unit);
        let _absent = fs::remove_file(&link);
        symlink("/dev/null", &link).with_context(|| format!("Cannot mask {unit}"))?;
    }
    Ok(())
}

/// The address of slot N, which has MAC 02:00:00:00:00:0N.
fn network(slot: u8) -> String {
    format!(
        "[Match]\nMACAddress=02:00:00:00:00:0{slot}\n\n\
         [Network]\nAddress=10.{slot}.0.2/24\nGateway=10.{slot}.0.1\nDNS=10.{slot}.0.1\n\
         LinkLocalAddressing=no\nIPv6AcceptRA=no\n"
    )
}

fn put(path: &Path, text: &str) -> Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(path, text).with_context(|| format!("Cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_follows_from_the_mac() {
        let text = network(3);
        assert!(text.contains("MACAddress=02:00:00:00:00:03\n"));
        assert!(text.contains("Address=10.3.0.2/24\nGateway=10.3.0.1\n"));
    }
}
