//! Rate limits of a slot's devices.

use std::num::NonZeroU64;

use serde::Serialize;

use crate::config::{ByteSize, LimitFile, Located, Problem, Ranged};

/// Smallest burst that is chosen for a limit without one: a frame of the largest size.
const LEAST_BURST_BYTES: u64 = 64 << 10;
/// Smallest such number of packets: what a device moves in one go.
const LEAST_BURST_PACKETS: u64 = 64;

/// Limits of one direction of a device; what is nothing is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Limit {
    /// Bytes.
    pub(crate) bytes: Option<Rate>,
    /// Packets.
    pub(crate) packets: Option<Rate>,
}

/// Units per second, and at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Rate {
    /// Units per second.
    pub(crate) per_second: NonZeroU64,
    /// Units that may pass at once.
    pub(crate) burst: NonZeroU64,
}

impl Rate {
    /// Without a burst of its own, a rate has a tenth of a second's worth, and `least` at least.
    fn new(per_second: NonZeroU64, burst: Option<NonZeroU64>, least: u64) -> Self {
        let derived = NonZeroU64::new((per_second.get() / 10).max(least));
        Self {
            per_second,
            burst: burst.or(derived).unwrap_or(per_second),
        }
    }
}

impl Limit {
    /// The limit that a table describes.
    pub(super) fn of(file: &LimitFile) -> Self {
        let bytes = |set: &Located<ByteSize>| set.value.0;
        let burst = file.burst.as_ref().map(bytes);
        let bandwidth = file.bandwidth.as_ref().map(bytes);
        let count = |set: &Located<Ranged<1, 1_000_000_000>>| {
            u64::try_from(set.value.0).ok().and_then(NonZeroU64::new)
        };
        let packets = file.packets.as_ref().and_then(count);
        let packet_burst = file.packet_burst.as_ref().and_then(count);
        Self {
            bytes: bandwidth.map(|rate| Rate::new(rate, burst, LEAST_BURST_BYTES)),
            packets: packets.map(|rate| Rate::new(rate, packet_burst, LEAST_BURST_PACKETS)),
        }
    }
}

/// A burst means nothing without a rate.
pub(super) fn check(file: &LimitFile, problems: &mut Vec<Problem>) {
    if let (Some(burst), None) = (&file.burst, &file.bandwidth) {
        problems.push(burst.problem("limits nothing alone: set `bandwidth` as well".to_owned()));
    }
    if let (Some(burst), None) = (&file.packet_burst, &file.packets) {
        problems.push(burst.problem("limits nothing alone: set `packets` as well".to_owned()));
    }
}
