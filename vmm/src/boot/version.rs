//! Kernel names in `/boot` and the order of their versions.

use std::cmp::Ordering;

/// Suffixes of files that are left-overs, not kernels.
const LEFT_OVERS: [&str; 5] = [".old", ".bak", ".dpkg-tmp", ".dpkg-new", ".sig"];

/// Whether `name` is that of a left-over copy.
pub(super) fn is_left_over(name: &str) -> bool {
    LEFT_OVERS.iter().any(|suffix| name.ends_with(suffix))
}

/// Orders versions as people do: runs of digits by value, `6.9` before `6.10`, a release
/// candidate before its release.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (parts(a), parts(b));
    loop {
        let order = match (left.next(), right.next()) {
            // Equal by value, such as 6.01 and 6.1: any fixed order will do.
            (None, None) => return a.cmp(b),
            (None, Some(Part::Text(text))) if is_candidate(text) => Ordering::Greater,
            (Some(Part::Text(text)), None) if is_candidate(text) => Ordering::Less,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(Part::Text(x)), Some(Part::Text(y))) => {
                is_candidate(y).cmp(&is_candidate(x)).then(x.cmp(y))
            }
            (Some(Part::Number(x)), Some(Part::Number(y))) => number(x, y),
            (Some(Part::Number(_)), Some(Part::Text(_))) => Ordering::Greater,
            (Some(Part::Text(_)), Some(Part::Number(_))) => Ordering::Less,
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

#[derive(Clone, Copy)]
enum Part<'a> {
    Number(&'a str),
    Text(&'a str),
}

fn is_candidate(text: &str) -> bool {
    text.trim_start_matches(['-', '.', '~']).starts_with("rc")
}

/// Compares digits by value, whatever their count.
fn number(x: &str, y: &str) -> Ordering {
    let (x, y) = (x.trim_start_matches('0'), y.trim_start_matches('0'));
    x.len().cmp(&y.len()).then(x.cmp(y))
}

fn parts(version: &str) -> impl Iterator<Item = Part<'_>> {
    let mut rest = version;
    std::iter::from_fn(move || {
        let digits = rest.starts_with(|c: char| c.is_ascii_digit());
        let end = rest
            .find(|c: char| c.is_ascii_digit() != digits)
            .unwrap_or(rest.len());
        let (part, after) = rest.split_at_checked(end)?;
        rest = after;
        match (part.is_empty(), digits) {
            (true, _) => None,
            (false, true) => Some(Part::Number(part)),
            (false, false) => Some(Part::Text(part)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_sort_by_value_with_candidates_first() {
        let sorted = [
            "0-rescue-abc",
            "5.10.0-9-amd64",
            "6.1.0-9-amd64",
            "6.1.0-18-amd64",
            "6.1.0-18-cloud-amd64",
            "6.9.1",
            "6.12-rc1",
            "6.12-rc10",
            "6.12",
            "6.12.1",
            "20240101",
            "99999999999999999999999999",
        ];
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(compare(a, b), i.cmp(&j), "{a} against {b}");
            }
        }
    }

    #[test]
    fn left_overs_are_recognised() {
        assert!(is_left_over("vmlinuz-6.1.old"));
        assert!(!is_left_over("vmlinuz-6.1"));
    }
}
