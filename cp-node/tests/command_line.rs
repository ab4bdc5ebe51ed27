//! One-shot commands: exit codes, and the latency probes over kernel sockets.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Output, Stdio};

use common::{free_ports, program};
use serde_json::Value;

fn run(args: &str) -> Output {
    program().args(args.split_whitespace()).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn exit_codes_tell_what_kind_of_failure() {
    let port = free_ports(1);
    for (args, code, word) in [
        ("info w4 1500".to_owned(), 0, ""),
        ("--help".to_owned(), 0, ""),
        (format!("client --protocol tcp --hosts 1=127.0.0.1 --first-port {port}"), 1, "nothing listens"),
        ("frobnicate".to_owned(), 2, "frobnicate"),
        ("client --workload w9".to_owned(), 2, "w9"),
        ("client --protocol tcp --servers 3 --id 3".to_owned(), 2, "--servers"),
        ("server --interface no-such-if0".to_owned(), 3, "no-such-if0"),
        ("server --protocol tcp --tcp-cc no-such-cc".to_owned(), 3, "no-such-cc"),
        ("probe client --transport homa --peer 127.0.0.1 --interface no-such-if0".to_owned(), 3, "no-such-if0"),
    ] {
        let output = run(&args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args}: {errors}");
        assert!(errors.contains(word), "{args}: {errors}");
    }
}

#[test]
fn help_lists_the_exit_codes() {
    let help = String::from_utf8(run("--help").stdout).unwrap();
    for code in ["0 done", "1 the command failed", "2 wrong usage", "3 a privilege"] {
        assert!(help.split_whitespace().collect::<Vec<_>>().join(" ").contains(code), "{help}");
    }
}

#[test]
fn probes_over_kernel_sockets_measure_every_round_trip() {
    for transport in ["udp-spin", "tcp-spin", "tcp-block"] {
        let port = free_ports(1);
        let mut server = program();
        server.args(["probe", "server", "--transport", transport, "--port", &port.to_string()]);
        let mut server = server.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(server.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let client =
            format!("probe client --transport {transport} --peer 127.0.0.1 --port {port} --count 40 --warmup 4");
        let output = run(&client);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["transport"], transport);
        assert_eq!(
            (json["count"].as_u64(), json["length"].as_u64(), json["errors"].as_u64()),
            (Some(40), Some(100), Some(0))
        );
        let ns = |key: &str| json[key].as_u64().unwrap();
        assert!(0 < ns("rtt_min_ns") && ns("rtt_min_ns") <= ns("rtt_p50_ns"), "{json}");
        assert!(ns("rtt_p50_ns") <= ns("rtt_p99_ns") && ns("rtt_p99_ns") <= ns("rtt_p999_ns"), "{json}");
        // The end of its input ends the server.
        drop(server.stdin.take());
        assert!(server.wait().unwrap().success());
        assert_eq!(stdout.read_to_string(&mut line).unwrap(), 0);
    }
}

#[test]
fn a_probe_without_a_server_fails() {
    let output = run(&format!("probe client --transport tcp-block --peer 127.0.0.1 --port {}", free_ports(1)));
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
}
