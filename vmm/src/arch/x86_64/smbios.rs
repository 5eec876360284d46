//! SMBIOS tables (DMTF DSP0134 3.x): who made the machine, which one it is, and OEM strings.

use devices::device::Memory;
use uuid::Uuid;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};
use zeroize::Zeroizing;

use super::layout;
use crate::config::OemString;

const ENTRY_LEN: usize = 24;
const HEADER_LEN: u8 = 4;

/// What the tables say of a machine.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// Serial number: the slot's name.
    pub name: &'a str,
    /// System UUID.
    pub uuid: Uuid,
    /// Type 11 strings, in order.
    pub oem_strings: &'a [OemString],
}

/// Why the tables were not written.
#[derive(Debug, thiserror::Error)]
pub enum SmbiosError {
    /// More than the reserved range holds.
    #[error(
        "SMBIOS tables take {size} bytes, at most {room} fit: shorten the OEM strings, or send \
         credentials by vsock"
    )]
    TooLarge {
        /// Bytes needed.
        size: usize,
        /// Bytes there are.
        room: usize,
    },
    /// More strings than one structure counts.
    #[error("SMBIOS holds at most 255 OEM strings, {count} are configured")]
    TooManyStrings {
        /// Strings configured.
        count: usize,
    },
    /// A string with a NUL in it, or an empty one.
    #[error("SMBIOS OEM string {index} is empty or holds a NUL byte")]
    BadString {
        /// Which one, from 0.
        index: usize,
    },
    /// Guest RAM does not reach that far.
    #[error("Failed to write the SMBIOS tables at {:#x}", layout::SMBIOS_START)]
    Write(#[source] GuestMemoryError),
}

/// Writes entry point and tables to [`layout::SMBIOS_START`].
///
/// # Errors
/// When the strings do not fit or guest RAM does not reach that far.
pub fn write(memory: &Memory, identity: Identity<'_>) -> Result<(), SmbiosError> {
    let bytes = encode(identity)?;
    memory
        .write_slice(&bytes, GuestAddress(layout::SMBIOS_START))
        .map_err(SmbiosError::Write)
}

/// Entry point and tables. They may hold secrets, and are erased when dropped.
fn encode(identity: Identity<'_>) -> Result<Zeroizing<Vec<u8>>, SmbiosError> {
    let room = usize::try_from(layout::SMBIOS_END - layout::SMBIOS_START).unwrap_or(0);
    let tables = tables(identity, room)?;
    let size = ENTRY_LEN.saturating_add(tables.len());
    if size > room {
        return Err(SmbiosError::TooLarge { size, room });
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(size));
    bytes.extend(entry_point(u32::try_from(tables.len()).unwrap_or(u32::MAX)));
    bytes.extend_from_slice(&tables);
    Ok(bytes)
}

/// The 64-bit (3.0) entry point, §5.2.2.
fn entry_point(table_len: u32) -> Vec<u8> {
    let mut entry = b"_SM3_\0".to_vec();
    // Length; version 3.2, docrev 0; entry point revision 1; reserved.
    entry.extend([24, 3, 2, 0, 1, 0]);
    entry.extend(table_len.to_le_bytes());
    entry.extend((layout::SMBIOS_START + ENTRY_LEN as u64).to_le_bytes());
    let sum = entry.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    entry[5] = 0u8.wrapping_sub(sum);
    entry
}

fn tables(identity: Identity<'_>, room: usize) -> Result<Zeroizing<Vec<u8>>, SmbiosError> {
    let count = identity.oem_strings.len();
    let string_count = u8::try_from(count).map_err(|_| SmbiosError::TooManyStrings { count })?;
    if let Some(index) = identity
        .oem_strings
        .iter()
        .position(|s| s.as_str().is_empty() || s.as_str().contains('\0'))
    {
        return Err(SmbiosError::BadString { index });
    }
    let strings: Vec<&str> = identity.oem_strings.iter().map(OemString::as_str).collect();
    let text: usize = strings.iter().map(|string| string.len()).sum();
    if text > room {
        return Err(SmbiosError::TooLarge { size: text, room });
    }
    // In one piece: a vector that grows leaves copies of what it held. A kilobyte is more than
    // everything but the strings takes, and each of those ends with a NUL.
    let mut out = Zeroizing::new(Vec::with_capacity(text + count + (1 << 10)));
    structure(
        &mut out,
        0,
        &bios_information(),
        &["slotvmm", env!("CARGO_PKG_VERSION"), "11/21/2026"],
    );
    structure(
        &mut out,
        1,
        &system_information(identity.uuid),
        &["slotvmm", "slotvmm", identity.name],
    );
    if string_count > 0 {
        structure(&mut out, 11, &[string_count], &strings);
    }
    structure(&mut out, 127, &[], &[]);
    Ok(out)
}

