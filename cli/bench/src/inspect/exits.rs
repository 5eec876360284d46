//! Why a guest leaves the processor's guest mode: KVM's own counters of each vCPU
//! (Documentation/virt/kvm/api.rst, 4.133), which any monitor's descriptors lead to.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::FileExt as _;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use serde::Serialize;

use super::Known;
use crate::sys;

/// Most descriptors of statistics; the kernel has fewer than a hundred.
const MOST: u32 = 1024;

/// Longest name of a statistic.
const LONGEST: u32 = 256;

/// Bytes of the header (`struct kvm_stats_header`), and of a descriptor without its name.
const HEADER: usize = 24;
const DESCRIPTOR: usize = 16;

/// KVM exits of all vCPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Exits {
    /// All of them.
    pub total: u64,
    /// Those that KVM counts apart, by its names for them, such as `io_exits`.
    pub by_reason: BTreeMap<String, u64>,
}

/// Counts one monitor's exits.
#[derive(Debug, Default)]
pub(super) struct Counter {
    vcpus: Vec<Statistics>,
    seen: Option<Exits>,
    failed: Option<String>,
}

impl Counter {
    /// Finds vCPUs as they appear, and reads what is counted.
    pub(super) fn look(&mut self, pid: u32) {
        if let Err(error) = self.find(pid) {
            self.failed = Some(error.to_string());
        }
        let read: io::Result<Vec<_>> = self.vcpus.iter().map(Statistics::read).collect();
        match read {
            Ok(vcpus) if !vcpus.is_empty() => self.seen = Some(sum(&vcpus)),
            Ok(_) => {}
            Err(error) => self.failed = Some(error.to_string()),
        }
    }

    fn find(&mut self, pid: u32) -> io::Result<()> {
        let mut process = None;
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
            let entry = entry?;
            let Ok(target) = fs::read_link(entry.path()) else {
                continue;
            };
            let Some(fd) = target
                .to_str()
                .and_then(|text| text.strip_prefix("anon_inode:kvm-vcpu"))
            else {
                continue;
            };
            let vcpu = fd.trim_start_matches(':').to_owned();
            if self.vcpus.iter().any(|known| known.vcpu == vcpu) {
                continue;
            }
            let process = match &process {
                Some(process) => process,
                None => process.insert(open(pid)?),
            };
            let number = entry.file_name().to_string_lossy().parse();
            self.vcpus.push(Statistics::open(
                process,
                number.map_err(io::Error::other)?,
                vcpu,
            )?);
        }
        Ok(())
    }

    pub(super) fn into_exits(self) -> Known<Exits> {
        match (self.seen, self.failed) {
            (Some(exits), _) => Known::Value(exits),
            (None, Some(reason)) => Known::NotAvailable(format!("KVM's statistics: {reason}")),
            (None, None) => {
                Known::NotAvailable("the process ended before its vCPUs were looked at".to_owned())
            }
        }
    }
}

fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    Ok(pidfd_open(
        pid.ok_or(io::ErrorKind::NotFound)?,
        PidfdFlags::empty(),
    )?)
}

fn sum(vcpus: &[BTreeMap<String, u64>]) -> Exits {
    let mut exits = Exits::default();
    for (name, value) in vcpus.iter().flatten() {
        match name.as_str() {
            "exits" => exits.total = exits.total.saturating_add(*value),
            name if name.ends_with("_exits") || name == "hypercalls" => {
                let sum = exits.by_reason.entry(name.to_owned()).or_default();
                *sum = sum.saturating_add(*value);
            }
            _ => {}
        }
    }
    exits
}

/// The statistics of one vCPU.
#[derive(Debug)]
struct Statistics {
    vcpu: String,
    file: File,
    /// Name and place of each single value.
    values: Vec<(String, u64)>,
}

impl Statistics {
    fn open(process: &OwnedFd, number: RawFd, vcpu: String) -> io::Result<Self> {
        let kvm = pidfd_getfd(process, number, PidfdGetfdFlags::empty())?;
        let file = File::from(sys::kvm_stats(&kvm)?);
        let values = values(&|bytes, at| file.read_exact_at(bytes, at))?;
        Ok(Self { vcpu, file, values })
    }

