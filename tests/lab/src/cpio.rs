//! A writer of initramfs archives: the "newc" format of the kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::io::{self, Write};

/// Longest path the kernel's unpacker accepts, with its final NUL.
const PATH_MAX: usize = 4096;

/// Writes one archive to `W`.
#[derive(Debug)]
pub struct CpioWriter<W> {
    out: W,
    inode: u32,
    written: usize,
}

/// File type and permission bits, as `st_mode` has them.
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_755;
const SYMLINK: u32 = 0o120_777;

impl<W: Write> CpioWriter<W> {
    /// Starts an archive.
    pub fn new(out: W) -> Self {
        Self {
            out,
            inode: 0,
            written: 0,
        }
    }

    /// Adds a directory. Parents must come first.
    ///
    /// # Errors
    /// When the path is too long or the output fails.
    pub fn directory(&mut self, path: &str) -> io::Result<()> {
        self.member(path, DIRECTORY, &[])
    }

    /// Adds a file with the permission bits `mode`.
    ///
    /// # Errors
    /// When the path or the content is too long or the output fails.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.member(path, REGULAR | mode, content)
    }

    /// Adds a symbolic link to `target`.
    ///
    /// # Errors
    /// When the path is too long or the output fails.
    pub fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.member(path, SYMLINK, target.as_bytes())
    }

    /// Ends the archive and returns the output.
    ///
    /// # Errors
    /// When the output fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.member("TRAILER!!!", 0, &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn member(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let name_len = path.len().saturating_add(1);
        if name_len > PATH_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "path too long for cpio",
            ));
        }
        let size = u32::try_from(content.len())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "file too long for cpio"))?;
        self.inode = self.inode.saturating_add(1);
        let links = if mode == DIRECTORY { 2 } else { 1 };
        // Magic, then inode, mode, uid, gid, nlink, mtime, size, device and special device numbers,
        // name length with its NUL, checksum.
        let header = format!(
            "070701{:08X}{mode:08X}{:08X}{:08X}{links:08X}{:08X}{size:08X}{:08X}{:08X}{:08X}{:08X}\
             {name_len:08X}{:08X}",
            self.inode, 0, 0, 0, 0, 0, 0, 0, 0
        );
        self.put(header.as_bytes())?;
        self.put(path.as_bytes())?;
        self.put(&[0])?;
        self.pad()?;
        self.put(content)?;
        self.pad()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written = self.written.wrapping_add(bytes.len());
        self.out.write_all(bytes)
    }

    /// Names and contents start at multiples of four bytes.
    fn pad(&mut self) -> io::Result<()> {
        let zeros = [0_u8; 3];
        let missing = self.written.wrapping_neg() % 4;
        self.put(zeros.get(..missing).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Vec<u8> {
        let mut cpio = CpioWriter::new(Vec::new());
        cpio.directory("bin").unwrap();
        cpio.file("bin/abc", 0o755, b"hello").unwrap();
        cpio.symlink("init", "bin/abc").unwrap();
        cpio.finish().unwrap()
    }

    #[test]
    fn members_are_aligned_and_sized() {
        let bytes = archive();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(&bytes[..6], b"070701");
        // The second member's header follows the first's 110 + "bin\0", padded to 116.
        let second = &bytes[116..];
        assert_eq!(&second[..6], b"070701");
        assert_eq!(&second[14..22], b"000081ED");
        assert_eq!(&second[54..62], b"00000005");
        assert_eq!(&second[110..118], b"bin/abc\0");
        assert_eq!(&second[120..125], b"hello");
    }

    #[test]
    fn archive_ends_with_the_trailer() {
        let bytes = archive();
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("TRAILER!!!").count(), 1);
        assert!(text.trim_end_matches('\0').ends_with("TRAILER!!!"));
    }

    #[test]
    fn overlong_path_is_refused() {
        let mut cpio = CpioWriter::new(Vec::new());
        assert!(cpio.directory(&"x".repeat(PATH_MAX)).is_err());
    }
}
