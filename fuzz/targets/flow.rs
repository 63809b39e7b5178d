#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| devkey::untrusted::flow(bytes).unwrap());
