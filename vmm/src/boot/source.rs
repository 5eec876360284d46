//! What a bootstrap is searched in: a tree of files, be it inside a squashfs image or a directory
//! on the host, and how symlinks in it are followed.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::error::OpenError;

/// Most symlinks followed for one path, the kernel's own limit.
const MAX_SYMLINKS: u32 = 40;
/// Where a Nix store lies in the guest.
pub(super) const STORE: &str = "/nix/store";

/// What a path in a tree is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// A regular file with its length in bytes.
    File(u64),
    /// A directory.
    Directory,
    /// A symlink with its target.
    Symlink(String),
    /// A device, socket or FIFO.
    Other,
}

/// A tree of files. Paths are absolute, without `.`, `..` or doubled slashes.
pub(super) trait Tree {
    /// The image or directory, for messages.
    fn path(&self) -> &Path;
    /// What is at `path`, itself, without following a symlink in its last component.
    fn node(&self, path: &str) -> Option<Node>;
    /// Names in the directory at `path`, sorted; none when it is no directory.
    fn names(&self, path: &str) -> Vec<String>;
    /// Copies the file at `path`; returns its length.
    fn copy(&self, path: &str, sink: &mut dyn Write) -> io::Result<u64>;
}

/// A path with all symlinks followed, and what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolved {
    /// The path without symlinks.
    pub(super) path: String,
    /// What is there; never a symlink.
    pub(super) node: Node,
}

/// A tree with its symlinks followed, as the guest will see it.
pub(super) struct View<'a> {
    tree: &'a dyn Tree,
    root_is_store: bool,
}

impl<'a> View<'a> {
    /// Looks at `tree`, finding out whether its root is a Nix store rather than a whole system.
    pub(super) fn new(tree: &'a dyn Tree) -> Self {
        let root_is_store =
            tree.node(STORE).is_none() && tree.names("/").iter().any(|n| is_store_name(n));
        Self {
            tree,
            root_is_store,
        }
    }

    /// The tree looked at.
    pub(super) fn tree(&self) -> &'a dyn Tree {
        self.tree
    }

    /// Whether the root is a Nix store.
    pub(super) fn root_is_store(&self) -> bool {
        self.root_is_store
    }

    /// Follows `path` to a file or directory; `None` when there is nothing. `..` stops at the
    /// root, so nothing outside the tree is ever reached.
    pub(super) fn resolve(&self, path: &str) -> Result<Option<Resolved>, OpenError> {
        let mut pending = self.components(path);
        let mut done: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(component) = pending.pop() {
            match component.as_str() {
                "." => continue,
                ".." => {
                    done.pop();
                    continue;
                }
                _ => done.push(component),
            }
            match self.tree.node(&join(&done)) {
                Some(Node::Symlink(target)) => {
                    links += 1;
                    if links > MAX_SYMLINKS {
                        return Err(OpenError::SymlinkLoop {
                            path: self.tree.path().to_owned(),
                            member: path.to_owned(),
                        });
                    }
                    done.pop();
                    if target.starts_with('/') {
                        done.clear();
                    }
                    pending.extend(self.components(&target));
                }
                Some(Node::Directory) => {}
                Some(node) if pending.is_empty() => {
                    let path = join(&done);
                    return Ok(Some(Resolved { path, node }));
                }
                Some(_) | None => return Ok(None),
            }
        }
        let path = join(&done);
        let node = Node::Directory;
        Ok(Some(Resolved { path, node }))
    }

    /// The file at `path`, symlinks followed, with its length.
    pub(super) fn file(&self, path: &str) -> Result<Option<(String, u64)>, OpenError> {
        Ok(match self.resolve(path)? {
            Some(Resolved {
                path,
                node: Node::File(len),
            }) => Some((path, len)),
            _ => None,
        })
    }

    /// The bytes of the file at `path`; `None` when there is no such file.
    pub(super) fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, OpenError> {
        match self.file(path)? {
            Some((path, len)) => read(self.tree, &path, (len, limit)).map(Some),
            None => Ok(None),
        }
    }

    /// The path a resolved one has in the running guest.
    pub(super) fn guest_path(&self, resolved: &str) -> String {
        match self.root_is_store {
            true => format!("{STORE}{resolved}"),
            false => resolved.to_owned(),
        }
    }

    /// Components of `path`, last first. In a tree whose root is the store, `/nix/store` is the
    /// root itself.
    fn components(&self, path: &str) -> Vec<String> {
        let inside = match path.strip_prefix(STORE) {
            Some(rest) if self.root_is_store && (rest.is_empty() || rest.starts_with('/')) => rest,
            _ => path,
        };
        let parts = inside.split('/').filter(|part| !part.is_empty());
        parts.rev().map(str::to_owned).collect()
    }
}

/// Reads the file at `path`, whose length is `len`, into memory.
pub(super) fn read(
    tree: &dyn Tree,
    path: &str,
    (len, limit): (u64, u64),
) -> Result<Vec<u8>, OpenError> {
    if len > limit {
        return Err(OpenError::MemberTooLarge {
            path: tree.path().to_owned(),
            member: path.to_owned(),
            size: len,
            limit,
        });
    }
    // The buffer grows with what is really there: a length in a damaged image may be a lie.
    let mut sink = Bounded {
        bytes: Vec::new(),
        limit,
    };
    match tree.copy(path, &mut sink) {
        Ok(_) => Ok(sink.bytes),
        Err(source) => Err(OpenError::Member {
            path: tree.path().to_owned(),
            member: path.to_owned(),
            source,
        }),
    }
}

/// A buffer that refuses to grow beyond a limit.
struct Bounded {
    bytes: Vec<u8>,
    limit: u64,
}

impl Write for Bounded {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let total = (self.bytes.len() as u64).saturating_add(buf.len() as u64);
        if total > self.limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether `name` is that of a store object: 32 characters of hash, a dash, a name.
pub(super) fn is_store_name(name: &str) -> bool {
    match name.split_once('-') {
        Some((hash, rest)) => {
            let digit = |c: u8| c.is_ascii_digit() || c.is_ascii_lowercase();
            hash.len() == 32 && hash.bytes().all(digit) && !rest.is_empty()
        }
        None => false,
    }
}

fn join(components: &[String]) -> String {
    format!("/{}", components.join("/"))
}

/// The host's own files. Symlinks are the host's business: they are followed by the kernel.
pub(super) struct HostTree {
    root: PathBuf,
}

impl HostTree {
    /// A view of the host in which messages name `root`.
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }
}

impl Tree for HostTree {
    fn path(&self) -> &Path {
        &self.root
    }

    fn node(&self, path: &str) -> Option<Node> {
        let meta = fs::metadata(path).ok()?;
        Some(if meta.is_dir() {
            Node::Directory
        } else if meta.is_file() {
            Node::File(meta.len())
        } else {
            Node::Other
        })
    }

    fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    fn copy(&self, path: &str, sink: &mut dyn Write) -> io::Result<u64> {
        io::copy(&mut fs::File::open(path)?, sink)
    }
}
