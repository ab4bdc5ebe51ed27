//! Measures round trips to an `echo_server`: `echo_client SERVER_ADDRESS [LENGTH [COUNT]]`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use homa_stack::driver::{Host, HostConfig};
use homa_stack::{Event, Payload};

const PORT: u16 = 4000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let server: IpAddr = args.next().ok_or("expected the server's address")?.parse()?;
    let length = args.next().map_or(Ok(100), |n| n.parse::<usize>())?;
    let count = args.next().map_or(Ok(10_000), |n| n.parse::<usize>())?;

    let mut host = Host::open(HostConfig::default())?;
    host.resolve(server, Duration::from_secs(1))?;
    let port = host.core().client_port()?;
    let message = vec![7; length];
    let mut rtts = Vec::with_capacity(count);
    while rtts.len() < count {
        let start = host.now();
        host.core().call(start, port, SocketAddr::new(server, PORT), Payload::from(message.clone()), 0)?;
        loop {
            host.turn()?;
            match host.core().poll_event() {
                Some(Event::Response { msg, .. }) => {
                    rtts.push(host.now().since(start));
                    host.core().release(msg);
                    break;
                }
                Some(Event::Failed { peer, error, .. }) => return Err(format!("{peer}: {error}").into()),
                Some(Event::Request { .. } | Event::Room(_)) => unreachable!("no port is bound, no call refused"),
                None => host.wait(None)?,
            }
        }
    }
    rtts.sort_unstable();
    let at = |q: usize| rtts[count * q / 1000].as_micros_f64();
    println!(
        "{count} round trips of {length} bytes: P50 {:.2} us, P99 {:.2} us, P99.9 {:.2} us",
        at(500),
        at(990),
        at(999)
    );
    if let Some(path) = std::env::var_os("HOMA_TRACE") {
        host.write_trace(&mut std::fs::File::create(path)?)?;
    }
    Ok(())
}
