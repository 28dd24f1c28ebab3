#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| spot_watchdog_fuzz::own_probes::look(data));
