//! What can be asked for, `enum fuse_opcode`, and which of it a read-only share does.

/// What becomes of a request, by its opcode alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It reads, and is served.
    Serve(Opcode),
    /// It would change something: `EROFS`.
    Mutating,
    /// It is not known, or means nothing here: `ENOSYS`, after which the driver does without.
    Unknown,
}

macro_rules! opcodes {
    (serve { $($name:ident = $number:literal, $what:literal;)* }
     mutating { $($changes:literal, $changes_name:literal;)* }) => {
        /// A request that is served.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Opcode {
            $(#[doc = $what] $name = $number,)*
        }

        impl Opcode {
            /// Every request that is served.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }

        /// Numbers and names of the requests that would change something.
        pub const MUTATING: &[(u32, &str)] = &[$(($changes, $changes_name)),*];

        impl Class {
            /// What becomes of a request with the opcode `number`. There is no other way in: what
            /// is not in this table is refused, so a request that is added to the protocol fails
            /// closed.
            pub const fn of(number: u32) -> Self {
                match number {
                    $($number => Self::Serve(Opcode::$name),)*
                    $($changes => Self::Mutating,)*
                    _ => Self::Unknown,
                }
            }
        }
    };
}

opcodes! {
    serve {
        Lookup = 1, "Find a name in a directory, `FUSE_LOOKUP`.";
        Forget = 2, "Drop references to an inode; has no reply, `FUSE_FORGET`.";
        Getattr = 3, "Attributes of an inode, `FUSE_GETATTR`.";
        Readlink = 5, "Target of a symbolic link, `FUSE_READLINK`.";
        Open = 14, "Open a file, `FUSE_OPEN`.";
        Read = 15, "Read from a file, `FUSE_READ`.";
        Statfs = 17, "Space of the file system, `FUSE_STATFS`.";
        Release = 18, "Close a file, `FUSE_RELEASE`.";
        Fsync = 20, "Write back a file, of which there is nothing, `FUSE_FSYNC`.";
        Getxattr = 22, "Value of an extended attribute, `FUSE_GETXATTR`.";
        Listxattr = 23, "Names of extended attributes, `FUSE_LISTXATTR`.";
        Flush = 25, "A descriptor was closed, `FUSE_FLUSH`.";
        Init = 26, "Begin a session, `FUSE_INIT`.";
        Opendir = 27, "Open a directory, `FUSE_OPENDIR`.";
        Readdir = 28, "List a directory, `FUSE_READDIR`.";
        Releasedir = 29, "Close a directory, `FUSE_RELEASEDIR`.";
        Fsyncdir = 30, "Write back a directory, of which there is nothing, `FUSE_FSYNCDIR`.";
        Access = 34, "May a file be used, `FUSE_ACCESS`.";
        Interrupt = 36, "Give up a request; has no reply, `FUSE_INTERRUPT`.";
        Destroy = 38, "End the session, `FUSE_DESTROY`.";
        BatchForget = 42, "Many of `Forget`; has no reply, `FUSE_BATCH_FORGET`.";
        Readdirplus = 44, "List a directory with attributes, `FUSE_READDIRPLUS`.";
        Lseek = 46, "Find data or a hole, `FUSE_LSEEK`.";
        SetupMapping = 48, "Show a part of a file in the window, `FUSE_SETUPMAPPING`.";
        RemoveMapping = 49, "Take parts of files out of the window, `FUSE_REMOVEMAPPING`.";
        Statx = 52, "More attributes of an inode, `FUSE_STATX`.";
    }
    mutating {
        4, "SETATTR";
        6, "SYMLINK";
        8, "MKNOD";
        9, "MKDIR";
        10, "UNLINK";
        11, "RMDIR";
        12, "RENAME";
        13, "LINK";
        16, "WRITE";
        21, "SETXATTR";
        24, "REMOVEXATTR";
        35, "CREATE";
        43, "FALLOCATE";
        45, "RENAME2";
        47, "COPY_FILE_RANGE";
        51, "TMPFILE";
        53, "COPY_FILE_RANGE_64";
    }
}

impl Opcode {
    /// Whether the protocol knows a reply to it.
    pub const fn has_reply(self) -> bool {
        !matches!(self, Self::Forget | Self::BatchForget | Self::Interrupt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_exactly_one_class() {
        for &opcode in Opcode::ALL {
            assert_eq!(Class::of(opcode as u32), Class::Serve(opcode));
        }
        for &(number, name) in MUTATING {
            assert_eq!(Class::of(number), Class::Mutating, "{name}");
        }
        let known = Opcode::ALL.len() + MUTATING.len();
        let found = (0..=u32::from(u16::MAX))
            .filter(|&number| Class::of(number) != Class::Unknown)
            .count();
        assert_eq!(found, known);
    }

    #[test]
    fn numbers_nobody_knows_yet_are_unknown() {
        for number in [0, 7, 19, 54, 55, 100, 4096, 1 << 20, 0x0300_0000, u32::MAX] {
            assert_eq!(Class::of(number), Class::Unknown, "{number}");
        }
    }
}
