//! Attributes as the host has them, and as the guest is told.

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, StatxTimestamp};
use rustix::io::Errno;

use super::Name;
use crate::abi::attr::{Attr, StatxOut, SxTime};
use crate::inode::{Identity, Kind};

/// `STATX_MNT_ID`: the mount, since Linux 5.8.
const MNT_ID: StatxFlags = StatxFlags::from_bits_retain(0x1000);

/// What is asked for each time.
const WANTED: StatxFlags = StatxFlags::BASIC_STATS
    .union(StatxFlags::BTIME)
    .union(MNT_ID);

const NANOSECONDS: i64 = 1_000_000_000;

/// A directory that changed this recently, in nanoseconds, may change again without a new time
/// stamp: the kernel's clock ticks every ten milliseconds at the slowest.
const TICK: i64 = 20_000_000;

/// Owners as the guest is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Owners {
    /// As on the host.
    #[default]
    Host,
    /// Whom the sandbox's user namespace cannot name appears as root: an immutable store belongs
    /// to root, and everything else to nobody would break what checks owners.
    OverflowIsRoot {
        /// The user id that stands for all that have no name.
        uid: u32,
        /// The group id that does.
        gid: u32,
    },
}

impl Owners {
    fn uid(self, id: u32) -> u32 {
        match self {
            Self::OverflowIsRoot { uid, .. } if id == uid => 0,
            _ => id,
        }
    }

    fn gid(self, id: u32) -> u32 {
        match self {
            Self::OverflowIsRoot { gid, .. } if id == gid => 0,
            _ => id,
        }
    }
}

/// Attributes of an inode.
#[derive(Debug, Clone, Copy)]
pub struct Stat(Statx);

impl Stat {
    /// Of an open inode.
    ///
    /// # Errors
    /// What the host says.
    pub fn of(fd: BorrowedFd<'_>) -> Result<Self, Errno> {
        rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, WANTED).map(Self)
    }

    /// Of an entry of an open directory; a link is looked at, not followed.
    pub(super) fn at(directory: BorrowedFd<'_>, name: Name<'_>) -> Result<Self, Errno> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        rustix::fs::statx(directory, name.as_c_str(), flags, WANTED).map(Self)
    }

    /// What makes it the same inode again.
    pub fn identity(&self) -> Identity {
        let has_birth = self.0.stx_mask & StatxFlags::BTIME.bits() != 0;
        let born = if has_birth {
            self.0.stx_btime
        } else {
            self.0.stx_ctime
        };
        Identity {
            device: u64::from(self.0.stx_dev_major) << 32 | u64::from(self.0.stx_dev_minor),
            ino: self.0.stx_ino,
            born: nanoseconds(&born),
            kind: self.kind(),
        }
    }

    /// Its type.
    pub fn kind(&self) -> Kind {
        match FileType::from_raw_mode(self.0.stx_mode.into()) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            _ => Kind::Special,
        }
    }

    /// The mount it lies in; zero where the kernel does not say.
    pub(super) fn mount(&self) -> u64 {
        if self.0.stx_mask & MNT_ID.bits() == 0 {
            0
        } else {
            self.0.stx_mnt_id
        }
    }

    /// Whether it has the time stamp that Nix and Guix give to everything in a path, one second after
    /// the epoch, once the path is complete.
    pub fn is_registered(&self) -> bool {
        nanoseconds(&self.0.stx_mtime) == NANOSECONDS
    }

    /// When anything about it changed last, in nanoseconds since the epoch.
    pub fn changed(&self) -> i64 {
        nanoseconds(&self.0.stx_ctime)
    }

    /// Owner and group on the host.
    pub fn owner(&self) -> (u32, u32) {
        (self.0.stx_uid, self.0.stx_gid)
    }

    /// Size, in bytes.
    pub fn size(&self) -> u64 {
        self.0.stx_size
    }

    /// Last change of the data, as the guest is told at the time `now`.
    ///
    /// A directory that changed in the current tick of the clock may do so again and show the same
    /// time. The guest keeps listings for as long as this time stays, so it is told one that is
    /// going to be wrong: a nanosecond less, until the tick is over.
    fn mtime(&self, now: i64) -> (i64, u32) {
        let stamp = self.0.stx_mtime;
        let exact = (stamp.tv_sec, stamp.tv_nsec);
        let age = now.saturating_sub(nanoseconds(&stamp));
        if self.kind() != Kind::Directory || !(0..TICK).contains(&age) {
            return exact;
        }
        match stamp.tv_nsec.checked_sub(1) {
            Some(nsec) => (stamp.tv_sec, nsec),
            None => (stamp.tv_sec.saturating_sub(1), 999_999_999),
        }
    }

    /// For replies, at the time `now` in nanoseconds since the epoch.
    pub fn attr(&self, owners: Owners, now: i64) -> Attr {
        let stat = &self.0;
        let (mtime, mtimensec) = self.mtime(now);
        Attr {
            ino: stat.stx_ino,
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            atime: stat.stx_atime.tv_sec.cast_unsigned(),
            mtime: mtime.cast_unsigned(),
            ctime: stat.stx_ctime.tv_sec.cast_unsigned(),
            atimensec: stat.stx_atime.tv_nsec,
            mtimensec,
            ctimensec: stat.stx_ctime.tv_nsec,
            mode: stat.stx_mode.into(),
            nlink: stat.stx_nlink,
            uid: owners.uid(stat.stx_uid),
            gid: owners.gid(stat.stx_gid),
            rdev: encode_device(stat.stx_rdev_major, stat.stx_rdev_minor),
            blksize: stat.stx_blksize,
            flags: 0,
        }
    }

    /// For the reply to `Statx`, at the time `now`, without how long it may be cached.
    pub fn statx(&self, owners: Owners, now: i64) -> StatxOut {
        let stat = &self.0;
        let time = |stamp: &StatxTimestamp| SxTime {
            tv_sec: stamp.tv_sec,
            tv_nsec: stamp.tv_nsec,
            reserved: 0,
        };
        let (tv_sec, tv_nsec) = self.mtime(now);
        StatxOut {
            attr_valid: 0,
            attr_valid_nsec: 0,
            flags: 0,
            spare: [0; 2],
            mask: stat.stx_mask & (StatxFlags::BASIC_STATS | StatxFlags::BTIME).bits(),
            blksize: stat.stx_blksize,
            attributes: 0,
            nlink: stat.stx_nlink,
            uid: owners.uid(stat.stx_uid),
            gid: owners.gid(stat.stx_gid),
            mode: stat.stx_mode,
            spare0: 0,
            ino: stat.stx_ino,
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            attributes_mask: 0,
            atime: time(&stat.stx_atime),
            btime: time(&stat.stx_btime),
            ctime: time(&stat.stx_ctime),
            mtime: SxTime {
                tv_sec,
                tv_nsec,
                reserved: 0,
            },
            rdev_major: stat.stx_rdev_major,
            rdev_minor: stat.stx_rdev_minor,
            dev_major: 0,
            dev_minor: 0,
            spare2: [0; 14],
        }
    }
}

fn nanoseconds(stamp: &StatxTimestamp) -> i64 {
    let seconds = stamp.tv_sec.saturating_mul(NANOSECONDS);
    seconds.saturating_add(stamp.tv_nsec.into())
}

/// As the kernel's `new_encode_dev`: 12 bits of major, 20 of minor.
fn encode_device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & 0xf_ff00) << 12
}
