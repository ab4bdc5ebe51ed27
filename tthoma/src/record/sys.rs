//! The time-stamp counter, the only thing here that needs `unsafe`.
#![allow(unsafe_code, reason = "the counter is read by an intrinsic function")]

/// The time-stamp counter.
#[cfg(target_arch = "x86_64")]
pub(super) fn counter() -> u64 {
    // SAFETY: every x86-64 processor has this instruction; it only reads a register.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// There is no such counter here.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn counter() -> u64 {
    0
}
