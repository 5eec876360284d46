//! `[[fs]]`: what a slot's file may say about directories it shares with the guest.

use super::node::{Node, Value};
use super::problem::Located;
use super::reader::{FromNode, Ranged, Table, expected};
use super::slot::Setting;
use super::values::{AbsolutePath, SizeMib};
use super::words::word;

/// One `[[fs]]`.
#[derive(Debug)]
pub(crate) struct FsFile {
    /// The table itself.
    pub(crate) at: Located<()>,
    /// `tag`; absent only when that was reported.
    pub(crate) tag: Setting<Tag>,
    /// `source`: the directory, for the built-in backend.
    pub(crate) source: Setting<AbsolutePath>,
    /// `socket`: where another backend listens.
    pub(crate) socket: Setting<AbsolutePath>,
    /// `readonly`
    pub(crate) readonly: Setting<bool>,
    /// `cache`
    pub(crate) cache: Setting<Cache>,
    /// `dax`
    pub(crate) dax: Setting<Dax>,
    /// `poll`
    pub(crate) poll: Setting<Poll>,
    /// `queues`
    pub(crate) queues: Setting<Ranged<1, 16>>,
    /// `on_backend_exit`
    pub(crate) on_backend_exit: Setting<OnBackendExit>,
    /// `position`
    pub(crate) position: Setting<Ranged<2, 15>>,
}

impl FsFile {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        let file = Self {
            at: table.located(),
            tag: table.require("tag"),
            source: table.get("source"),
            socket: table.get("socket"),
            readonly: table.get("readonly"),
            cache: table.get("cache"),
            dax: table.get("dax"),
            poll: table.get("poll"),
            queues: table.get("queues"),
            on_backend_exit: table.get("on_backend_exit"),
            position: table.get("position"),
        };
        table.finish();
        file
    }
}

/// What the guest mounts a share by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tag(pub(crate) String);

impl FromNode for Tag {
    fn from_node(node: &Node) -> Result<Self, String> {
        let text = String::from_node(node)?;
        // A guest names it on a command line and in its table of mounts.
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
        if text.len() <= devices::fs::MAX_TAG_BYTES && text.bytes().all(plain) {
            return Ok(Self(text));
        }
        Err(expected(
            "a tag of 1 to 36 visible ASCII characters without backslashes",
            &node.value,
        ))
    }
}

/// What the guest may keep of a share without asking again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Cache {
    /// Everything: files do not change.
    #[default]
    Always,
    /// Names and attributes for a second, contents while a file does not change.
    Auto,
    /// Nothing.
    Never,
}

impl FromNode for Cache {
    fn from_node(node: &Node) -> Result<Self, String> {
        word(
            node,
            &[
                ("always", Self::Always),
                ("auto", Self::Auto),
                ("never", Self::Never),
            ],
        )
    }
}

/// The window in which the guest reads large files without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dax {
    /// There is none.
    Off,
    /// Its size, in MiB: 16 to 16,384, even.
    Window(u64),
}

impl FromNode for Dax {
    fn from_node(node: &Node) -> Result<Self, String> {
        let wanted = "`false`, or the size of a window from 16MiB to 16GiB in steps of 2MiB";
        match &node.value {
            Value::Bool(false) => Ok(Self::Off),
            Value::Bool(true) => Err(expected(wanted, &node.value)),
            _ => match SizeMib::from_node(node)?.0 {
                mib @ 16..=16_384 if mib % 2 == 0 => Ok(Self::Window(mib)),
                _ => Err(expected(wanted, &node.value)),
            },
        }
    }
}

/// How long the backend looks for the guest's next request before it waits for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Poll {
    /// As long as suits the host.
    #[default]
    Auto,
    /// So many microseconds, up to 10,000; 0 never looks.
    Micros(u64),
}

impl FromNode for Poll {
    fn from_node(node: &Node) -> Result<Self, String> {
        match &node.value {
            Value::Integer(micros @ 0..=10_000) => Ok(Self::Micros(micros.unsigned_abs())),
            Value::Integer(_) => Err(expected("0 to 10000 microseconds", &node.value)),
            _ => word(node, &[("auto", Self::Auto), ("off", Self::Micros(0))]),
        }
    }
}

/// What becomes of a share whose backend is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnBackendExit {
    /// Another one takes over.
    Restart,
    /// Every request fails.
    Fail,
}

impl FromNode for OnBackendExit {
    fn from_node(node: &Node) -> Result<Self, String> {
        word(node, &[("restart", Self::Restart), ("fail", Self::Fail)])
    }
}
