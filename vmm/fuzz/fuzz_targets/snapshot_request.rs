//! A request for a snapshot, with descriptors, as anybody who may connect to the control socket can
//! send it. A property test of the package `vmm` calls the same function.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _begun = vmm::api::fuzz::snapshot_request(input);
});
