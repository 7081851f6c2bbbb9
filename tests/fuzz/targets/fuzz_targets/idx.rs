#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| thumbnet_fuzz::idx(bytes));
