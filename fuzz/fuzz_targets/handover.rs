#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| jumpgate_fuzz::handover::run(bytes));