    fn read(&self) -> io::Result<BTreeMap<String, u64>> {
        let read = |(name, at): &(String, u64)| {
            let mut bytes = [0; 8];
            self.file.read_exact_at(&mut bytes, *at)?;
            Ok((name.clone(), u64::from_ne_bytes(bytes)))
        };
        self.values.iter().map(read).collect()
    }
}

/// Reads bytes at a place.
type ReadAt<'a> = &'a dyn Fn(&mut [u8], u64) -> io::Result<()>;

/// Name and place of every statistic that is one number.
fn values(read: ReadAt<'_>) -> io::Result<Vec<(String, u64)>> {
    let mut header = [0; HEADER];
    read(&mut header, 0)?;
    let [_, name_size, count, _, descriptors, data] = words(&header);
    if name_size > LONGEST || count > MOST {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "KVM describes its statistics in a way that is not known",
        ));
    }
    let size = DESCRIPTOR.saturating_add(name_size as usize);
    let mut values = Vec::new();
    for index in 0..u64::from(count) {
        let mut descriptor = vec![0; size];
        let at = index.saturating_mul(size as u64);
        read(&mut descriptor, at.saturating_add(u64::from(descriptors)))?;
        let Some((numbers, name)) = descriptor.split_at_checked(DESCRIPTOR) else {
            continue;
        };
        // Flags, exponent and count of numbers, place, size of a bucket.
        let [_, shape, place, _] = words(numbers);
        let name: Vec<u8> = name.iter().copied().take_while(|byte| *byte != 0).collect();
        if shape >> 16 == 1 {
            let name = String::from_utf8_lossy(&name).into_owned();
            values.push((name, u64::from(data).saturating_add(place.into())));
        }
    }
    Ok(values)
}

/// The first words of `bytes`; zeroes where there are none.
fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = bytes.try_into().map_or(0, u32::from_ne_bytes);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(name_size: u32, names: &[(&str, u16)]) -> Vec<u8> {
        let count = u32::try_from(names.len()).unwrap();
        let header = [0, name_size, count, 24, 32, 4096];
        let mut bytes: Vec<u8> = header
            .iter()
            .flat_map(|word: &u32| word.to_ne_bytes())
            .collect();
        bytes.resize(32, 0);
        for (index, (name, size)) in names.iter().enumerate() {
            let place = u32::try_from(index * 8).unwrap();
            let shape = u32::from(*size) << 16;
            bytes.extend(
                [0, shape, place, 0]
                    .iter()
                    .flat_map(|word: &u32| word.to_ne_bytes()),
            );
            let mut name = name.as_bytes().to_vec();
            name.resize(name_size as usize, 0);
            bytes.extend(name);
        }
        bytes
    }

    fn found(bytes: &[u8]) -> io::Result<Vec<(String, u64)>> {
        values(&|into, at| {
            let start = usize::try_from(at).unwrap();
            let from = bytes.get(start..start + into.len());
            into.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    #[test]
    fn single_values_are_found_by_name_and_histograms_left_out() {
        let bytes = statistics(48, &[("exits", 1), ("halt_poll_hist", 32), ("io_exits", 1)]);
        let expected = [("exits".to_owned(), 4096), ("io_exits".to_owned(), 4112)];
        assert_eq!(found(&bytes).unwrap(), expected);
    }

    #[test]
    fn damaged_description_is_an_error() {
        assert!(found(&statistics(100_000, &[])).is_err());
        let bytes = statistics(48, &[("exits", 1)]);
        assert!(found(&bytes[..bytes.len() - 1]).is_err());
        assert!(found(&[]).is_err());
    }

    #[test]
    fn vcpus_are_added_up() {
        let vcpu = BTreeMap::from([
            ("exits".to_owned(), 10),
            ("io_exits".to_owned(), 3),
            ("hypercalls".to_owned(), 1),
            ("pf_taken".to_owned(), 99),
        ]);
        let exits = sum(&[vcpu.clone(), vcpu]);
        assert_eq!(exits.total, 20);
        let expected = [("hypercalls", 2), ("io_exits", 6)];
        let expected = expected.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(exits.by_reason, BTreeMap::from(expected));
    }
}
