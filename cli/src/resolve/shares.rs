//! The directories that a slot shares with its guest.

use std::borrow::Cow;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

use crate::config::{Cache, Dax, FsFile, LoadedSlot, Located, OnBackendExit, Poll, Problem};

/// Positions that the first shares have when they do not say: behind everything else.
const POSITIONS: [u8; 2] = [14, 15];

/// Request queues of a share that says nothing else: one for each vCPU, up to these.
const MOST_DEFAULT_QUEUES: u8 = 4;

/// A shared directory.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Share {
    /// Its name in logs.
    pub(crate) id: String,
    /// Its place on the machine.
    pub(crate) position: u8,
    /// What the guest mounts it by.
    pub(crate) tag: String,
    /// Who serves it.
    #[serde(flatten)]
    pub(crate) backend: Backend,
    /// Request queues.
    pub(crate) queues: u16,
    /// What to do when its backend is gone.
    #[serde(serialize_with = "exit_name")]
    pub(crate) on_backend_exit: OnBackendExit,
}

/// Who serves a share.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(crate) enum Backend {
    /// A process of ours, read-only.
    BuiltIn {
        /// The directory.
        source: PathBuf,
        /// What the guest may keep.
        #[serde(serialize_with = "cache_name")]
        cache: Cache,
        /// Size of the window in which the guest has files mapped, in MiB.
        dax_mib: Option<u64>,
        /// How long the backend looks for the next request.
        #[serde(serialize_with = "poll_name")]
        poll: Poll,
    },
    /// Somebody else's, such as virtiofsd.
    External {
        /// Where it listens.
        socket: PathBuf,
    },
}

fn exit_name<S: Serializer>(exit: &OnBackendExit, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match exit {
        OnBackendExit::Restart => "restart",
        OnBackendExit::Fail => "fail",
    })
}

fn cache_name<S: Serializer>(cache: &Cache, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(cache_word(*cache))
}

fn poll_name<S: Serializer>(poll: &Poll, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&poll_word(*poll))
}

/// How the backend's command line calls it.
pub(crate) fn poll_word(poll: Poll) -> Cow<'static, str> {
    match poll {
        Poll::Auto => "auto".into(),
        Poll::Micros(0) => "off".into(),
        Poll::Micros(micros) => micros.to_string().into(),
    }
}

/// How a configuration and the backend's command line call it.
pub(crate) fn cache_word(cache: Cache) -> &'static str {
    match cache {
        Cache::Always => "always",
        Cache::Auto => "auto",
        Cache::Never => "never",
    }
}

/// Resolves `[[fs]]` on a machine with so many vCPUs.
pub(super) fn resolve(loaded: &LoadedSlot, vcpus: u8, problems: &mut Vec<Problem>) -> Vec<Share> {
    let mut defaults = POSITIONS.into_iter();
    let mut shares = Vec::new();
    for file in &loaded.file.shares {
        let set = file.position.as_ref();
        let position = match set {
            Some(set) => u8::try_from(set.value.0).ok(),
            None => defaults.next(),
        };
        if position.is_none() {
            problems.push(file.at.problem(
                "only the first two shares have a position by default; add a line such as \
                 `position = 7`",
            ));
        }
        let share = position.and_then(|position| share(file, position, vcpus, problems));
        shares.extend(share);
    }
    shares.sort_by_key(|share: &Share| share.position);
    shares
}

fn share(file: &FsFile, position: u8, vcpus: u8, problems: &mut Vec<Problem>) -> Option<Share> {
    let backend = backend(file, problems)?;
    let queues = file.queues.as_ref().map_or_else(
        || u16::from(vcpus.min(MOST_DEFAULT_QUEUES)),
        // The schema admits 1 to 16 only.
        |queues| u16::try_from(queues.value.0).unwrap_or(1),
    );
    Some(Share {
        id: format!("fs{position}"),
        position,
        // One that is missing was reported when the file was read.
        tag: file.tag.as_ref()?.value.0.clone(),
        on_backend_exit: on_exit(file, &backend, problems),
        backend,
        queues,
    })
}

fn backend(file: &FsFile, problems: &mut Vec<Problem>) -> Option<Backend> {
    match (&file.source, &file.socket) {
        (Some(source), None) => {
            if let Some(readonly) = file.readonly.as_ref().filter(|readonly| !readonly.value) {
                problems.push(readonly.problem(
                    "slotvmm serves directories read-only; for a writable share run virtiofsd \
                     and name its socket, `socket = \"/run/virtiofsd.sock\"`, instead of `source`",
                ));
            }
            Some(Backend::BuiltIn {
                source: source.value.0.clone(),
                cache: file
                    .cache
                    .as_ref()
                    .map(|cache| cache.value)
                    .unwrap_or_default(),
                dax_mib: window(file, problems),
                poll: file
                    .poll
                    .as_ref()
                    .map(|poll| poll.value)
                    .unwrap_or_default(),
            })
        }
        (None, Some(socket)) => {
            not_ours(file.cache.as_ref(), problems);
            not_ours(file.poll.as_ref(), problems);
            if let Some(dax) = file.dax.as_ref().filter(|dax| dax.value != Dax::Off) {
                problems.push(dax.problem(
                    "only the built-in backend has files mapped for a guest; remove the key, or \
                     name a `source` instead of `socket`",
                ));
            }
            not_ours(
                file.readonly.as_ref().filter(|readonly| readonly.value),
                problems,
            );
            Some(Backend::External {
                socket: socket.value.0.clone(),
            })
        }
        (Some(_), Some(socket)) => {
            problems.push(socket.problem(
                "`source` is for the built-in backend, `socket` for another one that knows its \
                 directory itself: remove one of them",
            ));
            None
        }
        (None, None) => {
            problems.push(file.at.problem(
                "nothing to share; add a line such as `source = \"/nix/store\"`, or the \
                 `socket` of a virtiofsd",
            ));
            None
        }
    }
}

/// The size of the share's window, in MiB.
fn window(file: &FsFile, problems: &mut Vec<Problem>) -> Option<u64> {
    let dax = file.dax.as_ref()?;
    let Dax::Window(mib) = dax.value else {
        return None;
    };
    if file
        .cache
        .as_ref()
        .is_some_and(|cache| cache.value == Cache::Never)
    {
        problems.push(dax.problem(
            "with `cache = \"never\"` every read asks the host, and a window is of no use; remove \
             one of them",
        ));
    }
    Some(mib)
}

/// Reports a key that an external backend would never hear of.
fn not_ours<T>(set: Option<&Located<T>>, problems: &mut Vec<Problem>) {
    problems.extend(set.map(|set| {
        set.problem(
            "whoever starts the backend behind `socket` decides that; remove the key, and give \
             another backend its own options, as virtiofsd `--readonly` and `--cache`",
        )
    }));
}

fn on_exit(file: &FsFile, backend: &Backend, problems: &mut Vec<Problem>) -> OnBackendExit {
    let set = file.on_backend_exit.as_ref();
    match backend {
        Backend::BuiltIn { .. } => set.map_or(OnBackendExit::Restart, |set| set.value),
        Backend::External { .. } => {
            if let Some(set) = set.filter(|set| set.value == OnBackendExit::Restart) {
                problems.push(set.problem(
                    "an external backend that starts again knows nothing of the files the guest \
                     has in use; only \"fail\" is possible with `socket`",
                ));
            }
            OnBackendExit::Fail
        }
    }
}
