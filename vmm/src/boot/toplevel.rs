//! NixOS toplevels: directories with `kernel`, `initrd`, `init` and `kernel-params`, and where in
//! an image they are.

use super::bootstrap::{Found, Member};
use super::error::OpenError;
use super::source::{Node, Resolved, STORE, View, is_store_name};
use super::{bootspec, params};

/// Largest parameter file read, in bytes.
pub(super) const MAX_PARAMS: u64 = 64 << 10;
/// What the name of a toplevel has after its hash.
const SYSTEM: &str = "nixos-system-";
/// Links to the system an image was made to boot, the usual one first.
const PROFILES: [&str; 2] = ["/nix/var/nix/profiles/system", "/run/current-system"];

/// The toplevel chosen in the configuration; it must be one.
pub(super) fn chosen(view: &View<'_>, path: &str) -> Result<Found, OpenError> {
    let missing = |member: String| OpenError::Missing {
        path: view.tree().path().to_owned(),
        member,
        named_by: "the chosen toplevel".to_owned(),
    };
    let directory = directory(view, path)?.ok_or_else(|| missing(path.to_owned()))?;
    match read(view, &directory)? {
        Some(found) => Ok(found),
        None => Err(missing(inside(&directory, "kernel"))),
    }
}

/// The toplevel an image holds: the root itself, the system profile, or the only one in the
/// store. `None` when there is none.
pub(super) fn find(view: &View<'_>) -> Result<Option<Found>, OpenError> {
    if let Some(found) = read(view, "/")? {
        return Ok(Some(found));
    }
    for profile in PROFILES {
        if let Some(directory) = directory(view, profile)?
            && let Some(found) = read(view, &directory)?
        {
            return Ok(Some(found));
        }
    }
    match in_store(view)?.as_slice() {
        [] => Ok(None),
        [directory] => read(view, directory),
        several => Err(OpenError::Ambiguous {
            path: view.tree().path().to_owned(),
            candidates: several.iter().map(|d| view.guest_path(d)).collect(),
        }),
    }
}

/// Toplevels in the image's store, by name.
fn in_store(view: &View<'_>) -> Result<Vec<String>, OpenError> {
    let store = if view.root_is_store() { "/" } else { STORE };
    let mut systems = Vec::new();
    for name in view.tree().names(store) {
        let is_system = is_store_name(&name)
            && name
                .split_once('-')
                .is_some_and(|(_, rest)| rest.starts_with(SYSTEM));
        if !is_system {
            continue;
        }
        // Paths derived from a toplevel share its name; only a real one has a kernel.
        if let Some(directory) = directory(view, &inside(store, &name))?
            && (view.file(&inside(&directory, "kernel"))?.is_some()
                || view.file(&inside(&directory, bootspec::FILE))?.is_some())
        {
            systems.push(directory);
        }
    }
    Ok(systems)
}

/// Reads the toplevel at `directory`, a path without symlinks; `None` when it is none.
fn read(view: &View<'_>, directory: &str) -> Result<Option<Found>, OpenError> {
    if let Some(found) = bootspec::find(view, &inside(directory, bootspec::FILE))? {
        return Ok(Some(found));
    }
    // A dangling `kernel` is a broken toplevel, not another kind of image.
    let has = |name: &str| view.tree().node(&inside(directory, name)).is_some();
    if !has("kernel") || !has("kernel-params") {
        return Ok(None);
    }
    let params_path = inside(directory, "kernel-params");
    let initrd = match has("initrd") {
        true => Some(needed(view, &inside(directory, "initrd"), directory)?),
        false => None,
    };
    let guest_directory = view.guest_path(directory);
    Ok(Some(Found {
        kernel: needed(view, &inside(directory, "kernel"), directory)?,
        initrd,
        params: read_params(view, &params_path)?.unwrap_or_default(),
        init: Some(inside(&guest_directory, "init")),
        found_by: format!("NixOS toplevel {guest_directory}"),
    }))
}

/// Reads a file of kernel parameters; `None` when there is none.
pub(super) fn read_params(view: &View<'_>, path: &str) -> Result<Option<String>, OpenError> {
    let Some(bytes) = view.read(path, MAX_PARAMS)? else {
        return Ok(None);
    };
    let text = String::from_utf8(bytes).map_err(|error| OpenError::Params {
        path: view.tree().path().to_owned(),
        member: path.to_owned(),
        found: "something else than UTF-8".to_owned(),
        position: error.utf8_error().valid_up_to(),
    })?;
    let line = params::one_line(&text);
    check_params(view, path, &line)?;
    Ok(Some(line))
}

/// Checks parameters that came from `member`.
pub(super) fn check_params(view: &View<'_>, member: &str, text: &str) -> Result<(), OpenError> {
    params::check(text).map_err(|bad| OpenError::Params {
        path: view.tree().path().to_owned(),
        member: member.to_owned(),
        found: format!("{:?}", bad.character),
        position: bad.position,
    })
}

/// A file that `named_by` needs.
pub(super) fn needed(view: &View<'_>, path: &str, named_by: &str) -> Result<Member, OpenError> {
    match view.file(path)? {
        Some((path, len)) => Ok(Member { path, len }),
        None => Err(OpenError::Missing {
            path: view.tree().path().to_owned(),
            member: path.to_owned(),
            named_by: named_by.to_owned(),
        }),
    }
}

fn directory(view: &View<'_>, path: &str) -> Result<Option<String>, OpenError> {
    Ok(match view.resolve(path)? {
        Some(Resolved {
            path,
            node: Node::Directory,
        }) => Some(path),
        _ => None,
    })
}

/// The path of `name` in `directory`.
pub(super) fn inside(directory: &str, name: &str) -> String {
    format!("{}/{name}", directory.trim_end_matches('/'))
}
