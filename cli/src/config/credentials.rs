//! `[credentials]`: what a slot's file may say of secrets for the guest. It names them and says
//! where they lie; no file says a value.

use std::path::PathBuf;

use devices::credentials::Name;

use super::node::Node;
use super::problem::Located;
use super::reader::{FromNode, Table, expected};
use super::slot::Setting;
use super::words::word;

/// `[credentials]`
#[derive(Debug, Default)]
pub(crate) struct CredentialsFile {
    /// `prefix`, before the destination of each.
    pub(crate) prefix: Setting<Prefix>,
    /// `static_oem_strings`: SMBIOS strings that are no secrets.
    pub(crate) static_oem_strings: Setting<Vec<OemText>>,
    /// `[credentials.map.<key>]`
    pub(crate) map: Vec<CredentialFile>,
}

/// One `[credentials.map.<key>]`.
#[derive(Debug)]
pub(crate) struct CredentialFile {
    /// The table itself.
    pub(crate) at: Located<()>,
    /// Its key.
    pub(crate) key: String,
    /// `source`: where the value lies.
    pub(crate) source: Setting<Source>,
    /// `destination`: what the guest calls it, after the prefix.
    pub(crate) destination: Setting<String>,
    /// `transport`
    pub(crate) transport: Setting<Transport>,
    /// `once`: whether it is given out only once.
    pub(crate) once: Setting<bool>,
}

impl CredentialsFile {
    /// Reads the table.
    pub(super) fn read(mut table: Table<'_>) -> Self {
        let file = Self {
            prefix: table.get("prefix"),
            static_oem_strings: table.get("static_oem_strings"),
            map: table
                .named_tables("map")
                .into_iter()
                .map(CredentialFile::read)
                .collect(),
        };
        table.finish();
        file
    }
}

impl CredentialFile {
    fn read((key, mut table): (String, Table<'_>)) -> Self {
        let file = Self {
            at: table.located(),
            key,
            source: table.get("source"),
            destination: table.get("destination"),
            transport: table.get("transport"),
            once: table.get("once"),
        };
        table.finish();
        file
    }
}

/// What stands before the name of every credential; may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prefix(pub(crate) String);

impl FromNode for Prefix {
    fn from_node(node: &Node) -> Result<Self, String> {
        match &node.value {
            super::node::Value::Text(text) => Ok(Self(text.clone())),
            other => Err(expected("text such as \"HOST-\"", other)),
        }
    }
}

/// Where the value of a credential lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// In `$CREDENTIALS_DIRECTORY`, where systemd puts what `LoadCredential=` names.
    Directory(Name),
    /// In a file of the host.
    File(PathBuf),
}

impl FromNode for Source {
    fn from_node(node: &Node) -> Result<Self, String> {
        let text = String::from_node(node)?;
        if text.starts_with('/') {
            return Ok(Self::File(text.into()));
        }
        let name = text.strip_prefix("$CREDENTIALS_DIRECTORY/");
        let name = name.unwrap_or(&text).parse();
        name.map(Self::Directory).map_err(|_| {
            expected(
                "an absolute path, or the name of a file in $CREDENTIALS_DIRECTORY",
                &node.value,
            )
        })
    }
}

/// How a credential reaches the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Transport {
    /// The guest asks for it.
    #[default]
    Vsock,
    /// It lies in the SMBIOS tables, where systemd finds it.
    Smbios,
}

impl FromNode for Transport {
    fn from_node(node: &Node) -> Result<Self, String> {
        word(node, &[("vsock", Self::Vsock), ("smbios", Self::Smbios)])
    }
}

/// A string of the SMBIOS tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OemText(pub(crate) String);

impl FromNode for OemText {
    fn from_node(node: &Node) -> Result<Self, String> {
        String::from_node(node).map(Self)
    }
}
