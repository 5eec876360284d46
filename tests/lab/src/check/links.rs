//! Do the documents' links and paths lead anywhere? A path in code style that starts with one of
//! the repository's directories counts as a link to it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Documents at the repository's root, and the directory of more.
const DOCUMENTS: [&str; 3] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"];
const DIRECTORY: &str = "docs";

/// Links in the documents of `repository` that lead nowhere, as `document: target`.
///
/// # Errors
/// When a document cannot be read.
pub fn broken_links(repository: &Path) -> Result<Vec<String>> {
    let mut documents: Vec<PathBuf> = DOCUMENTS.iter().map(|name| repository.join(name)).collect();
    documents.retain(|path| path.exists());
    add_markdown(&repository.join(DIRECTORY), &mut documents)?;
    let mut broken = Vec::new();
    for document in documents {
        let text = fs::read_to_string(&document)
            .with_context(|| format!("Cannot read {}", document.display()))?;
        let shown = document
            .strip_prefix(repository)
            .unwrap_or(&document)
            .display();
        let leads = |target: &&str| leads_somewhere(repository, &document, target);
        broken.extend(
            targets(&text)
                .into_iter()
                .filter(|t| !leads(t))
                .map(|t| format!("{shown}: {t}")),
        );
        let exists = |path: &&str| {
            repository
                .join(path.split(':').next().unwrap_or(path))
                .exists()
        };
        broken.extend(
            paths(repository, &text)
                .into_iter()
                .filter(|p| !exists(p))
                .map(|p| format!("{shown}: {p}")),
        );
    }
    Ok(broken)
}

fn add_markdown(dir: &Path, documents: &mut Vec<PathBuf>) -> Result<()> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            add_markdown(&path, documents)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            documents.push(path);
        }
    }
    documents.sort();
    Ok(())
}

/// Targets of `[text](target)` outside code.
fn targets(text: &str) -> Vec<&str> {
    prose(text)
        .flat_map(|line| line.split("](").skip(1))
        .filter_map(|rest| rest.split([')', ' ']).next())
        .collect()
}

/// Paths in code style, outside code blocks, that start with a directory of the repository.
fn paths<'a>(repository: &Path, text: &'a str) -> Vec<&'a str> {
    prose(text)
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|span| span.contains('/') && !span.contains(|c: char| " <>*{}$…[]()\"".contains(c)))
        .filter(|span| {
            let first = span.split('/').next().unwrap_or_default();
            !first.is_empty() && first != "target" && repository.join(first).is_dir()
        })
        .collect()
}

/// Lines outside code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_block = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_block ^= fence;
        !in_block && !fence
    })
}

fn leads_somewhere(repository: &Path, document: &Path, target: &str) -> bool {
    if target.contains("://") || target.starts_with("mailto:") {
        return true;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let file = match path.strip_prefix('/') {
        _ if path.is_empty() => document.to_owned(),
        Some(absolute) => repository.join(absolute),
        None => document.parent().unwrap_or(repository).join(path),
    };
    if anchor.is_empty() || file.extension().is_none_or(|extension| extension != "md") {
        return file.exists();
    }
    fs::read_to_string(file).is_ok_and(|text| {
        prose(&text)
            .filter_map(|line| line.strip_prefix('#'))
            .any(|line| slug(line) == anchor)
    })
}

/// The anchor that a heading gets.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(readme: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("docs/deep")).unwrap();
        fs::create_dir_all(dir.path().join("vmm/src")).unwrap();
        fs::write(dir.path().join("vmm/src/vm.rs"), "").unwrap();
        fs::write(
            dir.path().join("docs/deep/a.md"),
            "# What it's for\n[up](../../README.md)\n",
        )
        .unwrap();
        fs::write(dir.path().join("README.md"), readme).unwrap();
        dir
    }

    fn broken(readme: &str) -> Vec<String> {
        broken_links(repository(readme).path()).unwrap()
    }

    #[test]
    fn good_links_and_paths_pass() {
        let text = "# Top\n[a](docs/deep/a.md#what-its-for) [b](#top) [c](https://x.example/y)\n\
                    `vmm/src/vm.rs:12` `vmm/<any>/x` `no/such`\n```\n[d](nowhere.md)\n```\n";
        assert_eq!(broken(text), Vec::<String>::new());
    }

    #[test]
    fn dead_links_paths_and_anchors_are_named() {
        let text = "[a](docs/b.md) [b](docs/deep/a.md#other)\n`vmm/src/gone.rs`\n";
        assert_eq!(
            broken(text),
            [
                "README.md: docs/b.md",
                "README.md: docs/deep/a.md#other",
                "README.md: vmm/src/gone.rs"
            ]
        );
    }
}
