//! Sockets in the kernel's place: messages go from one to the other through memory, with the pages, ids and errors that
//! homa-protocol.md 6.2 has; and the threads of ports over them.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};

use super::Socket;
use super::abi::{BPAGE, MAX_BPAGES, RecvArgs, SendArgs};
use crate::message::HEADER_LEN;

/// All sockets of a test.
#[derive(Default)]
pub(super) struct Network {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    sockets: BTreeMap<SocketAddr, Ends>,
    next_id: u64,
    /// Clients and cookies of requests without a response.
    open: BTreeMap<u64, (SocketAddr, u64)>,
    /// Requests that will fail, so many, with this error.
    fail: (u32, i32),
}

struct Ends {
    ready: VecDeque<Message>,
    /// Pages in use by messages that were received.
    taken: Vec<bool>,
    heads: BTreeMap<u32, [u8; HEADER_LEN]>,
    down: bool,
}

struct Message {
    id: u64,
    cookie: u64,
    from: SocketAddr,
    bytes: Result<Vec<u8>, i32>,
}

/// One socket.
pub(super) struct FakeSocket {
    network: Arc<Network>,
    address: SocketAddr,
}

impl Network {
    /// A socket with `pages` pages.
    pub(super) fn socket(self: &Arc<Self>, address: &str, pages: usize) -> FakeSocket {
        let address: SocketAddr = address.parse().unwrap();
        let ends = Ends { ready: VecDeque::new(), taken: vec![false; pages], heads: BTreeMap::new(), down: false };
        assert!(self.state.lock().unwrap().sockets.insert(address, ends).is_none());
        FakeSocket { network: Arc::clone(self), address }
    }

    /// The next `count` requests fail with `error`.
    pub(super) fn fail(&self, count: u32, error: i32) {
        self.state.lock().unwrap().fail = (count, error);
    }

    /// Pages that messages have and nobody gave back.
    pub(super) fn taken(&self, address: &str) -> usize {
        let state = self.state.lock().unwrap();
        state.sockets[&address.parse().unwrap()].taken.iter().filter(|taken| **taken).count()
    }
}

fn error<T>(code: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(code))
}

impl Socket for FakeSocket {
    fn send(&self, to: SocketAddr, pieces: [&[u8]; 2], args: SendArgs) -> io::Result<u64> {
        assert_eq!((args.flags, args.reserved), (0, 0));
        let bytes = pieces.concat();
        let mut state = self.network.state.lock().unwrap();
        let (id, cookie) = if args.id == 0 {
            state.next_id += 2;
            let id = state.next_id;
            state.open.insert(id, (self.address, args.cookie));
            (id, 0)
        } else {
            // A response to nothing is silently done with.
            let Some((client, cookie)) = state.open.remove(&args.id) else { return Ok(args.id) };
            assert_eq!(client, to);
            (args.id, cookie)
        };
        let fails = args.id == 0 && state.fail.0 > 0;
        let message = if fails {
            state.fail.0 -= 1;
            let (_, cookie) = state.open.remove(&id).unwrap();
            // The kernel tells no address with a failure.
            (self.address, Message { id, cookie, from: to, bytes: Err(state.fail.1) })
        } else {
            (to, Message { id, cookie, from: self.address, bytes: Ok(bytes) })
        };
        match state.sockets.get_mut(&message.0) {
            Some(ends) if !ends.down => ends.ready.push_back(message.1),
            _ => return error(libc::EHOSTUNREACH),
        }
        self.network.changed.notify_all();
        Ok(id)
    }

    fn receive(&self, args: &mut RecvArgs) -> io::Result<(usize, SocketAddr)> {
        assert_eq!((args.id, args.cookie, args.reserved), (0, 0, 0), "any message");
        let mut state = self.network.state.lock().unwrap();
        let returned = args.bpage_offsets[..args.num_bpages as usize].to_vec();
        args.num_bpages = 0;
        for offset in returned {
            let ends = state.sockets.get_mut(&self.address).unwrap();
            let page = offset as usize / BPAGE;
            assert!(std::mem::replace(&mut ends.taken[page], false), "page {page} was given back twice");
        }
        loop {
            let ends = state.sockets.get_mut(&self.address).unwrap();
            if ends.down {
                return error(libc::ESHUTDOWN);
            }
            if let Some(message) = ends.ready.pop_front() {
                (args.id, args.cookie) = (message.id, message.cookie);
                let bytes = match message.bytes {
                    Ok(bytes) => bytes,
                    Err(code) => return error(code),
                };
                let needed = bytes.len().div_ceil(BPAGE);
                assert!(needed <= MAX_BPAGES);
                let free: Vec<_> = (0..ends.taken.len()).filter(|page| !ends.taken[*page]).take(needed).collect();
                assert_eq!(free.len(), needed, "pages are given back");
                for (at, page) in free.iter().enumerate() {
                    ends.taken[*page] = true;
                    args.bpage_offsets[at] = (page * BPAGE) as u32;
                }
                args.num_bpages = needed as u32;
                let mut head = [0; HEADER_LEN];
                head.copy_from_slice(&bytes[..HEADER_LEN]);
                ends.heads.insert(args.bpage_offsets[0], head);
                return Ok((bytes.len(), message.from));
            }
            state = self.network.changed.wait(state).unwrap();
        }
    }

