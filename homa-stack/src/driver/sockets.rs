//! The sockets of a host, opened by someone who may for someone who may not.

use std::os::fd::OwnedFd;

use super::af_packet::raw_socket_of;
use super::{OpenError, capability, sys};

/// The sockets that an AF_PACKET host needs privileges for, not yet on any interface. They belong to the network namespace
/// in which they were opened.
///
/// A process with CAP_NET_RAW opens them and hands their descriptors ([`Self::into_fds`]), by inheritance or through a
/// Unix socket, to one without, which makes a host of them with [`Host::open_with`](super::Host::open_with).
///
/// ```no_run
/// use homa_stack::driver::{Host, HostConfig, Sockets};
///
/// let opened = Sockets::open()?; // needs CAP_NET_RAW
/// homa_stack::driver::drop_privileges()?;
/// let host = Host::open_with(HostConfig::default(), opened)?; // needs none
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Sockets {
    /// That packets come by.
    pub(super) packets: OwnedFd,
    /// For frames in pieces.
    pub(super) pieces: OwnedFd,
    /// Hold IP protocol 146, of IPv4 and of IPv6, which a kernel may lack.
    pub(super) holders: [Option<OwnedFd>; 2],
}

/// Descriptors that are not those of [`Sockets::into_fds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} descriptors are not the sockets of a host: expected the 3 or 4 of `Sockets::into_fds`, in their order")]
pub struct WrongDescriptors(pub usize);

impl Sockets {
    /// Opens the sockets; needs CAP_NET_RAW.
    ///
    /// # Errors
    ///
    /// If that is missing, or the system has no more descriptors.
    pub fn open() -> Result<Self, OpenError> {
        let v6 = match raw_socket_of(libc::AF_INET6) {
            Err(OpenError::System { source, .. }) if source.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
            result => Some(result?),
        };
        let holders = [Some(raw_socket_of(libc::AF_INET)?), v6];
        Ok(Self { packets: Self::raw()?, pieces: Self::raw()?, holders })
    }

    /// A packet socket that receives nothing yet.
    pub(super) fn raw() -> Result<OwnedFd, OpenError> {
        sys::socket(libc::AF_PACKET, libc::SOCK_RAW, 0).map_err(capability("an AF_PACKET socket", "CAP_NET_RAW"))
    }

    /// Their descriptors: three, or four where the kernel has IPv6.
    pub fn into_fds(self) -> Vec<OwnedFd> {
        [self.packets, self.pieces].into_iter().chain(self.holders.into_iter().flatten()).collect()
    }

    /// The sockets with descriptors `fds`, which are those of [`Self::into_fds`] in their order.
    ///
    /// # Errors
    ///
    /// If their number is wrong. What they are shows when the host is opened.
    pub fn from_fds(fds: Vec<OwnedFd>) -> Result<Self, WrongDescriptors> {
        let count = fds.len();
        let mut fds = fds.into_iter();
        match (fds.next(), fds.next(), fds.next(), fds.next(), fds.next()) {
            (Some(packets), Some(pieces), Some(v4), v6, None) => Ok(Self { packets, pieces, holders: [Some(v4), v6] }),
            _ => Err(WrongDescriptors(count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_of_another_number_are_no_sockets_of_a_host() {
        for count in [0, 2, 5] {
            let fds: Vec<_> = (0..count).map(|_| std::fs::File::open("/dev/null").unwrap().into()).collect();
            let error = Sockets::from_fds(fds).unwrap_err();
            assert_eq!(error, WrongDescriptors(count));
        }
        let fds: Vec<OwnedFd> = (0..4).map(|_| std::fs::File::open("/dev/null").unwrap().into()).collect();
        assert_eq!(Sockets::from_fds(fds).unwrap().into_fds().len(), 4);
    }
}
