//! What secrets a slot's guest gets, under which names.

use std::collections::BTreeMap;
use std::path::PathBuf;

use devices::credentials::Name;
use serde::{Serialize, Serializer};

use super::Vsock;
use crate::config::{CredentialFile, LoadedSlot, Problem, Source, Transport};

/// Before every destination when the file says nothing else.
const DEFAULT_PREFIX: &str = "HOST-";

/// The credentials of a slot, without a single value.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Credentials {
    /// Those with a name.
    pub(crate) list: Vec<Credential>,
    /// SMBIOS strings that are no secrets.
    pub(crate) static_oem_strings: Vec<String>,
}

/// One credential.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Credential {
    /// What the guest calls it.
    #[serde(serialize_with = "text")]
    pub(crate) name: Name,
    /// What the configuration calls it. The guest may ask by this name as well.
    pub(crate) key: String,
    /// Where its value lies.
    #[serde(flatten)]
    pub(crate) place: Place,
    /// How it reaches the guest.
    #[serde(serialize_with = "transport_name")]
    pub(crate) transport: Transport,
    /// Whether it is given out only once per boot.
    pub(crate) once: bool,
}

/// Where a value lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Place {
    /// In `$CREDENTIALS_DIRECTORY`, under this name.
    Credential(#[serde(serialize_with = "text")] Name),
    /// In this file.
    File(PathBuf),
}

fn text<S: Serializer>(name: &Name, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(name)
}

fn transport_name<S: Serializer>(it: &Transport, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(transport_word(*it))
}

impl Credential {
    /// How the configuration calls its transport.
    pub(crate) fn transport_word(&self) -> &'static str {
        transport_word(self.transport)
    }
}

