//! Whether nodes reach each other on the data plane, with packets as long as a run's; and how long a core takes to send.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// How long a datagram may take.
const PATIENCE: Duration = Duration::from_millis(500);
/// Datagrams that may be lost, for an address whose neighbour must be found first.
const TRIES: usize = 3;
/// Longest datagram.
const LONGEST: usize = 65_507;

/// Opens a socket that sends datagrams back for as long as this process lives, and returns its port.
///
/// # Errors
/// As bind(2), with the address.
pub(super) fn echo(address: &str) -> io::Result<u16> {
    let socket = bind(address)?;
    let port = socket.local_addr()?.port();
    let serve = move || {
        let mut buffer = vec![0; LONGEST];
        // An error is that of one peer's datagram (its port was closed meanwhile).
        loop {
            match socket.recv_from(&mut buffer) {
                Ok((len, from)) => drop(socket.send_to(&buffer[..len], from)),
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
    };
    thread::Builder::new().name("echo".into()).spawn(serve)?;
    Ok(port)
}

/// Round trips to each address, us. Linux sends datagrams that fit the interface's MTU with "don't fragment", so one as
/// long as that comes back only if the whole path carries it.
///
/// # Errors
/// As bind(2), with the address.
pub(super) fn reach(from: &str, to: &[String], packet_bytes: usize) -> io::Result<Vec<Result<f64, String>>> {
    let to: Vec<_> = to.iter().map(|text| text.parse::<SocketAddr>().map_err(|err| format!("{text}: {err}"))).collect();
    let mut results = Vec::new();
    for address in to {
        let socket = bind(from)?;
        results.push(address.and_then(|address| round_trip(&socket, address, packet_bytes)));
    }
    Ok(results)
}

fn round_trip(socket: &UdpSocket, to: SocketAddr, packet_bytes: usize) -> Result<f64, String> {
    let headers = if to.is_ipv6() { 48 } else { 28 };
    let payload = vec![0x5a; packet_bytes.saturating_sub(headers).clamp(1, LONGEST)];
    let failed = |err: io::Error| format!("{to}: {err}");
    socket.connect(to).and_then(|()| socket.set_read_timeout(Some(PATIENCE))).map_err(failed)?;
    let mut buffer = vec![0; LONGEST];
    let mut why = String::new();
    for _ in 0..TRIES {
        let begun = Instant::now();
        match socket.send(&payload).and_then(|_| socket.recv(&mut buffer)) {
            Ok(_) => return Ok(begun.elapsed().as_secs_f64() * 1e6),
            Err(err) if matches!(err.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                why = format!("{to}: no answer to packets of {packet_bytes} bytes");
            }
            Err(err) => why = format!("{to}: packets of {packet_bytes} bytes: {err}"),
        }
    }
    Err(why)
}

fn bind(address: &str) -> io::Result<UdpSocket> {
    let ip = address.parse::<std::net::IpAddr>().map_err(|err| io::Error::other(format!("{address}: {err}")))?;
    UdpSocket::bind((ip, 0)).map_err(|err| io::Error::new(err.kind(), format!("{address}: {err}")))
}

/// Of each core that may be used: the median time from sending to having a datagram over one's own loopback, us.
pub(super) fn latency_of_cores(count: u32) -> Vec<(usize, Result<f64, String>)> {
    let Ok(usable) = sched_getaffinity(None) else { return Vec::new() };
    let cores = (0..CpuSet::MAX_CPU).filter(|core| usable.is_set(*core));
    // One core after another: two at once would measure each other.
    cores.map(|core| (core, on_core(core, count))).collect()
}

fn on_core(core: usize, count: u32) -> Result<f64, String> {
    let measure = move || -> io::Result<f64> {
        let mut set = CpuSet::new();
        set.set(core);
        sched_setaffinity(None, &set)?;
        let (to, from) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
        from.connect(to.local_addr()?)?;
        to.set_read_timeout(Some(PATIENCE))?;
        let (mut buffer, mut times) = ([0; 128], Vec::new());
        for _ in 0..count.max(1) {
            let begun = Instant::now();
            from.send(&[0; 100])?;
            to.recv(&mut buffer)?;
            times.push(begun.elapsed());
        }
        times.sort_unstable();
        Ok(times[times.len() / 2].as_secs_f64() * 1e6)
    };
    let thread = thread::Builder::new().name("latency".into()).spawn(measure);
    let result = thread.and_then(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("it panicked"))));
    result.map_err(|err| err.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_come_back_and_where_nobody_answers_that_is_told() {
        let port = echo("127.0.0.1").unwrap();
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let to = [format!("127.0.0.1:{port}"), closed, "nonsense".to_owned()];
        let results = reach("127.0.0.1", &to, 9000).unwrap();
        assert!(results[0].as_ref().is_ok_and(|us| *us > 0.0), "{results:?}");
        assert!(results[1].as_ref().unwrap_err().contains("refused"), "{results:?}");
        assert!(results[2].is_err());
        assert!(reach("192.0.2.1", &to, 100).unwrap_err().to_string().contains("192.0.2.1"));
        // Loopback's MTU is 65536, so nothing longer can be sent at all.
        assert!(reach("127.0.0.1", &to[..1], 60_000).unwrap()[0].is_ok());
    }

    #[test]
    fn every_core_is_measured() {
        let cores = latency_of_cores(20);
        assert_eq!(cores.len(), thread::available_parallelism().unwrap().get());
        assert!(cores.iter().all(|(_, median)| median.as_ref().is_ok_and(|us| *us > 0.0)), "{cores:?}");
    }
}
