//! Which file systems can be frozen: those of disks that are mounted for writing.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// A file system and one of the places where it is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Where.
    pub(super) place: PathBuf,
}

/// Reads `/proc/self/mountinfo` and `/proc/filesystems` (proc_pid_mountinfo(5), proc(5)). A file
/// system appears once, however often it is mounted. What was mounted last comes first: a file system
/// in a file of another one is frozen before that.
pub(super) fn freezable(mountinfo: &str, filesystems: &str) -> Vec<Mount> {
    // Those without a disk say so: virtual ones, and those of networks and other processes.
    let of_disks: HashSet<&str> = filesystems
        .lines()
        .filter(|line| !line.starts_with("nodev"))
        .map(str::trim)
        .collect();
    let mut seen = HashSet::new();
    let mut mounts: Vec<Mount> = mountinfo
        .lines()
        .filter_map(|line| parse(line, &of_disks))
        .filter(|(device, _)| seen.insert(device.to_owned()))
        .map(|(_, mount)| mount)
        .collect();
    mounts.reverse();
    mounts
}

/// The device and place of a mount, if it can be frozen.
fn parse<'a>(line: &'a str, of_disks: &HashSet<&str>) -> Option<(&'a str, Mount)> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut mount = mount.split(' ');
    let device = mount.nth(2)?;
    let place = mount.nth(1)?;
    let mut filesystem = filesystem.split(' ');
    let kind = filesystem.next()?;
    let options = filesystem.nth(1)?;
    let writable = options.split(',').any(|option| option == "rw");
    let place = unescape(place);
    (writable && of_disks.contains(kind)).then_some((device, Mount { place }))
}

/// Blanks and the like are written as a backslash and three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, others)) = rest.split_first() {
        let code = others
            .get(..3)
            .and_then(|digits| str::from_utf8(digits).ok());
        let code = code.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code.filter(|_| first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = others.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = others;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILESYSTEMS: &str =
        "nodev\tsysfs\nnodev\ttmpfs\nnodev\toverlay\n\text4\n\tbtrfs\n\txfs\n";

    #[test]
    fn only_writable_file_systems_of_disks_are_frozen_the_last_one_first() {
        let mountinfo = "\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
23 22 0:21 / /sys rw,nosuid - sysfs sysfs rw
24 22 254:2 / /usr ro,relatime - xfs /dev/vda2 ro
25 22 0:30 /home /home rw,relatime shared:9 master:2 - btrfs /dev/vdb rw,subvol=/home
26 22 254:1 /var /srv ro,relatime - ext4 /dev/vda1 rw
27 25 7:0 / /home/with\\040blank rw - ext4 /dev/loop0 rw
28 22 0:40 / /work rw - overlay overlay rw,lowerdir=/
29 22 0:41 / /share rw - virtiofs share rw
";
        let places: Vec<PathBuf> = freezable(mountinfo, FILESYSTEMS)
            .into_iter()
            .map(|mount| mount.place)
            .collect();
        assert_eq!(
            places,
            ["/home/with blank", "/home", "/"].map(PathBuf::from)
        );
    }

    #[test]
    fn what_is_no_mount_is_left_out() {
        for text in [
            "",
            "22",
            "22 1 254:1 / /",
            "22 1 254:1 / / rw - ext4",
            " - ext4 a rw",
        ] {
            assert_eq!(freezable(text, FILESYSTEMS), [], "{text:?}");
        }
        assert_eq!(unescape("\\134a\\04"), PathBuf::from("\\a\\04"));
    }
}
