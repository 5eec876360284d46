//! The file system backend's server: a message, a sequence of them, or a saved state.
#![no_main]

use std::sync::LazyLock;

use fs_backend::server::Server;
use fs_backend::testing::fuzz;
use tempfile::TempDir;

static SUBJECT: LazyLock<(TempDir, Server)> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a directory for the share");
    let server = fuzz::subject(directory.path()).expect("a share");
    (directory, server)
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let server = &SUBJECT.1;
    match input.split_first() {
        Some((0, rest)) => fuzz::message(server, rest),
        Some((1, rest)) => fuzz::state(server, rest),
        Some((_, rest)) => fuzz::messages(server, rest),
        None => {}
    }
    // Each input finds the server as the first one did.
    server.reset().expect("the share is there");
});
