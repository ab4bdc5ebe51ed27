//! An AF_XDP socket with memory of its own: packets in and out by way of rings shared with the kernel.
//!
//! The memory (UMEM) is cut into chunks. The first ones receive: they go to the kernel by the fill ring and come back
//! with packets by the receive ring. The others send, in slots of one or more chunks in a row: they go by the transmit
//! ring and come back by the completion ring. A frame longer than a chunk lies in several (XDP_USE_SG).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use super::xsk_ring::{Consumer, Parts, Producer};
use super::{check, set_option, socket};

/// What the kernel keeps free before each packet that it copies into a chunk.
const HEADROOM: usize = 256;
/// A chunk is at most a page.
const LONGEST_CHUNK: usize = 4096;
const SHORTEST_CHUNK: usize = 2048;

/// linux/if_xdp.h, `XDP_PKT_CONTD`: the frame goes on in the next descriptor.
const CONTINUED: u32 = libc::XDP_PKT_CONTD;

// asm-generic/socket.h
const SO_BUSY_POLL: i32 = 46;
const SO_PREFER_BUSY_POLL: i32 = 69;
const SO_BUSY_POLL_BUDGET: i32 = 70;
/// Most packets that the kernel takes from the device in one call; what needs no privilege.
const BUSY_POLL_BUDGET: u32 = 64;

/// How long a queue that is still taken is waited for: the kernel lets go of it some time after the socket before is
/// closed.
const BUSY_WAIT: Duration = Duration::from_secs(1);

/// What a socket is to hold.
#[derive(Clone, Copy, Debug)]
pub(in crate::driver) struct XskShape {
    /// Packets that can wait to be received, a power of two.
    pub(in crate::driver) rx_packets: usize,
    /// Packets that can be on their way out.
    pub(in crate::driver) tx_packets: usize,
    /// Longest frame, bytes.
    pub(in crate::driver) frame_len: usize,
    /// Most frames taken in one go.
    pub(in crate::driver) batch: usize,
    /// False: the device must not access the memory itself, since the program runs apart from the driver.
    pub(in crate::driver) may_zero_copy: bool,
    /// Has the kernel look for packets only when [`Xsk::poll_device`] is called, for at most so many microseconds each
    /// time: where the device takes part (`napi_defer_hard_irqs`, `gro_flush_timeout`) no interrupt then comes between.
    pub(in crate::driver) busy_poll_usecs: Option<u32>,
}

impl XskShape {
    /// Length of a chunk, a power of two.
    fn chunk_len(&self) -> usize {
        (self.frame_len + HEADROOM).next_power_of_two().clamp(SHORTEST_CHUNK, LONGEST_CHUNK)
    }

    /// Chunks that a frame to be sent may need.
    fn slot_chunks(&self) -> usize {
        self.frame_len.div_ceil(self.chunk_len())
    }

    /// Chunks that a received frame may need.
    fn packet_chunks(&self) -> usize {
        self.frame_len.div_ceil(self.chunk_len() - HEADROOM)
    }

    /// True if a frame may need more than one chunk, which the device and the program must both know how to handle.
    pub(in crate::driver) fn needs_frags(&self) -> bool {
        self.packet_chunks() > 1
    }
}

/// Memory shared with the kernel.
#[derive(Debug)]
struct Mapping {
    at: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(fd: Option<(&OwnedFd, libc::off_t)>, len: usize) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let (flags, number, offset) = match fd {
            Some((fd, offset)) => (libc::MAP_SHARED | libc::MAP_POPULATE, fd.as_raw_fd(), offset),
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE, -1, 0),
        };
        // SAFETY: the kernel chooses the address.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, access, flags, number, offset) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let at = NonNull::new(at.cast()).ok_or_else(|| io::Error::other("memory was mapped at address 0"))?;
        Ok(Self { at, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping has this address and length, and what borrowed from it is gone.
        let result = unsafe { libc::munmap(self.at.as_ptr().cast(), self.len) };
        debug_assert!(check(result).is_ok(), "the mapping was ours");
    }
}

/// A received frame that is held: in its chunk, or gathered from several.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// Where it begins, in the memory shared with the kernel or in that for gathered frames.
    at: usize,
    len: usize,
    is_gathered: bool,
    /// Where its first chunk's packet begins.
    first: usize,
}

