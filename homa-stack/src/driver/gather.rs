//! Frames sent from where their data lie, in pieces: no copy but the kernel's own, and the sums over the data, as well
//! as the cutting of long frames into packets, are left to the kernel and the network card.
//!
//! The kernel cuts only what it takes for TCP, so super-frames are for hijacked packets.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use super::OpenError;
use super::frame::HOMA_AT;
use super::sys::{self, Interface};
use crate::wire::{CHECKSUM_AT, DATA_HEADER_LEN, advance_sequence};

/// Data of fewer bytes are cheaper to copy than to describe.
pub(super) const MOST_COPIED: usize = 2000;

/// Largest IP packet that the kernel cuts.
pub(super) const SUPER_FRAME: usize = 65_535;

/// Bytes that may wait in the socket.
const SEND_BUFFER: i32 = 1 << 22;

/// `struct virtio_net_hdr`, in the byte order of this host.
#[derive(Clone, Copy, Debug, Default)]
struct Offload {
    flags: u8,
    gso_type: u8,
    hdr_len: u16,
    gso_size: u16,
    csum_start: u16,
    csum_offset: u16,
}

const NEEDS_CHECKSUM: u8 = 1;
const GSO_TCP4: u8 = 1;
const GSO_TCP6: u8 = 4;

impl Offload {
    /// What is to be done with a frame of `homa_at` bytes before its Homa header; cut to `segment` data bytes, if not 0.
    fn new(homa_at: usize, segment: usize, ipv4: bool) -> Self {
        let gso_type = match (segment, ipv4) {
            (0, _) => 0,
            (_, true) => GSO_TCP4,
            (_, false) => GSO_TCP6,
        };
        Self {
            flags: NEEDS_CHECKSUM,
            gso_type,
            hdr_len: (homa_at + DATA_HEADER_LEN) as u16,
            gso_size: segment as u16,
            csum_start: homa_at as u16,
            csum_offset: CHECKSUM_AT as u16,
        }
    }

    fn bytes(self) -> [u8; 10] {
        let mut out = [0; 10];
        (out[0], out[1]) = (self.flags, self.gso_type);
        let words = [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset];
        for (to, word) in out[2..].as_chunks_mut::<2>().0.iter_mut().zip(words) {
            *to = word.to_ne_bytes();
        }
        out
    }
}

/// A socket for frames in pieces. It receives nothing.
#[derive(Debug)]
pub(super) struct Gatherer {
    fd: OwnedFd,
    /// True once the kernel has refused to cut a super-frame.
    cuts_itself: bool,
}

impl Gatherer {
    /// The packet socket `fd` on `interface`; nothing if this kernel does not have what it takes.
    pub(super) fn open(fd: OwnedFd, interface: &Interface) -> Result<Option<Self>, OpenError> {
        let system = |what: &'static str| move |source: io::Error| OpenError::System { what, source };
        if sys::set_option(&fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1_i32).is_err() {
            return Ok(None);
        }
        sys::set_option(&fd, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, &1_i32)
            .map_err(system("PACKET_QDISC_BYPASS"))?;
        sys::bind_packet(&fd, interface.index, 0).map_err(system("binding to the interface"))?;
        sys::set_buffer(&fd, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, SEND_BUFFER);
        Ok(Some(Self { fd, cuts_itself: false }))
    }

    /// Sends the packet whose headers are `buffer[begin..]` up to the end of its Homa header, with the data `parts`;
    /// cut into packets of `segment` data bytes, if not 0. `write_ip` makes headers for a shorter one of them.
    pub(super) fn send(
        &mut self,
        frame: Headers<'_>,
        parts: [&[u8]; 2],
        segment: usize,
        write_ip: impl FnMut(&mut [u8], usize),
    ) -> io::Result<()> {
        if segment == 0 || !self.cuts_itself {
            let sent = self.send_one(&frame, parts, segment);
            match sent {
                Err(error) if segment > 0 && cannot_cut(&error) => self.cuts_itself = true,
                result => return result,
            }
        }
        self.send_cut(frame, parts, segment, write_ip)
    }

    fn send_one(&self, frame: &Headers<'_>, parts: [&[u8]; 2], segment: usize) -> io::Result<()> {
        let Headers { buffer, begin, to } = frame;
        let offload = Offload::new(HOMA_AT - begin, segment, to.is_ipv4()).bytes();
        let headers = &buffer[*begin..HOMA_AT + DATA_HEADER_LEN];
        sys::send_parts(&self.fd, [&offload, headers, parts[0], parts[1]])
    }

    /// As the kernel would have cut it.
    fn send_cut(
        &self,
        frame: Headers<'_>,
        parts: [&[u8]; 2],
        segment: usize,
        mut write_ip: impl FnMut(&mut [u8], usize),
    ) -> io::Result<()> {
        let Headers { buffer, begin, to } = frame;
        let total = parts[0].len() + parts[1].len();
        for start in (0..total).step_by(segment) {
            let end = (start + segment).min(total);
            write_ip(buffer, DATA_HEADER_LEN + end - start);
            let split = parts[0].len();
            let cut = [
                &parts[0][start.min(split)..end.min(split)],
                &parts[1][start.max(split) - split..end.max(split) - split],
            ];
            self.send_one(&Headers { buffer, begin, to }, cut, 0)?;
            advance_sequence(&mut buffer[HOMA_AT..], segment as u32);
        }
        Ok(())
    }
}

/// Headers of a frame in a buffer, with Homa's at [`HOMA_AT`].
#[derive(Debug)]
pub(super) struct Headers<'a> {
    pub(super) buffer: &'a mut [u8],
    /// Where the frame begins.
    pub(super) begin: usize,
    pub(super) to: IpAddr,
}

/// True for what the kernel says if it does not know how to cut a frame.
fn cannot_cut(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOBUFS | libc::EOPNOTSUPP | libc::EMSGSIZE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offload_header_is_virtios() {
        let native = Offload::new(34, 0, true).bytes();
        let le = |word: u16| word.to_ne_bytes();
        assert_eq!(native[..2], [1, 0]);
        assert_eq!([native[2..4].to_vec(), native[6..8].to_vec(), native[8..].to_vec()], [le(90), le(34), le(16)]);
        let cut = Offload::new(54, 1404, false).bytes();
        assert_eq!((cut[1], &cut[4..6]), (4, &le(1404)[..]));
    }
}
