//! Our ports, and how many calls each has under way. Source: homa-protocol.md 1.1, 6.2.

use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;

use super::event::SendError;

/// First port that is assigned automatically.
pub(crate) const FIRST_CLIENT_PORT: u16 = 32_768;

/// The ports in use.
#[derive(Debug)]
pub(crate) struct Ports {
    /// Calls under way, by port.
    calls: FxHashMap<u16, usize>,
    /// How many of the ports were assigned.
    assigned: usize,
    /// The port to be assigned next, if it is free.
    next: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self::new(FIRST_CLIENT_PORT)
    }
}

impl Ports {
    /// No ports; `first` is the client port to be assigned first, or, if it is none, the port that its low bits make it.
    pub(crate) fn new(first: u16) -> Self {
        Self { calls: FxHashMap::default(), assigned: 0, next: first | FIRST_CLIENT_PORT }
    }

    /// Takes a server port.
    pub(crate) fn bind(&mut self, port: u16) -> Result<(), SendError> {
        if port == 0 || port >= FIRST_CLIENT_PORT {
            return Err(SendError::BadPort(port));
        }
        if self.calls.contains_key(&port) {
            return Err(SendError::PortInUse(port));
        }
        self.calls.insert(port, 0);
        Ok(())
    }

    /// Takes a client port that is free: the one after that taken last, so that late packets to a port that was given
    /// up meet nobody for as long as possible.
    pub(crate) fn assign(&mut self) -> Result<u16, SendError> {
        if self.assigned > usize::from(u16::MAX - FIRST_CLIENT_PORT) {
            return Err(SendError::NoFreePort);
        }
        loop {
            let port = self.next;
            self.next = port.checked_add(1).unwrap_or(FIRST_CLIENT_PORT);
            if let Entry::Vacant(free) = self.calls.entry(port) {
                free.insert(0);
                self.assigned += 1;
                return Ok(port);
            }
        }
    }

    /// Gives a port up; without effect on one that is not in use.
    pub(crate) fn close(&mut self, port: u16) {
        let was_open = self.calls.remove(&port).is_some();
        self.assigned -= usize::from(was_open && port >= FIRST_CLIENT_PORT);
    }

    /// True if requests to `port` are served.
    pub(crate) fn serves(&self, port: u16) -> bool {
        port < FIRST_CLIENT_PORT && self.calls.contains_key(&port)
    }

    /// Calls under way from `port`; nothing if it is not ours.
    pub(crate) fn calls(&self, port: u16) -> Option<usize> {
        self.calls.get(&port).copied()
    }

    /// A call from `port` begins.
    pub(crate) fn begin(&mut self, port: u16) {
        *self.calls.get_mut(&port).expect("the caller has looked whether it is ours") += 1;
    }

    /// A call from `port`, which may have been closed, is over.
    pub(crate) fn end(&mut self, port: u16) {
        if let Some(calls) = self.calls.get_mut(&port) {
            *calls -= 1;
        }
    }

    /// Ports and their calls.
    #[cfg(feature = "check")]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, usize)> + '_ {
        self.calls.iter().map(|(port, calls)| (*port, *calls))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_ports_are_1_to_32767_and_taken_once() {
        let mut ports = Ports::default();
        for (port, bound) in [
            (0, Err(SendError::BadPort(0))),
            (1, Ok(())),
            (1, Err(SendError::PortInUse(1))),
            (32_767, Ok(())),
            (32_768, Err(SendError::BadPort(32_768))),
            (65_535, Err(SendError::BadPort(65_535))),
        ] {
            assert_eq!(ports.bind(port), bound, "port {port}");
        }
        assert!(ports.serves(1) && !ports.serves(2));
        ports.close(1);
        ports.close(1);
        assert!(!ports.serves(1));
        assert_eq!(ports.bind(1), Ok(()), "a port that was given up can be taken again");
    }

    #[test]
    fn all_32768_client_ports_can_be_taken_and_the_next_is_refused() {
        let mut ports = Ports::default();
        ports.bind(1).unwrap();
        let mut taken: Vec<_> = (0..32_768).map(|_| ports.assign().unwrap()).collect();
        assert_eq!(ports.assign(), Err(SendError::NoFreePort));
        taken.sort_unstable();
        assert!(taken.iter().copied().eq(FIRST_CLIENT_PORT..=u16::MAX), "each once");
        ports.close(40_000);
        assert_eq!(ports.assign(), Ok(40_000));
        assert_eq!(ports.assign(), Err(SendError::NoFreePort));
    }

    #[test]
    fn client_ports_begin_where_they_are_told_to() {
        for (first, port) in [(0, 32_768), (32_768, 32_768), (50_000, 50_000), (1_000, 33_768)] {
            assert_eq!(Ports::new(first).assign(), Ok(port));
        }
        let mut last = Ports::new(u16::MAX);
        assert_eq!([last.assign(), last.assign()], [Ok(u16::MAX), Ok(32_768)], "then from the first on");
    }

    #[test]
    fn a_port_that_was_given_up_is_assigned_again_last() {
        let mut ports = Ports::default();
        let first = ports.assign().unwrap();
        ports.close(first);
        assert_eq!(ports.assign(), Ok(first + 1));
    }
}