/// An AF_XDP socket bound to a receive queue.
#[derive(Debug)]
pub(in crate::driver) struct Xsk {
    fill: Producer<u64>,
    completion: Consumer<u64>,
    rx: Consumer<libc::xdp_desc>,
    tx: Producer<libc::xdp_desc>,
    shape: XskShape,
    chunk_len: usize,
    slot_len: usize,
    /// Where the first slot lies.
    slots_at: usize,
    held: Vec<Held>,
    /// Descriptors of the frames held.
    held_chunks: u32,
    /// Frames of several chunks, put together.
    gathered: Vec<u8>,
    /// Slots that are not on their way out; the last one is written to next.
    free: Vec<usize>,
    /// True if the kernel has not taken all that was put into the transmit ring.
    must_kick: bool,
    fd: OwnedFd,
    umem: Mapping,
    /// What the rings lie in.
    _rings: [Mapping; 4],
}

// SAFETY: the mappings belong to this value alone and are not bound to a thread.
unsafe impl Send for Xsk {}

impl Xsk {
    /// A socket for receive queue `queue` of interface `index`. It gets packets once a program redirects them to it.
    ///
    /// # Errors
    ///
    /// With what was tried.
    pub(in crate::driver) fn open(index: i32, queue: u32, shape: XskShape) -> Result<Self, (&'static str, io::Error)> {
        let (chunk_len, slot_chunks) = (shape.chunk_len(), shape.slot_chunks());
        let rx_chunks = (shape.rx_packets * shape.packet_chunks()).next_power_of_two();
        let tx_chunks = (shape.tx_packets * slot_chunks).next_power_of_two();
        let slots_at = rx_chunks * chunk_len;
        let umem = Mapping::new(None, (rx_chunks + tx_chunks) * chunk_len).map_err(|e| ("memory for packets", e))?;
        let fd = socket(libc::AF_XDP, libc::SOCK_RAW, 0).map_err(|e| ("an AF_XDP socket", e))?;
        let registration = libc::xdp_umem_reg {
            addr: umem.at.as_ptr() as u64,
            len: umem.len as u64,
            chunk_size: chunk_len as u32,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        set_option(&fd, libc::SOL_XDP, libc::XDP_UMEM_REG, &registration)
            .map_err(|e| ("memory shared with the kernel (XDP_UMEM_REG, locked: see `ulimit -l`)", e))?;
        let (rx_len, tx_len) = (rx_chunks as u32, tx_chunks as u32);
        let rings = Rings::map(&fd, rx_len, tx_len).map_err(|e| ("rings of an AF_XDP socket", e))?;
        if let Some(usecs) = shape.busy_poll_usecs {
            for (option, value) in
                [(SO_PREFER_BUSY_POLL, 1), (SO_BUSY_POLL, usecs), (SO_BUSY_POLL_BUDGET, BUSY_POLL_BUDGET)]
            {
                set_option(&fd, libc::SOL_SOCKET, option, &value).map_err(|e| ("busy polling", e))?;
            }
        }
        bind(&fd, index, queue, &shape).map_err(|e| ("the interface's queue for an AF_XDP socket", e))?;
        let Rings { mut fill, completion, rx, tx, mappings } = rings;
        let all = (0..rx_chunks).all(|i| fill.push((i * chunk_len) as u64));
        debug_assert!(all, "the fill ring has room for all chunks");
        fill.publish();
        let slot_len = slot_chunks * chunk_len;
        let free = (0..shape.tx_packets).rev().map(|i| slots_at + i * slot_len).collect();
        let gathered = if shape.needs_frags() { vec![0; shape.batch * shape.frame_len] } else { Vec::new() };
        Ok(Self {
            fill,
            completion,
            rx,
            tx,
            shape,
            chunk_len,
            slot_len,
            slots_at,
            held: Vec::with_capacity(shape.batch),
            held_chunks: 0,
            gathered,
            free,
            must_kick: false,
            fd,
            umem,
            _rings: mappings,
        })
    }

    /// Readable when a packet has come.
    pub(in crate::driver) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// True if the device reads and writes the packets' memory itself.
    pub(in crate::driver) fn is_zero_copy(&self) -> bool {
        let mut options = libc::xdp_options { flags: 0 };
        get_option(&self.fd, libc::XDP_OPTIONS, &mut options).is_ok() && options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0
    }

    /// Packets that were for this socket and are lost, since it was opened.
    pub(in crate::driver) fn drops(&self) -> u64 {
        let mut stats = libc::xdp_statistics {
            rx_dropped: 0,
            rx_invalid_descs: 0,
            tx_invalid_descs: 0,
            rx_ring_full: 0,
            rx_fill_ring_empty_descs: 0,
            tx_ring_empty_descs: 0,
        };
        // The kernel counts a packet for which there was no chunk as dropped, too.
        get_option(&self.fd, libc::XDP_STATISTICS, &mut stats).map_or(0, |()| stats.rx_dropped + stats.rx_ring_full)
    }

    /// Takes over up to `most` frames that have come (never more than a batch); returns how many are held, those held
    /// before included.
    #[inline]
    pub(in crate::driver) fn fetch(&mut self, most: usize) -> usize {
        let available = self.rx.available();
        let most = most.min(self.shape.batch);
        while self.held.len() < most && self.held_chunks < available {
            let desc = self.rx.peek(self.held_chunks);
            if desc.options & CONTINUED == 0 {
                let (at, len) = self.within(desc);
                self.held.push(Held { at, len, is_gathered: false, first: at });
                self.held_chunks += 1;
            } else if !self.gather(available) {
                break; // the rest is still to come
            }
        }
        self.held.len()
    }

    /// The `i`th frame held.
    ///
    /// # Panics
    ///
    /// If fewer are held.
    #[inline]
    pub(in crate::driver) fn frame(&self, i: usize) -> &[u8] {
        let Held { at, len, is_gathered, .. } = self.held[i];
        if is_gathered { &self.gathered[at..at + len] } else { self.received(at, len) }
    }

    /// What the XDP program left in the eight bytes before the `i`th frame held, or any bytes if it left nothing.
    ///
    /// # Panics
    ///
    /// If fewer are held.
    #[inline]
    pub(in crate::driver) fn metadata(&self, i: usize) -> u64 {
        let at = self.held[i].first.saturating_sub(8);
        self.received(at, 8).first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
    }

    /// Frames that are held.
    #[inline]
    pub(in crate::driver) fn held(&self) -> usize {
        self.held.len()
    }

    /// True if a packet has come.
    #[inline]
    pub(in crate::driver) fn has_packet(&self) -> bool {
        self.rx.available() > 0
    }

    /// Gives all frames held back to the kernel.
    #[inline]
    pub(in crate::driver) fn release(&mut self) {
        for i in 0..self.held_chunks {
            let room = self.fill.push(self.rx.peek(i).addr);
            debug_assert!(room, "the fill ring has room for all chunks");
        }
        self.fill.publish();
        self.rx.take(self.held_chunks);
        self.held.clear();
        self.held_chunks = 0;
        if self.fill.flags() & libc::XDP_RING_NEED_WAKEUP != 0 {
            self.poll_device();
        }
    }

    /// Has the kernel look for received packets: where the device waits for that, or with busy polling.
    pub(in crate::driver) fn poll_device(&self) {
        let flags = libc::MSG_DONTWAIT;
        // SAFETY: no memory is passed. What goes wrong here shows as packets that don't come.
        unsafe {
            libc::recvfrom(
                self.fd.as_raw_fd(),
                std::ptr::null_mut(),
                0,
                flags,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
    }

    /// Room for a frame, if one can be sent now. Nothing of what was written there before is lost until [`Self::submit`].
    #[inline]
    pub(in crate::driver) fn slot(&mut self) -> Option<&mut [u8]> {
        if self.free.is_empty() {
            self.reap();
            if self.free.is_empty() && self.must_kick {
                self.kick();
                self.reap();
            }
        }
        let at = *self.free.last()?;
        // SAFETY: a free slot lies within the memory and is not the kernel's, and `self` is borrowed for as long.
        Some(unsafe { std::slice::from_raw_parts_mut(self.umem.at.add(at).as_ptr(), self.slot_len) })
    }

    /// Puts `begin..end` of the slot into the transmit ring; the kernel looks there after [`Self::kick`].
    ///
    /// # Panics
    ///
    /// If there is no slot, or it is shorter.
    #[inline]
    pub(in crate::driver) fn submit(&mut self, begin: usize, end: usize) {
        assert!(begin < end && end <= self.slot_len, "{begin}..{end} of {}", self.slot_len);
        let slot = self.free.pop().expect("submit follows slot");
        let mut at = begin;
        while at < end {
            let next = end.min((at / self.chunk_len + 1) * self.chunk_len);
            let options = if next < end { CONTINUED } else { 0 };
            let desc = libc::xdp_desc { addr: (slot + at) as u64, len: (next - at) as u32, options };
            let room = self.tx.push(desc);
            debug_assert!(room, "the transmit ring has room for all slots");
            at = next;
        }
        self.must_kick = true;
    }

    /// True if [`Self::kick`] has something to do.
    #[inline]
    pub(in crate::driver) fn must_kick(&self) -> bool {
        self.must_kick
    }

    /// True if nothing can be sent before the kernel has sent something.
    pub(in crate::driver) fn is_blocked(&self) -> bool {
        self.must_kick || self.free.is_empty()
    }

    /// Has the kernel send what is in the transmit ring; what it does not take now is left for the next call.
    pub(in crate::driver) fn kick(&mut self) {
        self.tx.publish();
        if self.tx.flags() & libc::XDP_RING_NEED_WAKEUP == 0 {
            self.must_kick = false;
            return;
        }
        // A call takes a limited number of packets, 32 by default.
        for _ in 0..4 {
            let (fd, flags) = (self.fd.as_raw_fd(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
            // SAFETY: no memory is passed. Whether it worked is seen in the ring.
            unsafe { libc::sendto(fd, std::ptr::null(), 0, flags, std::ptr::null(), 0) };
            self.must_kick = self.tx.pending() > 0;
            if !self.must_kick {
                return;
            }
        }
    }

    /// Takes back the slots of packets that are sent.
    fn reap(&mut self) {
        let done = self.completion.available();
        for i in 0..done {
            let offset = (self.completion.peek(i) as usize).saturating_sub(self.slots_at);
            // All chunks of a frame come back together: the first one stands for them.
            if offset % self.slot_len < self.chunk_len && self.free.len() < self.shape.tx_packets {
                self.free.push(self.slots_at + offset - offset % self.slot_len);
            }
        }
        self.completion.take(done);
    }

    /// Puts together the frame that begins with the next descriptor; false if it is not all there.
    fn gather(&mut self, available: u32) -> bool {
        let Some(count) = (self.held_chunks..available).position(|i| self.rx.peek(i).options & CONTINUED == 0) else {
            return false;
        };
        let start = self.held.len() * self.shape.frame_len;
        let mut end = start;
        for i in self.held_chunks..=self.held_chunks + count as u32 {
            let (at, len) = self.within(self.rx.peek(i));
            let len = len.min(start + self.shape.frame_len - end);
            // SAFETY: the chunk is ours until `release` and `within` has checked its bounds; the target is other memory.
            let part = unsafe { std::slice::from_raw_parts(self.umem.at.add(at).as_ptr(), len) };
            self.gathered[end..end + len].copy_from_slice(part);
            end += len;
        }
        let (first, _) = self.within(self.rx.peek(self.held_chunks));
        self.held.push(Held { at: start, len: end - start, is_gathered: true, first });
        self.held_chunks += count as u32 + 1;
        true
    }

    /// Where a descriptor's bytes lie: in the part of the memory that receives.
    #[inline]
    fn within(&self, desc: libc::xdp_desc) -> (usize, usize) {
        let at = (desc.addr as usize).min(self.slots_at);
        (at, (desc.len as usize).min(self.slots_at - at))
    }

    #[inline]
    fn received(&self, at: usize, len: usize) -> &[u8] {
        debug_assert!(at + len <= self.slots_at);
        // SAFETY: held frames lie in the part that receives (`within`) and are ours until `release`.
        unsafe { std::slice::from_raw_parts(self.umem.at.add(at).as_ptr(), len) }
    }
}

/// The four rings of a socket.
struct Rings {
    fill: Producer<u64>,
    completion: Consumer<u64>,
    rx: Consumer<libc::xdp_desc>,
    tx: Producer<libc::xdp_desc>,
    mappings: [Mapping; 4],
}

impl Rings {
    fn map(fd: &OwnedFd, rx_len: u32, tx_len: u32) -> io::Result<Self> {
        for (option, len) in [
            (libc::XDP_UMEM_FILL_RING, rx_len),
            (libc::XDP_UMEM_COMPLETION_RING, tx_len),
            (libc::XDP_RX_RING, rx_len),
            (libc::XDP_TX_RING, tx_len),
        ] {
            set_option(fd, libc::SOL_XDP, option, &len)?;
        }
        // SAFETY: all-zero bytes are valid offsets.
        let mut offsets: libc::xdp_mmap_offsets = unsafe { std::mem::zeroed() };
        get_option(fd, libc::XDP_MMAP_OFFSETS, &mut offsets)?;
        let (fill, fill_map) = parts(fd, libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t, &offsets.fr, rx_len)?;
        let (completion, completion_map) =
            parts(fd, libc::XDP_UMEM_PGOFF_COMPLETION_RING as libc::off_t, &offsets.cr, tx_len)?;
        let (rx, rx_map) = parts(fd, libc::XDP_PGOFF_RX_RING, &offsets.rx, rx_len)?;
        let (tx, tx_map) = parts(fd, libc::XDP_PGOFF_TX_RING, &offsets.tx, tx_len)?;
        // SAFETY: the mappings are kept as long as the rings, and the kernel is at the other end of each.
        unsafe {
            Ok(Self {
                fill: Producer::new(fill),
                completion: Consumer::new(completion),
                rx: Consumer::new(rx),
                tx: Producer::new(tx),
                mappings: [fill_map, completion_map, rx_map, tx_map],
            })
        }
    }
}

/// Maps a ring of `len` entries.
fn parts<T>(
    fd: &OwnedFd,
    page: libc::off_t,
    offsets: &libc::xdp_ring_offset,
    len: u32,
) -> io::Result<(Parts<T>, Mapping)> {
    let total = offsets.desc as usize + len as usize * size_of::<T>();
    let mapping = Mapping::new(Some((fd, page)), total)?;
    let inside = |offset: u64| (offset as usize + 4 <= total).then_some(offset as usize);
    let at = |offset: u64| {
        let offset = inside(offset).ok_or_else(|| io::Error::other("a ring's parts lie outside of it"))?;
        // SAFETY: the offset lies within the mapping.
        Ok::<_, io::Error>(unsafe { mapping.at.add(offset) })
    };
    let parts = Parts {
        producer: at(offsets.producer)?.cast(),
        consumer: at(offsets.consumer)?.cast(),
        flags: at(offsets.flags)?.cast(),
        entries: at(offsets.desc)?.cast(),
        len,
    };
    Ok((parts, mapping))
}

/// Binds to a queue, without copies where the device can and may do that.
fn bind(fd: &OwnedFd, index: i32, queue: u32, shape: &XskShape) -> io::Result<()> {
    let mut flags = libc::XDP_USE_NEED_WAKEUP;
    if shape.needs_frags() {
        flags |= libc::XDP_USE_SG;
    }
    if !shape.may_zero_copy {
        flags |= libc::XDP_COPY;
    }
    let addr = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: index.cast_unsigned(),
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: 0,
    };
    let start = Instant::now();
    loop {
        let len = size_of::<libc::sockaddr_xdp>() as libc::socklen_t;
        // SAFETY: `addr` is readable for `len` bytes.
        match check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const addr).cast(), len) }) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && start.elapsed() < BUSY_WAIT => {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result.map(drop),
        }
    }
}