/// Appends one structure: header, formatted area, string set. The handle is the type.
fn structure(out: &mut Vec<u8>, kind: u8, body: &[u8], strings: &[&str]) {
    let length = HEADER_LEN + u8::try_from(body.len()).unwrap_or(0);
    out.extend([kind, length, kind, 0]);
    out.extend(body);
    for string in strings {
        out.extend(string.as_bytes());
        out.push(0);
    }
    if strings.is_empty() {
        out.push(0);
    }
    out.push(0);
}

/// Type 0, §7.1: vendor 1, version 2, release date 3; a virtual machine.
fn bios_information() -> Vec<u8> {
    let mut body = vec![1, 2, 0, 0, 3, 0];
    // Characteristics: "not supported" (bit 3); extension byte 2 bit 4: a virtual machine.
    body.extend((1u64 << 3).to_le_bytes());
    body.extend([0, 1 << 4]);
    // System firmware and embedded controller release: none.
    body.extend([0, 0, 0xff, 0xff]);
    body.extend(0u16.to_le_bytes());
    body
}

/// Type 1, §7.2: manufacturer 1, product 2, serial number 3, UUID, woken by the power switch.
fn system_information(uuid: Uuid) -> Vec<u8> {
    let mut body = vec![1, 2, 0, 3];
    body.extend(uuid.to_bytes_le());
    body.extend([6, 0, 0]);
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings<const N: usize>(texts: [&str; N]) -> Vec<OemString> {
        texts.map(|text| OemString::new(text.to_owned())).into()
    }

    fn identity(oem_strings: &[OemString]) -> Identity<'_> {
        Identity {
            name: "slot1",
            uuid: Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
            oem_strings,
        }
    }

    #[test]
    fn entry_point_sums_to_zero_and_spans_the_tables() {
        let bytes = encode(identity(&[])).unwrap();
        let sum = bytes[..ENTRY_LEN]
            .iter()
            .fold(0u8, |s, b| s.wrapping_add(*b));
        assert_eq!(sum, 0);
        let length = u32::from_le_bytes(bytes[12..16].try_into().unwrap());
        assert_eq!(bytes.len(), ENTRY_LEN + length as usize);
        assert_eq!(bytes[bytes.len() - 6..], [127, 4, 127, 0, 0, 0]);
    }

    #[test]
    fn uuid_has_its_first_fields_little_endian() {
        let body = system_information(identity(&[]).uuid);
        assert_eq!(
            body[4..12],
            [0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66]
        );
    }

    #[test]
    fn oem_strings_follow_in_order() {
        let strings = strings(["a=1", "b=2"]);
        let bytes = encode(identity(&strings)).unwrap();
        let expected = b"\x0b\x05\x0b\x00\x02a=1\0b=2\0\0";
        assert!(bytes.windows(expected.len()).any(|w| w == expected));
    }

    #[test]
    fn strings_fill_the_room_without_moving_and_are_not_printed() {
        let long = strings([&"x".repeat(65_300)]);
        let tables = tables(identity(&long), 1 << 16).unwrap();
        assert!(tables.len() <= 65_300 + 1 + (1 << 10), "one allocation");
        assert!(encode(identity(&long)).is_ok());
        assert_eq!(format!("{long:?}"), "[OemString(65300 bytes)]");
    }

    #[test]
    fn strings_that_do_not_fit_are_refused() {
        let long = strings([&"x".repeat(70_000)]);
        assert!(matches!(
            encode(identity(&long)),
            Err(SmbiosError::TooLarge { .. })
        ));
        let many = vec![OemString::new("x".to_owned()); 256];
        assert!(matches!(
            encode(identity(&many)),
            Err(SmbiosError::TooManyStrings { count: 256 })
        ));
        let nul = strings(["a\0b"]);
        assert!(matches!(
            encode(identity(&nul)),
            Err(SmbiosError::BadString { index: 0 })
        ));
    }
}
