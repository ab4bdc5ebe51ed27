//! Receives files from any number of `send_file`s: `receive_file DIRECTORY [INTERFACE]`.

use std::path::PathBuf;

use homa_stack::api::{Runner, RunnerConfig};
use homa_stack::driver::{Host, HostConfig};

mod transfer;

const PORT: u16 = 4001;

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut args = std::env::args_os().skip(1);
    let directory = PathBuf::from(args.next().ok_or("expected a directory to receive into")?);
    let interface = args.next().map(|name| name.to_string_lossy().into_owned());
    if !directory.is_dir() {
        return Err(format!("{}: no directory", directory.display()).into());
    }
    let host = Host::open(HostConfig { interface, ..HostConfig::default() })?;
    println!("receiving at {}:{PORT}", host.addr());
    let server = Runner::spawn(host, RunnerConfig::default())?.bind(PORT)?;
    transfer::Receiver::new(&directory).serve(&server, |path| println!("{}", path.display()))
}