fn transport_word(transport: Transport) -> &'static str {
    match transport {
        Transport::Vsock => "vsock",
        Transport::Smbios => "smbios",
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Credential(name) => write!(f, "$CREDENTIALS_DIRECTORY/{name}"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// Resolves `[credentials]` of a slot with that socket device.
pub(super) fn resolve(
    loaded: &LoadedSlot,
    vsock: Option<&Vsock>,
    problems: &mut Vec<Problem>,
) -> Credentials {
    let file = &loaded.file.credentials;
    let prefix = file.prefix.as_ref();
    let prefix = prefix.map_or(DEFAULT_PREFIX, |set| set.value.0.as_str());
    let mut list = Vec::new();
    for set in &file.map {
        list.extend(credential(set, prefix, problems));
        if vsock.is_none() && transport(set) == Transport::Vsock {
            problems.push(set.at.problem(
                "its transport is \"vsock\", and the slot has no socket device: remove \
                 `vsock.enabled = false`, or set `transport = \"smbios\"`",
            ));
        }
    }
    check_names(&list, &file.map, problems);
    let strings = file.static_oem_strings.iter().flat_map(|set| &set.value);
    Credentials {
        list,
        static_oem_strings: strings.map(|text| text.0.clone()).collect(),
    }
}

fn transport(file: &CredentialFile) -> Transport {
    let set = file.transport.as_ref();
    set.map_or(Transport::Vsock, |set| set.value)
}

fn credential(
    file: &CredentialFile,
    prefix: &str,
    problems: &mut Vec<Problem>,
) -> Option<Credential> {
    let destination = file.destination.as_ref();
    let destination = destination.map_or(file.key.as_str(), |set| set.value.as_str());
    let transport = transport(file);
    let name = match format!("{prefix}{destination}").parse::<Name>() {
        // In the tables, an equals sign ends the name.
        Ok(name) if transport == Transport::Smbios && name.as_str().contains('=') => {
            let message = format!(
                "credential name {name:?} holds an equals sign, which `transport = \"smbios\"` has no way to say"
            );
            problems.push(file.at.problem(message));
            return None;
        }
        Ok(name) => name,
        Err(error) => {
            problems.push(file.at.problem(error.to_string()));
            return None;
        }
    };
    let once = file.once.as_ref().filter(|set| set.value);
    if let Some(set) = once
        && transport == Transport::Smbios
    {
        problems.push(set.problem(
            "what lies in the SMBIOS tables stays there for as long as the guest runs: remove the \
             key, or set `transport = \"vsock\"`",
        ));
    }
    let place = match file.source.as_ref().map(|set| set.value.clone()) {
        None => Place::Credential(name.clone()),
        Some(Source::Directory(name)) => Place::Credential(name),
        Some(Source::File(path)) => Place::File(path),
    };
    Some(Credential {
        name,
        key: file.key.clone(),
        place,
        transport,
        once: once.is_some(),
    })
}

/// A guest that asks by a name or a key gets one answer.
fn check_names(list: &[Credential], files: &[CredentialFile], problems: &mut Vec<Problem>) {
    let mut known: BTreeMap<&str, &str> = BTreeMap::new();
    for credential in list {
        let names = [credential.name.as_str(), credential.key.as_str()];
        let taken = names.into_iter().find_map(|name| {
            let other = known.get(name)?;
            (*other != credential.key).then_some((name, *other))
        });
        let file = files.iter().find(|file| file.key == credential.key);
        if let Some(((name, other), file)) = taken.zip(file) {
            problems.push(file.at.problem(format!(
                "the guest would find two credentials as {name}, this one and `{other}`: change \
                 the destination or the key of one of them"
            )));
        }
        for name in names {
            known.insert(name, &credential.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{HOST, error, resolve};
    use super::*;

    fn list(text: &str) -> Vec<Credential> {
        resolve("slot1", HOST, text).unwrap().credentials.list
    }

    #[test]
    fn defaults_are_the_same_name_on_both_sides() {
        let list = list("[credentials.map.api-key]\n");
        let [one] = list.as_slice() else {
            panic!("expected one credential")
        };
        assert_eq!(one.name.as_str(), "HOST-api-key");
        assert_eq!(one.place.to_string(), "$CREDENTIALS_DIRECTORY/HOST-api-key");
        assert_eq!((one.transport, one.once), (Transport::Vsock, false));
    }

    #[test]
    fn sources_destinations_and_prefix_are_mapped() {
        let list = list(
            "[credentials]\nprefix = \"\"\n\
             [credentials.map.a]\nsource = \"/run/a\"\ndestination = \"A\"\nonce = true\n\
             [credentials.map.b]\nsource = \"b2\"\ntransport = \"smbios\"\n\
             [credentials.map.c]\nsource = \"$CREDENTIALS_DIRECTORY/c2\"\n",
        );
        let said: Vec<String> = list
            .iter()
            .map(|it| {
                let transport = transport_word(it.transport);
                format!("{} {} {transport} {}", it.name, it.place, it.once)
            })
            .collect();
        assert_eq!(
            said,
            [
                "A /run/a vsock true",
                "b $CREDENTIALS_DIRECTORY/b2 smbios false",
                "c $CREDENTIALS_DIRECTORY/c2 vsock false"
            ]
        );
    }

    #[test]
    fn contradictions_are_named() {
        let table = [
            (
                "[credentials.map.\"a/b\"]\n",
                "characters without slash and colon",
            ),
            (
                "[credentials.map.a]\ndestination = \"X\"\n[credentials.map.b]\ndestination = \"X\"\n",
                "two credentials as HOST-X, this one and `a`",
            ),
            (
                "[credentials]\nprefix = \"\"\n[credentials.map.a]\ndestination = \"b\"\n[credentials.map.b]\ndestination = \"c\"\n",
                "two credentials as b, this one and `a`",
            ),
            (
                "[credentials.map.a]\ntransport = \"smbios\"\nonce = true\n",
                "stays there for as long as the guest runs",
            ),
            (
                "[credentials.map.a]\ntransport = \"smbios\"\ndestination = \"x=y\"\n",
                "holds an equals sign",
            ),
            (
                "[vsock]\nenabled = false\n[credentials.map.a]\n",
                "the slot has no socket device",
            ),
        ];
        for (text, expected) in table {
            let error = error(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn static_strings_are_kept_as_they_are() {
        let text = "[credentials]\nstatic_oem_strings = [\"io.systemd.credential:ENV=test\"]\n";
        let slot = resolve("slot1", HOST, text).unwrap();
        assert_eq!(
            slot.credentials.static_oem_strings,
            ["io.systemd.credential:ENV=test"]
        );
    }
}
