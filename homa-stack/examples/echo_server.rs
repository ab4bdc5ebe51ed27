//! Answers every request with its own bytes: `echo_server [INTERFACE]`.

use homa_stack::driver::{Host, HostConfig};
use homa_stack::{Event, Payload};

const PORT: u16 = 4000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1);
    let mut host = Host::open(HostConfig { interface, ..HostConfig::default() })?;
    host.core().bind(PORT)?;
    println!("echoing at {}:{PORT}", host.addr());
    loop {
        host.turn()?;
        while let Some(event) = host.core().poll_event() {
            if let Event::Request { rpc, msg, .. } = event {
                let bytes = host.core().pieces(&msg).collect::<Vec<_>>().concat();
                host.core().release(msg);
                let now = host.now();
                host.core().reply(now, rpc, Payload::from(bytes))?;
            }
        }
        host.wait(None)?;
    }
}
