//! Runs the fuzz target that the variable `TTHOMA_FUZZ` names; see `README.md`.
#![no_main]

use std::sync::LazyLock;

use tthoma::fuzz::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("TTHOMA_FUZZ").unwrap_or_default();
    let found = TARGETS.iter().find(|(target, _)| *target == name);
    let names = TARGETS.map(|(target, _)| target).join(", ");
    found.unwrap_or_else(|| panic!("TTHOMA_FUZZ: expected one of {names}, found `{name}`")).1
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| TARGET(bytes));
