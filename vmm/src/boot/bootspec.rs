//! Bootspec (NixOS RFC 0125): a JSON file that says what a system boots.

use serde::Deserialize;

use super::bootstrap::Found;
use super::error::OpenError;
use super::source::View;
use super::toplevel::{self, check_params};

/// Name of a bootspec in a toplevel or in the root.
pub(super) const FILE: &str = "boot.json";
/// Largest bootspec read, in bytes; real ones have a few KiB, specialisations included.
const MAX_BOOTSPEC: u64 = 1 << 20;

/// The document. Unknown keys are extensions, which the RFC allows.
#[derive(Debug, Deserialize)]
struct Document {
    #[serde(rename = "org.nixos.bootspec.v1")]
    v1: V1,
}

/// The part of version 1 that matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct V1 {
    kernel: String,
    initrd: Option<String>,
    init: String,
    kernel_params: Vec<String>,
}

/// Reads the bootspec at `path`; `None` when there is none.
pub(super) fn find(view: &View<'_>, path: &str) -> Result<Option<Found>, OpenError> {
    let Some(bytes) = view.read(path, MAX_BOOTSPEC)? else {
        return Ok(None);
    };
    let document: Document =
        serde_json::from_slice(&bytes).map_err(|source| OpenError::Bootspec {
            path: view.tree().path().to_owned(),
            member: path.to_owned(),
            source,
        })?;
    let spec = document.v1;
    let params = spec.kernel_params.join(" ");
    check_params(view, path, &params)?;
    check_params(view, path, &spec.init)?;
    let initrd = match &spec.initrd {
        Some(initrd) => Some(toplevel::needed(view, initrd, path)?),
        None => None,
    };
    Ok(Some(Found {
        kernel: toplevel::needed(view, &spec.kernel, path)?,
        initrd,
        params,
        init: Some(spec.init),
        found_by: format!("bootspec {path}"),
    }))
}
