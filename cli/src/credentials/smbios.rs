//! Credentials in the form in which systemd takes them from SMBIOS type 11 strings.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use vmm::config::OemString;
use zeroize::Zeroizing;

use super::CredentialError;
use super::value::{Places, read};
use crate::resolve::Credential;

/// How systemd knows a credential whose value is base64.
const PREFIX: &str = "io.systemd.credential.binary:";

/// Every string of the table: the static ones, then a value each.
pub(super) fn strings(
    fixed: &[String],
    list: &[&Credential],
    places: &Places,
) -> Result<Vec<OemString>, CredentialError> {
    let mut strings: Vec<OemString> = fixed.iter().cloned().map(OemString::new).collect();
    for credential in list {
        let value = places.path(&credential.place).and_then(|path| read(&path));
        let value = value.map_err(|source| CredentialError {
            name: credential.name.clone(),
            source,
        })?;
        strings.push(string(credential.name.as_str(), &value));
    }
    Ok(strings)
}

/// Always in base64, which says every value exactly.
fn string(name: &str, value: &[u8]) -> OemString {
    let head = format!("{PREFIX}{name}=");
    let encoded = base64::encoded_len(value.len(), true).unwrap_or(0);
    // In one piece: a string that grows leaves copies of what it held.
    let room = head.len().saturating_add(encoded);
    let mut text = Zeroizing::new(String::with_capacity(room));
    text.push_str(&head);
    STANDARD.encode_string(value, &mut text);
    OemString::new(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_value_becomes_text() {
        let table: [(&[u8], &str); 3] = [(b"", ""), (b"a\n", "YQo="), (b"\0\xff", "AP8=")];
        for (value, expected) in table {
            let string = string("KEY", value);
            let expected = format!("io.systemd.credential.binary:KEY={expected}");
            assert_eq!(string.as_str(), expected);
        }
    }
}
