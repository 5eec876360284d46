//! Finds out whether states are data sets, from the table of mounts.

use std::fs;
use std::path::Path;

use crate::error::StoreError;

/// The table of mounts of this process (proc_pid_mountinfo(5)).
const MOUNTS: &str = "/proc/self/mountinfo";

/// The data set above those of states: the one that is mounted at `states`, else the one above a
/// data set that is mounted in it. Nothing where states are directories.
pub(super) fn base(states: &Path) -> Result<Option<String>, StoreError> {
    let table = fs::read_to_string(MOUNTS);
    let table = table.map_err(StoreError::at("read", Path::new(MOUNTS)))?;
    Ok(base_in(&table, states))
}

fn base_in(table: &str, states: &Path) -> Option<String> {
    let sets = || table.lines().filter_map(mounted_set);
    let at_states = sets().find(|(place, _)| Path::new(place) == states);
    let in_states = || {
        sets().find_map(|(place, set)| {
            let name = Path::new(&place).strip_prefix(states).ok()?.to_str()?;
            let base = set.strip_suffix(name)?.strip_suffix('/')?;
            (!name.is_empty() && !name.contains('/')).then(|| (place, base.to_owned()))
        })
    };
    at_states.or_else(in_states).map(|(_, set)| set)
}

/// Where a data set is mounted, and its name; nothing for a line that is of another file system.
fn mounted_set(line: &str) -> Option<(String, String)> {
    let (mount, system) = line.split_once(" - ")?;
    let mut system = system.split(' ');
    if system.next()? != "zfs" {
        return None;
    }
    Some((unescape(mount.split(' ').nth(4)?), unescape(system.next()?)))
}

/// Blanks and backslashes are octal numbers in the table.
fn unescape(text: &str) -> String {
    let codes = [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ];
    codes.iter().fold(text.to_owned(), |text, (code, plain)| {
        text.replace(code, plain)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n";

    fn found(mounts: &str) -> Option<String> {
        base_in(
            &format!("{ROOT}{mounts}"),
            Path::new("/var/lib/microvms/states"),
        )
    }

    #[test]
    fn data_set_at_the_states_is_above_them() {
        let line = "97 22 0:51 / /var/lib/microvms/states rw shared:9 - zfs microvms/storage/states rw,xattr";
        assert_eq!(found(line).unwrap(), "microvms/storage/states");
    }

    #[test]
    fn data_set_of_a_state_tells_the_one_above() {
        let line =
            "98 22 0:52 / /var/lib/microvms/states/slot1 rw - zfs microvms/storage/states/slot1 rw";
        assert_eq!(found(line).unwrap(), "microvms/storage/states");
    }

    #[test]
    fn other_mounts_tell_nothing() {
        for line in [
            "",
            "97 22 0:51 / /var/lib/microvms rw - zfs pool/microvms rw",
            "97 22 8:2 / /var/lib/microvms/states rw - xfs /dev/sdb rw",
            "97 22 0:51 / /var/lib/microvms/states/web/x rw - zfs pool/web/x rw",
            "97 22 0:51 / /var/lib/microvms/states/web rw - zfs pool/other rw",
            "97 22 0:51 / /var/lib/microvms/states rw",
        ] {
            assert_eq!(found(line), None, "{line}");
        }
    }
}
