//! The help of every command of `cperf`, `cp-node` and `scan_metrics`: what it does, each option with its unit and default,
//! an example; nearest names for typing errors; completions and manual pages. `tthoma` has the same test.

#[path = "help/walk.rs"]
mod walk;

use std::fs;
use std::process::Command;

use clap::CommandFactory as _;

fn programs() -> [clap::Command; 3] {
    [cperf::cli::Cli::command(), cp_node::command(), scan_metrics::cli::Cli::command()]
}

#[test]
fn every_command_says_units_defaults_and_an_example() {
    let lacks: Vec<_> = programs().into_iter().flat_map(walk::lacks).collect();
    assert!(lacks.is_empty(), "{}", lacks.join("\n"));
}

#[test]
fn what_is_missing_is_found() {
    use clap::{Arg, value_parser};
    let number = Arg::new("x").long("x").value_parser(value_parser!(u32));
    let bare = clap::Command::new("p").about("it").after_help("Example: p").arg(number.clone().help("it"));
    assert_eq!(walk::lacks(bare), ["p x: a number of what?", "p x: what is it when it is not given?"]);
    let silent = clap::Command::new("p").arg(number.clone().default_value("1"));
    assert_eq!(
        walk::lacks(silent),
        ["p: it does not say what it does", "p: no example", "p x: no help", "p x: a number of what?"]
    );
    let below = clap::Command::new("q").about("it");
    assert_eq!(walk::lacks(clap::Command::new("p").about("it").subcommand(below)), ["p q: no example"]);
    let deaf = clap::Command::new("p")
        .allow_external_subcommands(true)
        .disable_help_subcommand(true)
        .subcommand(clap::Command::new("quite"));
    assert_eq!(walk::without_suggestion(deaf).len(), 1);
}

#[test]
fn names_that_are_nearly_right_bring_up_the_right_ones() {
    let missed: Vec<_> = programs().into_iter().flat_map(walk::without_suggestion).collect();
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// `cperf` is also every node's `cp-node`.
#[test]
fn completions_and_manual_pages_are_made_of_the_definition() {
    let dir = std::env::temp_dir().join(format!("cperf-help-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    for (words, program, commands, option) in [
        (&[][..], "cperf", ["run", "compare", "scan-metrics"], "client-max"),
        (&["cp-node"][..], "cp-node", ["client", "dump_times", "probe-flow"], "port-receivers"),
    ] {
        let run = |more: &[&str]| {
            let output = Command::new(env!("CARGO_BIN_EXE_cperf")).args(words).args(more).output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let text = run(&["completions", shell]);
            assert!(text.contains(option) && text.contains(program), "{shell}: {text}");
        }
        run(&["man", dir.to_str().unwrap()]);
        for command in commands {
            let page = fs::read_to_string(dir.join(format!("{program}-{command}.1"))).unwrap();
            assert!(page.contains(".SH") && page.contains("Example"), "{program} {command}: {page}");
        }
    }
    fs::remove_dir_all(dir).unwrap();
}