    fn head(&self, args: &RecvArgs) -> [u8; HEADER_LEN] {
        self.network.state.lock().unwrap().sockets[&self.address].heads[&args.bpage_offsets[0]]
    }

    fn shutdown(&self) {
        self.network.state.lock().unwrap().sockets.get_mut(&self.address).unwrap().down = true;
        self.network.changed.notify_all();
    }
}

mod tests {
    use std::sync::atomic::Ordering;
    use std::time::{Duration, Instant};

    use super::super::{client, server};
    use super::*;
    use crate::arrivals::Arrivals;
    use crate::cli::{ClientOptions, Command, ServerOptions};
    use crate::client::{ClientPort, Target};
    use crate::log::Log;
    use crate::rng::Rng;
    use crate::transport::{ClientHandle, ServerCounters, ServerHandle};
    use crate::workload::{Distribution, Reduction, Workload};

    const SERVER: &str = "10.0.0.1:4000";
    const CLIENT: &str = "10.0.0.2:40000";

    struct Test {
        network: Arc<Network>,
        port: Arc<ClientPort>,
        counters: Arc<ServerCounters>,
        client: Box<dyn ClientHandle>,
        server: Box<dyn ServerHandle>,
    }

    fn options(line: &str) -> ClientOptions {
        match Command::parse_line(line) {
            Some(Ok(Command::Client(options))) => *options,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn server_options(line: &str) -> ServerOptions {
        match Command::parse_line(line) {
            Some(Ok(Command::Server(options))) => *options,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn start(words: &str, workload: Workload, fail: (u32, i32)) -> Test {
        let network = Arc::new(Network::default());
        network.fail(fail.0, fail.1);
        let options = options(&format!("client --protocol homa-kernel {words}"));
        let target = Target { node: 1, index: 0, addr: SERVER.parse().unwrap() };
        let port = Arc::new(ClientPort::new(0, 2, vec![target], options.port_max(), 100_000));
        let counters = Arc::new(ServerCounters::default());
        let log = Log::stdout();
        let serving = server_options("server --port-threads 2 --protocol homa-kernel");
        // A message of each thread needs 16 pages.
        let listen = vec![Arc::new(network.socket(SERVER, 40))];
        let server = server::start(&serving, listen, &[Arc::clone(&counters)], &log).unwrap();
        let lengths = Arc::new(Distribution::new(workload, Reduction::default()));
        let load = Arrivals::new(Arc::clone(&lengths), 1, 0.0, Rng::streams(7, None, 1).remove(0));
        let sockets = vec![Arc::new(network.socket(CLIENT, 40))];
        let ports = [Arc::clone(&port)];
        let client = client::start(&options, &ports, sockets, vec![load], &lengths, &log).unwrap();
        Test { network, port, counters, client, server }
    }

    fn wait(what: &str, done: impl Fn() -> bool) {
        let limit = Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(Instant::now() < limit, "{what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn requests_of_all_lengths_are_answered_and_all_pages_go_back() {
        let mut test = start("--client-max 5 --port-receivers 2", Workload::Named("w5"), (0, 0));
        let counters = Arc::clone(&test.port);
        wait("200 RPCs", || counters.counters.completed.load(Ordering::Acquire) >= 200);
        test.client.stop_senders();
        wait("the last ones", || counters.outstanding() == 0);
        test.client.close();
        test.server.close();
        assert_eq!(counters.counters.errors.load(Ordering::Acquire), 0);
        let (completed, requests) =
            (counters.counters.completed.load(Ordering::Acquire), test.counters.requests.load(Ordering::Acquire));
        assert_eq!(completed, requests);
        let bytes = counters.counters.request_bytes.load(Ordering::Acquire);
        assert_eq!(bytes, test.counters.response_bytes.load(Ordering::Acquire));
        // Those of the messages that came last, which the threads would have given back with the next call.
        assert!(test.network.taken(CLIENT) <= 2 * MAX_BPAGES && test.network.taken(SERVER) <= 2 * MAX_BPAGES);
    }

    #[test]
    fn failed_rpcs_are_counted_and_free_their_slots() {
        let test = start("--client-max 3", Workload::Fixed(1000), (7, libc::ETIMEDOUT));
        let counters = &test.port.counters;
        wait("RPCs after the failed ones", || counters.completed.load(Ordering::Acquire) >= 20);
        assert_eq!((counters.errors.load(Ordering::Acquire), counters.timeouts.load(Ordering::Acquire)), (7, 7));
    }

    #[test]
    fn without_load_each_length_is_measured_as_often_as_asked() {
        let test = start("--unloaded 3", Workload::Named("starve"), (0, 0));
        let lengths: Vec<_> = test.port.samples.take().samples().map(|sample| sample.len).collect();
        let expected: Vec<_> = (1..=10).flat_map(|n| [n * 100_000; 3]).collect();
        assert_eq!(lengths, expected);
    }

    #[test]
    fn ports_that_are_closed_end_their_threads_with_rpcs_outstanding() {
        let mut test = start("--client-max 50", Workload::Fixed(100), (0, 0));
        wait("a first RPC", || test.port.counters.issued.load(Ordering::Acquire) > 0);
        test.server.close();
        test.client.close();
        assert!(test.port.counters.issued.load(Ordering::Acquire) > 0);
    }
}
