//! Packing a directory into a squashfs image.

use std::fmt;
use std::path::Path;

use anyhow::Result;

use crate::process;
use crate::tools::Tools;

/// How an image's blocks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compressor {
    /// Deflate.
    Gzip,
    /// LZMA2.
    Xz,
    /// Zstandard.
    Zstd,
    /// LZ4.
    Lz4,
}

impl Compressor {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Gzip, Self::Xz, Self::Zstd, Self::Lz4];
}

impl fmt::Display for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
        })
    }
}

/// Packs the directory `tree` into `image`. What the lab itself put there belongs to root; times
/// are left out, so that the same tree gives the same image.
pub(super) fn pack(tools: &Tools, tree: &Path, compressor: Compressor, image: &Path) -> Result<()> {
    let mut command = tools.command("mksquashfs");
    command
        .arg(tree)
        .arg(image)
        .args(["-noappend", "-quiet", "-no-progress"]);
    command.args([
        "-mkfs-time",
        "0",
        "-all-time",
        "0",
        "-comp",
        &compressor.to_string(),
    ]);
    if compressor == Compressor::Zstd {
        command.args(["-Xcompression-level", "6"]);
    }
    process::output(&mut command)?;
    Ok(())
}
