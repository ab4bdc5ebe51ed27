//! The receive ring that the kernel shares with us: PACKET_MMAP, TPACKET_V2.
//!
//! V2 because its frames are handed over one by one, at once; V3 hands over blocks and holds each back until it is
//! full or a timer of a millisecond or more runs out.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{check, set_option};

const CACHE_LINE: usize = 64;

/// Lines of a frame that a packet of 100 bytes of data reaches into; the processor itself looks ahead in longer ones.
const PREFETCH_LINES: usize = 5;

/// A received frame.
#[derive(Clone, Copy, Debug)]
pub(in crate::driver) struct Frame<'a> {
    /// The frame from its Ethernet header on, as far as the ring holds it.
    pub(in crate::driver) bytes: &'a [u8],
    /// When the kernel put it into the ring, ns of the real-time clock.
    pub(in crate::driver) stamp: u64,
    /// True if it did not fit: `bytes` are its begin, and a copy of all of it waits in the socket.
    pub(in crate::driver) has_copy: bool,
}

/// A receive ring.
#[derive(Debug)]
pub(in crate::driver) struct RxRing {
    memory: NonNull<u8>,
    frame_len: usize,
    frames: usize,
    /// The frame that the kernel fills next after those we have seen.
    head: usize,
    /// Frames from `head` on that are ours.
    fetched: usize,
}

// SAFETY: the mapping belongs to this value alone and is not bound to a thread.
unsafe impl Send for RxRing {}

impl RxRing {
    /// Gives the packet socket `fd` a ring of `frames` frames (a power of two) that hold `packet_len` bytes each,
    /// Ethernet header included.
    pub(in crate::driver) fn new(fd: &OwnedFd, frames: usize, packet_len: usize) -> io::Result<Self> {
        // The kernel puts its header (less than 96 bytes with what it aligns) before the packet.
        let frame_len = (packet_len + 96).next_power_of_two();
        let frames = frames.next_power_of_two().max(2);
        let block_len = (frame_len * frames).min(1 << 18).max(frame_len.max(4096));
        let len = frame_len * frames;
        let version = libc::tpacket_versions::TPACKET_V2 as libc::c_int;
        set_option(fd, libc::SOL_PACKET, libc::PACKET_VERSION, &version)?;
        let too_large = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let request = libc::tpacket_req {
            tp_block_size: u32::try_from(block_len).map_err(too_large)?,
            tp_block_nr: u32::try_from(len.div_ceil(block_len)).map_err(too_large)?,
            tp_frame_size: u32::try_from(frame_len).map_err(too_large)?,
            tp_frame_nr: u32::try_from(len.next_multiple_of(block_len) / frame_len).map_err(too_large)?,
        };
        set_option(fd, libc::SOL_PACKET, libc::PACKET_RX_RING, &request)?;
        let frames = request.tp_frame_nr as usize;
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
        // SAFETY: the kernel chooses the address; the socket has a ring of exactly this length.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), frame_len * frames, access, flags, fd.as_raw_fd(), 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = NonNull::new(at.cast()).ok_or_else(|| io::Error::other("the ring was mapped at address 0"))?;
        Ok(Self { memory, frame_len, frames, head: 0, fetched: 0 })
    }

    /// Takes over up to `most` frames that have come; returns how many are held, those held before included.
    #[inline]
    pub(in crate::driver) fn fetch(&mut self, most: usize) -> usize {
        let most = most.min(self.frames);
        while self.fetched < most && self.is_ours(self.head + self.fetched) {
            self.prefetch(self.head + self.fetched);
            self.fetched += 1;
        }
        self.fetched
    }

    /// Asks for the first lines of a frame, which the core that sent it has written: coming one after the other as
    /// they are read, they would take some tenths of a microsecond.
    #[inline]
    fn prefetch(&self, index: usize) {
        #[cfg(target_arch = "x86_64")]
        for line in 1..PREFETCH_LINES {
            use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let at = self.at(index).as_ptr().wrapping_add(line * CACHE_LINE);
            // SAFETY: a prefetch reads nothing, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
        }
    }

    /// The `i`th frame held.
    ///
    /// # Panics
    ///
    /// If fewer are held.
    pub(in crate::driver) fn frame(&self, i: usize) -> Frame<'_> {
        assert!(i < self.fetched, "frame {i} of {} fetched", self.fetched);
        let at = self.at(self.head + i);
        // SAFETY: the frame is ours until `release`, so the kernel does not write to it; it begins with this header.
        let header = unsafe { at.cast::<libc::tpacket2_hdr>().read() };
        let start = usize::from(header.tp_mac).min(self.frame_len);
        let len = (header.tp_snaplen as usize).min(self.frame_len - start);
        // SAFETY: both ends lie within the frame, which is ours while `self` is borrowed.
        let bytes = unsafe { std::slice::from_raw_parts(at.as_ptr().add(start), len) };
        let stamp = u64::from(header.tp_sec) * 1_000_000_000 + u64::from(header.tp_nsec);
        Frame { bytes, stamp, has_copy: header.tp_status & libc::TP_STATUS_COPY != 0 }
    }

    /// Holds only the first `n` frames for now.
    pub(in crate::driver) fn hold(&mut self, n: usize) {
        self.fetched = self.fetched.min(n);
    }

    /// About how many frames have come and were not given back: exact if the kernel adds none meanwhile.
    pub(in crate::driver) fn occupied(&self) -> usize {
        // Frames that are ours follow each other: bisection between one that is and one that is not.
        let (mut some, mut beyond) = (0, self.frames);
        if self.is_ours(self.head + self.frames - 1) {
            return self.frames;
        }
        while beyond - some > 1 {
            let middle = usize::midpoint(some, beyond);
            if self.is_ours(self.head + middle - 1) { some = middle } else { beyond = middle }
        }
        some
    }

    /// Gives all frames held back to the kernel.
    #[inline]
    pub(in crate::driver) fn release(&mut self) {
        for i in 0..self.fetched {
            self.status(self.head + i).store(libc::TP_STATUS_KERNEL, Ordering::Release);
        }
        self.head = (self.head + self.fetched) & (self.frames - 1);
        self.fetched = 0;
    }

    fn is_ours(&self, index: usize) -> bool {
        self.status(index).load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    fn at(&self, index: usize) -> NonNull<u8> {
        // SAFETY: the index is reduced to one of the frames of the mapping.
        unsafe { self.memory.add((index & (self.frames - 1)) * self.frame_len) }
    }

    fn status(&self, index: usize) -> &AtomicU32 {
        // SAFETY: each frame begins with its status, a 32-bit word that both sides only access atomically; frames
        // are aligned to their length, a power of two above 64.
        unsafe { self.at(index).cast::<AtomicU32>().as_ref() }
    }
}

impl Drop for RxRing {
    fn drop(&mut self) {
        // SAFETY: the mapping has this address and length, and no frame is borrowed any more.
        let result = unsafe { libc::munmap(self.memory.as_ptr().cast(), self.frame_len * self.frames) };
        debug_assert!(check(result).is_ok(), "the mapping was ours");
    }
}
