//! Names that a guest may ask for.

use std::ffi::CStr;

use rustix::io::Errno;

use crate::abi::NAME_MAX;

/// The name of one directory entry: not empty, at most 255 bytes, no slash, neither `.` nor `..`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name<'a>(&'a CStr);

impl<'a> Name<'a> {
    /// From the body of a request: a name, the NUL that ends it, and nothing more.
    ///
    /// # Errors
    /// `EINVAL` for what is no name, `ENAMETOOLONG` for one that is too long.
    pub fn parse(body: &'a [u8]) -> Result<Self, Errno> {
        let name = CStr::from_bytes_with_nul(body).map_err(|_| Errno::INVAL)?;
        Self::new(name)
    }

    /// A name that has its end already.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn new(name: &'a CStr) -> Result<Self, Errno> {
        match name.to_bytes() {
            b"" | b"." | b".." => Err(Errno::INVAL),
            bytes if bytes.contains(&b'/') => Err(Errno::INVAL),
            bytes if bytes.len() > NAME_MAX => Err(Errno::NAMETOOLONG),
            _ => Ok(Self(name)),
        }
    }

    /// For calls of the host.
    pub fn as_c_str(self) -> &'a CStr {
        self.0
    }

    /// Without its end.
    pub fn bytes(self) -> &'a [u8] {
        self.0.to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_single_components_pass() {
        let refused: [(&[u8], Errno); 11] = [
            (b"", Errno::INVAL),
            (b"\0", Errno::INVAL),
            (b".\0", Errno::INVAL),
            (b"..\0", Errno::INVAL),
            (b"../etc\0", Errno::INVAL),
            (b"/\0", Errno::INVAL),
            (b"a/b\0", Errno::INVAL),
            (b"no end", Errno::INVAL),
            (b"two\0names\0", Errno::INVAL),
            (b"late\0end", Errno::INVAL),
            (b"double\0\0", Errno::INVAL),
        ];
        for (body, error) in refused {
            assert_eq!(Name::parse(body), Err(error), "{body:?}");
        }
        let mut long = vec![b'x'; 256];
        long.push(0);
        assert_eq!(Name::parse(&long), Err(Errno::NAMETOOLONG));
    }

    #[test]
    fn every_other_byte_is_a_name() {
        for byte in (1..=255).filter(|&byte| byte != b'/' && byte != b'.') {
            let body = [byte, 0];
            assert_eq!(Name::parse(&body).unwrap().bytes(), [byte]);
        }
        assert_eq!(Name::parse(b"...\0").unwrap().bytes(), b"...");
        assert_eq!(Name::parse(b".hidden\0").unwrap().bytes(), b".hidden");
        let mut longest = vec![b'x'; 255];
        longest.push(0);
        assert_eq!(Name::parse(&longest).unwrap().bytes().len(), 255);
    }
}
