//! From a [`Slot`] to what the `vmm` and `devices` crates take. The only file that knows both.

use super::Slot;
use crate::config::{HostFile, LoadedSlot, Problem};

/// Checks the limits of the machine model.
pub(super) fn check_limits(
    _slot: &Slot,
    _host: &HostFile,
    _loaded: &LoadedSlot,
    _problems: &mut Vec<Problem>,
) {
}
