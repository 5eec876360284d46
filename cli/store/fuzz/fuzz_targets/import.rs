//! A stream that anybody may have written, imported as a state. A property test of the package
//! `store` calls the same function.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let dir = tempfile::tempdir_in("/dev/shm").expect("no directory in memory");
    store::transfer::fuzz::import(dir.path(), input);
});
