//! What a guest may keep, and for how long.

use std::time::Duration;

use crate::inode::NodeId;
use crate::share::Stat;

/// What a guest may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cache {
    /// Everything, for as long as it likes: what lies in the share never changes, it only comes
    /// and goes at the top, as in a store.
    #[default]
    Always,
    /// Names and attributes for a second, data until those show a change.
    Auto,
    /// Nothing.
    Never,
}

/// For what does not change.
const LONG: Duration = Duration::from_secs(24 * 60 * 60);
/// For what may.
const SHORT: Duration = Duration::from_secs(1);

/// What changed less than this ago, in nanoseconds, may still be in the making, unless it says that
/// it is complete: a path that is being copied into the store is seen before.
const YOUNG: i64 = 60 * 1_000_000_000;

impl Cache {
    /// How long attributes of `id` may be kept, at the time `now`.
    pub(super) fn attributes(self, id: NodeId, stat: &Stat, now: i64) -> Duration {
        match self {
            // The top directory changes whenever a path comes or goes.
            Self::Always if id == NodeId::ROOT || is_in_the_making(stat, now) => SHORT,
            Self::Always => LONG,
            Self::Auto => SHORT,
            Self::Never => Duration::ZERO,
        }
    }

    /// How long the name that led to `stat` may be kept, at the time `now`.
    pub(super) fn name(self, stat: &Stat, now: i64) -> Duration {
        match self {
            Self::Always if is_in_the_making(stat, now) => SHORT,
            Self::Always => LONG,
            Self::Auto => SHORT,
            Self::Never => Duration::ZERO,
        }
    }

    /// How long it may be kept that there is no such name in the directory `id`, at the time
    /// `now`.
    pub(super) fn absence(self, id: NodeId, directory: &Stat, now: i64) -> Duration {
        match self {
            // New paths of a store appear here.
            Self::Always if id == NodeId::ROOT || is_in_the_making(directory, now) => SHORT,
            Self::Always => LONG,
            Self::Auto => SHORT,
            Self::Never => Duration::ZERO,
        }
    }
}

fn is_in_the_making(stat: &Stat, now: i64) -> bool {
    // What changes in the future is not known to be old.
    !stat.is_registered() && now.saturating_sub(stat.changed()) < YOUNG
}
