//! A file descriptor that is readable while there is something to take.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::sys;

/// An eventfd whose state follows that of a queue.
#[derive(Debug)]
pub(crate) struct Readiness {
    fd: OwnedFd,
    /// True while it is readable: to set it again needs no system call.
    is_set: AtomicBool,
}

impl Readiness {
    /// The descriptor of the readiness in `cell`, which is made if there is none, and set if `ready`.
    pub(crate) fn get_or_open(cell: &OnceLock<Self>, ready: impl Fn() -> bool) -> io::Result<BorrowedFd<'_>> {
        if cell.get().is_none() {
            let new = Self { fd: sys::eventfd()?, is_set: AtomicBool::new(false) };
            let readiness = cell.get_or_init(|| new);
            // What came before others could see that it is there.
            if ready() {
                readiness.set();
            }
        }
        Ok(cell.get().expect("it was made above").fd.as_fd())
    }

    /// There is something to take.
    pub(crate) fn set(&self) {
        if !self.is_set.swap(true, Ordering::SeqCst) {
            sys::eventfd_signal(&self.fd);
        }
    }

    /// Something was taken: no longer readable, unless there is `more`.
    pub(crate) fn clear_unless(&self, more: impl Fn() -> bool) {
        if !more() && self.is_set.load(Ordering::Relaxed) {
            sys::eventfd_clear(&self.fd);
            self.is_set.store(false, Ordering::SeqCst);
            // What came between the look and now was not signalled.
            std::sync::atomic::fence(Ordering::SeqCst);
            if more() {
                self.set();
            }
        }
    }
}