/// Reads a socket option of AF_XDP into `value`, a plain C value.
fn get_option<T: Copy>(fd: &OwnedFd, name: i32, value: &mut T) -> io::Result<()> {
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is writable for `len` bytes, and any bytes are valid for the structures of integers used here.
    check(unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_XDP, name, std::ptr::from_mut(value).cast(), &raw mut len)
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(frame_len: usize) -> XskShape {
        XskShape { rx_packets: 64, tx_packets: 16, frame_len, batch: 16, may_zero_copy: false, busy_poll_usecs: None }
    }

    #[test]
    fn chunks_are_as_short_as_the_frames_allow() {
        // Ethernet, IPv6 and MTU 1500, 3498, 9000; the length of a chunk, chunks to send from and to receive into.
        for (frame_len, chunk_len, slot_chunks, packet_chunks) in [
            (1554, 2048, 1, 1),
            (1792, 2048, 1, 1),
            (1793, 4096, 1, 1),
            (3840, 4096, 1, 1),
            (3841, 4096, 1, 2),
            (9054, 4096, 3, 3),
        ] {
            let shape = shape(frame_len);
            let found = (shape.chunk_len(), shape.slot_chunks(), shape.packet_chunks());
            assert_eq!(found, (chunk_len, slot_chunks, packet_chunks), "frames of {frame_len}");
            assert_eq!(shape.needs_frags(), packet_chunks > 1);
        }
    }

    #[test]
    fn an_error_says_what_was_tried() {
        // No interface has this number: the socket is refused sooner or later, with or without privileges.
        let (what, _) = Xsk::open(i32::MAX, 0, shape(1554)).unwrap_err();
        assert!(what.contains("AF_XDP") || what.contains("XDP_UMEM_REG"), "{what}");
    }
}
