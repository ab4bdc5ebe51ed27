//! Answers every request with its own bytes: `echo_server [INTERFACE]`,
//! by the device that the environment's `HOMA_DEVICE` names: `af-packet` or `af-xdp`.

use homa_stack::driver::{DeviceKind, Host, HostConfig};
use homa_stack::{Event, Payload};

const PORT: u16 = 4000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1);
    let device = std::env::var("HOMA_DEVICE").map_or(Ok(DeviceKind::default()), |word| word.parse())?;
    let mut host = Host::open(HostConfig { interface, device, ..HostConfig::default() })?;
    host.core().bind(PORT)?;
    println!("echoing at {}:{PORT} by {}", host.addr(), host.device());
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
