//! The file transfer of the examples, over memory.

#[path = "../examples/transfer/mod.rs"]
mod transfer;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;

use homa_stack::Config;
use homa_stack::api::{Client, Handle, Runner, RunnerConfig};
use homa_stack::device::memory;

const PORT: u16 = 4001;

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("homa-transfer-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("in")).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, len: usize) -> (PathBuf, Vec<u8>) {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 131 + (i >> 9) + (i >> 17)) as u8).collect();
        let path = self.0.join(name);
        fs::write(&path, &bytes).unwrap();
        (path, bytes)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn receiving(scratch: &Scratch) -> (Client, Handle, thread::JoinHandle<Vec<PathBuf>>) {
    let (a, b) = memory::pair_with(&Config { timeout_ticks: 20_000, ..Config::default() });
    let (here, there) =
        (Runner::spawn(a, RunnerConfig::default()).unwrap(), Runner::spawn(b, RunnerConfig::default()).unwrap());
    let server = there.bind(PORT).unwrap();
    let directory = scratch.0.join("in");
    let receiver = thread::spawn(move || {
        let mut files = Vec::new();
        let mut receiver = transfer::Receiver::new(&directory);
        receiver.serve(&server, |path| files.push(path.to_owned())).unwrap();
        files
    });
    (here.client().unwrap(), there, receiver)
}

fn to() -> SocketAddr {
    (memory::ADDRS[1], PORT).into()
}

#[test]
fn files_of_all_lengths_arrive_whole() {
    let scratch = Scratch::new("lengths");
    let (client, there, receiver) = receiving(&scratch);
    let lengths = [0, 1, 998_999, 999_000, 999_001, 20_000_000];
    for (i, len) in lengths.into_iter().enumerate() {
        let (path, bytes) = scratch.file(&format!("file{i}"), len);
        assert_eq!(transfer::send(&client, to(), &path, |_| ()).unwrap(), len as u64);
        assert!(fs::read(scratch.0.join("in").join(format!("file{i}"))).unwrap() == bytes, "{len} bytes");
    }
    there.shutdown().unwrap();
    assert_eq!(receiver.join().unwrap().len(), lengths.len());
    let left: Vec<_> = fs::read_dir(scratch.0.join("in")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), lengths.len(), "no parts are left: {left:?}");
}

#[test]
fn a_transfer_that_broke_off_goes_on_and_a_changed_file_is_refused() {
    let scratch = Scratch::new("resume");
    let (client, there, receiver) = receiving(&scratch);
    let (path, bytes) = scratch.file("file", 10_000_000);
    let break_off = |path: &std::path::Path| {
        let mut chunks = 0;
        let sending = std::panic::AssertUnwindSafe(|| {
            transfer::send(&client, to(), path, |_| {
                chunks += 1;
                // Not `panic`, whose hook would print.
                if chunks == 10 {
                    std::panic::resume_unwind(Box::new("broken off"));
                }
            })
        });
        assert!(std::panic::catch_unwind(sending).is_err());
    };
    break_off(&path);
    let rest = transfer::send(&client, to(), &path, |_| ()).unwrap();
    assert!(rest < bytes.len() as u64, "all {rest} bytes were sent again");
    assert!(fs::read(scratch.0.join("in/file")).unwrap() == bytes);

    let (other, bytes) = scratch.file("other", 12_000_000);
    break_off(&other);
    fs::write(&other, [&[99; 10], &bytes[10..]].concat()).unwrap();
    let error = transfer::send(&client, to(), &other, |_| ()).unwrap_err().to_string();
    assert!(error.contains("SHA-256 differs"), "{error}");
    assert!(!scratch.0.join("in/other").exists());

    // A file that is cut off while it is sent is not what its length says.
    let mut cut = false;
    let error = transfer::send(&client, to(), &path, |_| {
        if !std::mem::replace(&mut cut, true) {
            fs::write(&path, &bytes[..5_000_000]).unwrap();
        }
    });
    assert!(error.unwrap_err().to_string().contains("shorter"));
    there.shutdown().unwrap();
    receiver.join().unwrap();
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let scratch = Scratch::new("names");
    let (client, there, receiver) = receiving(&scratch);
    for name in ["", "..", ".", "../x", "/etc/x", "a/b"] {
        let begin = [&[1], &9_u64.to_le_bytes()[..], name.as_bytes()].concat();
        let answer = client.call(to(), begin).unwrap().to_vec();
        assert!(String::from_utf8_lossy(&answer).contains("no plain file name"), "{name}");
    }
    for (request, why) in [(&[9; 30][..], "expected request"), (&[2; 17], "no such transfer"), (&[1], "too short")] {
        let answer = client.call(to(), request).unwrap().to_vec();
        assert!(String::from_utf8_lossy(&answer).contains(why), "{answer:?}");
    }
    there.shutdown().unwrap();
    receiver.join().unwrap();
}

#[test]
fn a_receiver_whose_host_stops_before_an_answer_ends_well() {
    let scratch = Scratch::new("stop");
    let (a, b) = memory::pair_with(&Config::default());
    let (here, there) =
        (Runner::spawn(a, RunnerConfig::default()).unwrap(), Runner::spawn(b, RunnerConfig::default()).unwrap());
    let server = there.bind(PORT).unwrap();
    let directory = scratch.0.join("in");
    let (path, _) = scratch.file("last", 1000);
    // The host stops once the file is whole, before the sender is told so.
    let receiver = thread::spawn(move || {
        let ended = transfer::Receiver::new(&directory).serve(&server, |_| there.shutdown().unwrap());
        ended.map_err(|error| error.to_string())
    });
    let client = here.client().unwrap();
    let sender = thread::spawn(move || transfer::send(&client, to(), &path, |_| ()).is_ok());
    assert_eq!(receiver.join().unwrap(), Ok(()));
    here.shutdown().unwrap();
    assert!(!sender.join().unwrap(), "no answer came");
}
