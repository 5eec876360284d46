//! What the process occupies besides guest RAM.

mod sys;

use std::fs;
use std::io;

/// Gives back the program text that only starting needed; what runs on is mapped again on touch,
/// from the page cache. Most of what a start touches is never touched again.
///
/// # Errors
/// When the text is not found among this process's mappings, or the host refuses.
pub(crate) fn release_text() -> io::Result<()> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let own = (release_text as *const ()).addr();
    let text = maps
        .lines()
        .filter_map(Mapping::parse)
        .find(|mapping| mapping.start <= own && own < mapping.end)
        .ok_or(io::ErrorKind::NotFound)?;
    // Written pages would be lost. Text has none, unless a debugger or a linker made it writable.
    if !text.is_text {
        return Err(io::ErrorKind::Unsupported.into());
    }
    sys::release_clean(text.start, text.end.saturating_sub(text.start))
}

/// One line of `/proc/self/maps` (proc(5)).
#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    start: usize,
    end: usize,
    /// Readable, executable, not writable, of a file.
    is_text: bool,
}

impl Mapping {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let access = words.next()?;
        let inode = words.nth(2)?;
        Some(Self {
            start: usize::from_str_radix(start, 16).ok()?,
            end: usize::from_str_radix(end, 16).ok()?,
            is_text: access == "r-xp" && inode != "0",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_told_from_other_mappings() {
        let text = "7f0000001000-7f0000003000 r-xp 00001000 fe:00 42   /usr/bin/slotvmm";
        let expected = Mapping {
            start: 0x7f00_0000_1000,
            end: 0x7f00_0000_3000,
            is_text: true,
        };
        assert_eq!(Mapping::parse(text), Some(expected));
        let data = "7f0000001000-7f0000003000 rw-p 00001000 fe:00 42   /usr/bin/slotvmm";
        assert!(!Mapping::parse(data).unwrap().is_text);
        let vdso = "7f0000001000-7f0000003000 r-xp 00000000 00:00 0    [vdso]";
        assert!(!Mapping::parse(vdso).unwrap().is_text);
        assert_eq!(Mapping::parse("garbage"), None);
    }

    #[test]
    fn released_text_still_runs() {
        release_text().unwrap();
        release_text().unwrap();
    }
}
