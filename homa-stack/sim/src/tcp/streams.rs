//! What the streams of all connections say, shared by the hosts of a run.
//!
//! Segments carry no bytes. What a receiver would read in them, the 12-byte headers of messages, waits here until the
//! segments that hold them have arrived in order. Connections are opened here as well, without a handshake: that has
//! been at warm-up.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use crate::packet::HostId;

/// A message's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// Its length as the application has it, in bytes; on the wire it has at least those of the header.
    pub(crate) len: u32,
    /// The call's.
    pub(crate) cookie: u64,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) peer: HostId,
    /// The peer's number of the connection.
    pub(crate) remote: u32,
    pub(crate) client_port: u16,
    pub(crate) server_port: u16,
    pub(crate) is_client: bool,
    /// The stream that this end writes; the other is its neighbour.
    pub(crate) writes: u32,
}

impl End {
    /// The stream that this end reads.
    pub(crate) fn reads(&self) -> u32 {
        self.writes ^ 1
    }
}

#[derive(Debug, Default)]
struct All {
    /// Ends of each host's connections, by its numbers of them.
    ends: Vec<Vec<End>>,
    messages: Vec<VecDeque<Message>>,
}

/// A handle to all connections of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Streams(Rc<RefCell<All>>);

impl Streams {
    /// Opens a connection; returns the client's number of it.
    pub(crate) fn open(&self, client: HostId, server: HostId, client_port: u16, server_port: u16) -> u32 {
        let all = &mut *self.0.borrow_mut();
        let hosts = client.index().max(server.index()) + 1;
        if all.ends.len() < hosts {
            all.ends.resize_with(hosts, Vec::new);
        }
        let writes = all.messages.len() as u32;
        all.messages.resize_with(all.messages.len() + 2, VecDeque::new);
        let near = all.ends[client.index()].len() as u32;
        // To itself, a host has both ends.
        let far = all.ends[server.index()].len() as u32 + u32::from(client == server);
        let end = End { peer: server, remote: far, client_port, server_port, is_client: true, writes };
        all.ends[client.index()].push(end);
        let end = End { peer: client, remote: near, is_client: false, writes: writes + 1, ..end };
        all.ends[server.index()].push(end);
        near
    }

    /// The `number`th connection of a host.
    pub(crate) fn end(&self, host: HostId, number: u32) -> Option<End> {
        self.0.borrow().ends.get(host.index())?.get(number as usize).copied()
    }

    pub(crate) fn write(&self, stream: u32, message: Message) {
        self.0.borrow_mut().messages[stream as usize].push_back(message);
    }

    /// The next message of a stream.
    pub(crate) fn read(&self, stream: u32) -> Option<Message> {
        self.0.borrow_mut().messages[stream as usize].pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_know_each_other() {
        let streams = Streams::default();
        for (client, server) in [(0, 1), (1, 0), (2, 1), (1, 1)] {
            let (client, server) = (HostId(client), HostId(server));
            let near = streams.open(client, server, 3, 4);
            let end = streams.end(client, near).unwrap();
            let other = streams.end(server, end.remote).unwrap();
            assert_eq!((end.peer, other.peer, other.remote), (server, client, near));
            assert_eq!((end.reads(), other.reads()), (other.writes, end.writes));
            streams.write(end.writes, Message { len: 5, cookie: 6 });
            assert_eq!(streams.read(other.reads()), Some(Message { len: 5, cookie: 6 }));
            assert_eq!(streams.read(end.reads()), None);
        }
        assert_eq!(streams.end(HostId(0), 2), None);
        assert_eq!(streams.end(HostId(9), 0), None);
    }
}
