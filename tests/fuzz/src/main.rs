//! libFuzzer around the target that `BULLA_FUZZ_TARGET` names; `cargo xtask fuzz` builds and runs it.
#![no_main]
#![forbid(unsafe_code)]

use bulla_fuzz::corpus;

libfuzzer_sys::fuzz_target!(
    init: corpus::write_seeds(corpus::chosen()),
    |data: &[u8]| (corpus::chosen().run)(data)
);
