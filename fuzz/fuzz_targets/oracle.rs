#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sgwall_fuzz_targets::oracle(data));
