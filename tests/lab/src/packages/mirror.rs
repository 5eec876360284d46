//! Which mirror the machine itself uses, out of its apt sources (one-line and deb822 style).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Names a Debian mirror's URI, for machines whose sources name none.
const MIRROR_VARIABLE: &str = "SLOTVMM_LAB_MIRROR";

/// Suites by which a source is known to be a Debian archive.
const DEBIAN_SUITES: [&str; 9] = [
    "bookworm",
    "trixie",
    "forky",
    "sid",
    "stable",
    "oldstable",
    "testing",
    "unstable",
    "bullseye",
];

/// A Debian archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Its URI, as apt writes it.
    pub uri: String,
    /// The `signed-by` option of the machine's source, if it has one.
    pub signed_by: Option<String>,
}

impl Mirror {
    /// Finds the mirror: `$SLOTVMM_LAB_MIRROR`, else the first Debian archive in the machine's apt
    /// sources.
    ///
    /// # Errors
    /// When there is none.
    pub fn detect() -> Result<Self> {
        if let Ok(uri) = std::env::var(MIRROR_VARIABLE) {
            return Ok(Self {
                uri,
                signed_by: None,
            });
        }
        source_files(Path::new("/etc/apt"))
            .iter()
            .filter_map(|path| Some((path, fs::read_to_string(path).ok()?)))
            .find_map(|(path, text)| match path.extension() {
                Some(extension) if extension == "sources" => from_deb822(&text),
                _ => from_one_line(&text),
            })
            .with_context(|| {
                format!(
                    "No Debian mirror in /etc/apt: set {MIRROR_VARIABLE} to the URI of one \
                     (the directory that holds dists/)"
                )
            })
    }
}

/// The machine's source files: the main list first, then the parts by name.
fn source_files(etc_apt: &Path) -> Vec<PathBuf> {
    let mut parts: Vec<PathBuf> = fs::read_dir(etc_apt.join("sources.list.d"))
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|end| end == "list" || end == "sources")
        })
        .collect();
    parts.sort();
    parts.insert(0, etc_apt.join("sources.list"));
    parts
}

/// The first Debian archive in a `.list` file.
fn from_one_line(text: &str) -> Option<Mirror> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(inner) => inner.split_once(']')?,
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        let uri = words.next()?;
        let suite = words.next()?;
        is_debian(&[suite], &words.collect::<Vec<_>>()).then(|| Mirror {
            uri: uri.to_owned(),
            signed_by: options
                .split_whitespace()
                .find_map(|option| option.strip_prefix("signed-by="))
                .map(str::to_owned),
        })
    })
}

/// The first Debian archive in a `.sources` file: stanzas of `Key: value` lines.
fn from_deb822(text: &str) -> Option<Mirror> {
    text.split("\n\n").find_map(|stanza| {
        let field = |key: &str| {
            stanza.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case(key).then(|| value.trim())
            })
        };
        let words = |key: &str| field(key).map_or(Vec::new(), |v| v.split_whitespace().collect());
        let enabled = field("Enabled").is_none_or(|value| value != "no");
        let usable = enabled
            && words("Types").contains(&"deb")
            && is_debian(&words("Suites"), &words("Components"));
        usable
            .then(|| words("URIs").first().map(|uri| (*uri).to_owned()))
            .flatten()
            .map(|uri| {
                // A key written into the file itself would follow on the next lines; apt's own trusted
                // keys serve then.
                let signed_by = field("Signed-By").filter(|key| key.starts_with('/'));
                Mirror {
                    uri,
                    signed_by: signed_by.map(str::to_owned),
                }
            })
    })
}

fn is_debian(suites: &[&str], components: &[&str]) -> bool {
    components.contains(&"main") && suites.iter().any(|suite| DEBIAN_SUITES.contains(suite))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_source_is_found() {
        let text = "# deb http://x/y bookworm main\n\
                    deb http://tools.example/apt tools main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://m.example/debian bookworm main contrib\n";
        let expected = Mirror {
            uri: "http://m.example/debian".into(),
            signed_by: Some("/k.gpg".into()),
        };
        assert_eq!(from_one_line(text), Some(expected));
    }

    #[test]
    fn deb822_source_is_found() {
        let text = "Types: deb\nURIs: http://node.example\nSuites: nodistro\nComponents: main\n\n\
                    Types: deb\n# note\nURIs: http://m.example/debian\nSuites: trixie trixie-updates\n\
                    Components: main\nSigned-By: /k.gpg\n";
        let expected = Mirror {
            uri: "http://m.example/debian".into(),
            signed_by: Some("/k.gpg".into()),
        };
        assert_eq!(from_deb822(text), Some(expected));
    }

    #[test]
    fn disabled_and_security_sources_are_not_mirrors() {
        let disabled = "Types: deb\nEnabled: no\nURIs: http://a\nSuites: sid\nComponents: main\n";
        assert_eq!(from_deb822(disabled), None);
        assert_eq!(
            from_one_line("deb http://s/debian-security bookworm-security main\n"),
            None
        );
    }
}
