//! What only `unsafe` code can ask of the processor.
#![expect(unsafe_code, reason = "the instruction has no safe form")]

/// Has the memory of `what` come near the processor, which will look at it soon; without effect on what is computed.
#[inline]
pub(crate) fn prefetch<T>(what: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let lines = size_of::<T>().div_ceil(64);
        for line in 0..lines {
            // SAFETY: the instruction reads no memory that the program can see and can't fault; every line begins within
            // `what`.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(what).cast::<i8>().add(line * 64)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = what;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fetched_stays_as_it_is() {
        let what = [7_u8; 200];
        prefetch(&what);
        assert_eq!(what, [7; 200]);
    }
}
