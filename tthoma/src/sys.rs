//! The program's allocator: the system's, which asks for huge pages where they pay.
//!
//! Most memory is in few large tables that are filled once. With pages of 4 KB that is a page fault a hundred events, a fifth of the
//! time from a warm page cache. Many systems give huge pages only to those that ask (`madvise` in
//! `/sys/kernel/mm/transparent_hugepage/enabled`).
#![allow(unsafe_code, reason = "an allocator is `unsafe` to implement, and advice on memory to give")]

use std::alloc::{GlobalAlloc, Layout, System};

use rustix::mm::{Advice, madvise};

/// See [the module](self).
pub(crate) struct HugePages;

/// Allocations of at least this many bytes get huge pages; no less, as a page is used by one of them alone.
const LARGE: usize = 4 << 20;
/// Bytes of an ordinary page, or a multiple of that.
const PAGE: usize = 64 << 10;

// SAFETY: everything is what the system's allocator does; advice changes no contents.
unsafe impl GlobalAlloc for HugePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that `System` asks for.
        advised(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        advised(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        advised(unsafe { System.realloc(memory, layout, size) }, size)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// The same memory, after advice on the whole pages in it if it is large.
#[inline]
fn advised(memory: *mut u8, size: usize) -> *mut u8 {
    if size >= LARGE && !memory.is_null() {
        let skip = memory.align_offset(PAGE);
        let length = (size.saturating_sub(skip)) / PAGE * PAGE;
        // Without huge pages it is as it was.
        // SAFETY: the range lies within an allocation, on borders of pages; the advice changes no contents.
        let _ = unsafe { madvise(memory.wrapping_add(skip).cast(), length, Advice::LinuxHugepage) };
    }
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_tables_keep_their_contents_as_they_grow_and_shrink() {
        let mut table: Vec<u64> = Vec::new();
        for i in 0..3_000_000 {
            table.push(i);
        }
        table.truncate(2_000_000);
        table.shrink_to_fit();
        assert!(table.iter().copied().eq(0..2_000_000));
        assert!(vec![0u64; 2_000_000].iter().all(|zero| *zero == 0));
    }

    #[test]
    fn what_can_t_be_had_is_null() {
        // SAFETY: a layout of a size above 0; nothing is read or written.
        let memory = unsafe { HugePages.alloc(Layout::from_size_align(1 << 62, 8).unwrap()) };
        assert!(memory.is_null());
    }
}
