//! Measures round trips to an `echo_server`: `echo_client SERVER_ADDRESS [LENGTH [COUNT [OUTSTANDING]]]`,
//! by the device that the environment's `HOMA_DEVICE` names: `af-packet` or `af-xdp`.

use bytes::Bytes;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use homa_stack::driver::{DeviceKind, Host, HostConfig};
use homa_stack::{Event, Instant, Payload};

const PORT: u16 = 4000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let server: IpAddr = args.next().ok_or("expected the server's address")?.parse()?;
    let length = args.next().map_or(Ok(100), |n| n.parse::<usize>())?;
    let count = args.next().map_or(Ok(10_000), |n| n.parse::<usize>())?;

    let outstanding = args.next().map_or(Ok(1), |n| n.parse::<usize>())?;

    let device = std::env::var("HOMA_DEVICE").map_or(Ok(DeviceKind::default()), |word| word.parse())?;
    let mut host = Host::open(HostConfig { device, ..HostConfig::default() })?;
    host.resolve(server, Duration::from_secs(1))?;
    let port = host.core().client_port()?;
    let message = Bytes::from(vec![7; length]);
    let mut rtts = Vec::with_capacity(count);
    // Each call's cookie is the time when it was made.
    let call = |host: &mut Host| {
        let now = host.now();
        host.core().call(now, port, SocketAddr::new(server, PORT), Payload::from(message.clone()), now.as_nanos())
    };
    let start = host.now();
    for _ in 0..outstanding {
        call(&mut host)?;
    }
    while rtts.len() < count {
        host.turn()?;
        let mut is_idle = true;
        while let Some(event) = host.core().poll_event() {
            match event {
                Event::Response { msg, cookie, .. } => {
                    rtts.push(host.now().since(Instant::from_nanos(cookie)));
                    host.core().release(msg);
                    call(&mut host)?;
                }
                Event::Failed { peer, error, .. } => return Err(format!("{peer}: {error}").into()),
                Event::Request { .. } | Event::Room(_) => unreachable!("no port is bound, no call refused"),
            }
            is_idle = false;
        }
        if is_idle {
            host.wait(None)?;
        }
    }
    let rate = rtts.len() as f64 / host.now().since(start).as_micros_f64() * 1e6;
    rtts.sort_unstable();
    let at = |q: usize| rtts[rtts.len() * q / 1000].as_micros_f64();
    println!(
        "{count} round trips of {length} bytes, {outstanding} at a time, {rate:.0} a second: P50 {:.2} us, P99 {:.2} us, P99.9 {:.2} us",
        at(500),
        at(990),
        at(999)
    );
    if let Some(path) = std::env::var_os("HOMA_TRACE") {
        host.write_trace(&mut std::fs::File::create(path)?)?;
    }
    Ok(())
}
