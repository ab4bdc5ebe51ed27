//! Life without privileges, once the sockets are open.

use super::sys;

/// Gives up, for good, all capabilities of the calling thread and of those that it starts from now on, and keeps the
/// programs that they start from gaining any: permitted, effective, inheritable, ambient and bounding set are emptied,
/// `no_new_privs` is set, and root is no longer privileged for being root.
///
/// A [`Host`](super::Host) needs capabilities only to be opened. Later it sends and receives, asks the kernel for routes
/// and neighbours, follows changes of the network and writes traces without them; files are then opened with the rights
/// of the user alone, which for root does not mean all files. Threads that were started before keep what they have.
///
/// ```
/// # std::thread::spawn(|| {
/// homa_stack::driver::drop_privileges()?;
/// let status = std::fs::read_to_string("/proc/thread-self/status")?;
/// assert!(status.contains("CapPrm:\t0000000000000000"));
/// # std::io::Result::Ok(()) }).join().unwrap().unwrap();
/// ```
///
/// # Errors
///
/// Those of the system; from Linux 4.3 on there are none.
pub fn drop_privileges() -> std::io::Result<()> {
    sys::drop_all_privileges()
}
