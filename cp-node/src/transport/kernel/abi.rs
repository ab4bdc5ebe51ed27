//! Structures that the kernel's module takes and gives, in the order and size of its header; integers are the machine's.
//! Source: homa-protocol.md 6.2.

use std::mem::offset_of;

/// Number of the protocol, and level of its socket options.
pub(super) const PROTOCOL: i32 = 146;
/// Socket option: where messages are to be put, [`RcvbufArgs`].
pub(super) const SO_HOMA_RCVBUF: i32 = 10;
/// Request of ioctl(2): end an RPC, [`AbortArgs`]. A read and write request of the module's letter with its size.
pub(super) const HOMA_ABORT: u64 = ioctl(0x91, size_of::<AbortArgs>());
/// Request of ioctl(2): freeze the time traces of this machine and of its peers.
#[cfg(test)]
pub(super) const HOMA_FREEZE: u64 = (b'h' as u64) << 8 | 0x92;
/// Bytes of a page of messages.
pub(super) const BPAGE: usize = 1 << 16;
/// Most pages of a message.
pub(super) const MAX_BPAGES: usize = 16;

/// `_IOWR('h', number, size)` of Linux.
const fn ioctl(number: u64, size: usize) -> u64 {
    3 << 30 | (size as u64) << 16 | (b'h' as u64) << 8 | number
}

/// With sendmsg(2), in `msg_control`; `msg_controllen` is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct SendArgs {
    /// 0: a request, which gets an id here; otherwise the response to that RPC.
    pub(super) id: u64,
    /// Comes back with the end of the RPC; of requests.
    pub(super) cookie: u64,
    /// Bit 0: only who asks by id gets the response.
    pub(super) flags: u32,
    /// 0.
    pub(super) reserved: u32,
}
const _: () =
    assert!(size_of::<SendArgs>() == 24 && offset_of!(SendArgs, cookie) == 8 && offset_of!(SendArgs, flags) == 16);

/// With recvmsg(2), in `msg_control`, whose length is that of this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct RecvArgs {
    /// 0: any message, otherwise that of this RPC; then the RPC whose message, or whose failure, it is.
    pub(super) id: u64,
    /// Of the request, when the RPC ends at its client.
    pub(super) cookie: u64,
    /// Pages given back, then pages of the message.
    pub(super) num_bpages: u32,
    /// 0.
    pub(super) reserved: u32,
    /// Where in the region they begin.
    pub(super) bpage_offsets: [u32; MAX_BPAGES],
}
const _: () = assert!(size_of::<RecvArgs>() == 88 && offset_of!(RecvArgs, num_bpages) == 16);
const _: () = assert!(offset_of!(RecvArgs, bpage_offsets) == 24);

/// [`SO_HOMA_RCVBUF`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct RcvbufArgs {
    /// Address of the first page; it begins a page of memory.
    pub(super) start: u64,
    /// Bytes.
    pub(super) length: u64,
}
const _: () = assert!(size_of::<RcvbufArgs>() == 16);

/// [`HOMA_ABORT`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct AbortArgs {
    /// The RPC; 0: all of the socket's.
    pub(super) id: u64,
    /// 0: it is forgotten; otherwise it ends with this error.
    pub(super) error: i32,
    /// 0.
    pub(super) pad: [i32; 5],
}
const _: () = assert!(offset_of!(AbortArgs, error) == 8);

impl RecvArgs {
    /// To wait for the next message: any, and the pages of the last one go back.
    pub(super) fn again(&mut self) {
        (self.id, self.cookie, self.reserved) = (0, 0, 0);
    }
}

/// Region of `pages` pages.
pub(super) const fn region_bytes(pages: u32) -> usize {
    pages as usize * BPAGE
}

#[cfg(test)]
mod tests {
    use super::super::sys::bytes_of;
    use super::*;

    /// Hexadecimal digits, blanks between fields.
    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn control_structures_lie_in_memory_as_the_module_has_them() {
        if cfg!(target_endian = "big") {
            return;
        }
        let send = SendArgs { id: 0x0102_0304_0506_0708, cookie: 0x1112_1314_1516_1718, flags: 1, reserved: 0 };
        assert_eq!(hex(&bytes_of(&send)), ["0807060504030201", "1817161514131211", "01000000", "00000000"].concat());
        let mut offsets = [0; MAX_BPAGES];
        (offsets[0], offsets[1], offsets[15]) = (0x0001_0000, 0xffff_0000, 0x0000_1234);
        let receive = RecvArgs { id: 6, cookie: 7, num_bpages: 2, reserved: 0, bpage_offsets: offsets };
        let expected = ["0600000000000000", "0700000000000000", "02000000", "00000000", "00000100", "0000ffff"]
            .concat()
            + &"00000000".repeat(13)
            + "34120000";
        assert_eq!(hex(&bytes_of(&receive)), expected);
        let region = RcvbufArgs { start: 0x7f00_0001_0000, length: region_bytes(1000) as u64 };
        assert_eq!(hex(&bytes_of(&region)), ["00000100007f0000", "0000e80300000000"].concat());
        let abort = AbortArgs { id: 0x22, error: libc::ETIMEDOUT, pad: [0; 5] };
        assert_eq!(hex(&bytes_of(&abort)), "2200000000000000".to_owned() + "6e000000" + &"00000000".repeat(5));
    }

    #[test]
    fn requests_of_ioctl_have_the_modules_letter_and_numbers() {
        assert_eq!((HOMA_ABORT >> 8 & 0xff, HOMA_ABORT & 0xff), (u64::from(b'h'), 0x91));
        assert_eq!((HOMA_ABORT >> 16 & 0x3fff) as usize, size_of::<AbortArgs>());
        assert_eq!(HOMA_FREEZE & 0xffff, 0x6892);
        assert_eq!((PROTOCOL, SO_HOMA_RCVBUF, BPAGE * MAX_BPAGES), (146, 10, 1_048_576));
    }

    #[test]
    fn waiting_again_gives_the_pages_of_the_last_message_back() {
        let mut args = RecvArgs { id: 4, cookie: 5, num_bpages: 1, ..RecvArgs::default() };
        args.bpage_offsets[0] = 65536;
        args.again();
        assert_eq!((args.id, args.cookie, args.num_bpages, args.bpage_offsets[0]), (0, 0, 1, 65536));
    }
}
