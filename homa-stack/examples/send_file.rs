//! Sends files to a `receive_file`: `send_file SERVER_ADDRESS FILE...`. What broke off goes on if it is sent again.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use homa_stack::api::{Runner, RunnerConfig};
use homa_stack::driver::{Host, HostConfig};

mod transfer;

const PORT: u16 = 4001;

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut args = std::env::args_os().skip(1);
    let server = args.next().ok_or("expected the server's address, then files")?;
    let server: IpAddr = server.to_string_lossy().parse()?;
    let mut host = Host::open(HostConfig::default())?;
    host.resolve(server, Duration::from_secs(1))?;
    let homa = Runner::spawn(host, RunnerConfig::default())?;
    let client = homa.client()?;
    for path in args.map(PathBuf::from) {
        let start = Instant::now();
        let bytes = transfer::send(&client, SocketAddr::new(server, PORT), &path, |_| ())?;
        let seconds = start.elapsed().as_secs_f64();
        println!("{}: {bytes} bytes, {:.2} Gbps", path.display(), bytes as f64 * 8e-9 / seconds);
    }
    Ok(homa.shutdown()?)
}
