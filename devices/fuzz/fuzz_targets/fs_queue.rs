//! Garbage rings on a share: with a backend that serves them, and with none.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    devices::testing::fuzz::queues("fs", input);
    devices::testing::fuzz::fs_refusals(input);
});
