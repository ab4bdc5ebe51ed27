//! Walks the definition of a command line, all commands below each other, and says what its help lacks.

use std::any::TypeId;

use clap::{Arg, Command};

/// Words for what a number counts, one of which stands in the help of every option that takes a number.
const UNITS: [&str; 36] = [
    " us",
    " ms",
    " ns",
    "seconds",
    " s,",
    " s ",
    " s)",
    "bytes",
    "KiB",
    "KB",
    "MB",
    "bit/s",
    "share",
    "Share",
    "times",
    "number",
    "Number",
    "Most",
    "How many",
    "most",
    "port",
    "Port",
    "core",
    "node",
    "RPC",
    "ids",
    "threads",
    "Threads",
    "integers",
    "seed",
    "Samples",
    "intervals",
    "Round trips",
    "round trips",
    "Requests",
    "packets",
];
/// What options that take a number may call it: a name that is a unit, or an N with the help saying of what.
const NAMES: [&str; 9] = ["US", "MS", "S", "SECONDS", "BYTES", "KB", "MB", "GBPS", "MBPS"];

/// Everything that is missing, each with the command and the option.
pub(crate) fn lacks(mut command: Command) -> Vec<String> {
    command.build();
    let mut found = Vec::new();
    walk(&command, command.get_name(), &mut found);
    found
}

fn walk(command: &Command, path: &str, found: &mut Vec<String>) {
    if command.get_about().is_none() {
        found.push(format!("{path}: it does not say what it does"));
    }
    let below: Vec<_> =
        command.get_subcommands().filter(|one| one.get_name() != "help" && !one.is_hide_set()).collect();
    let after = [command.get_after_help(), command.get_after_long_help()];
    let says_example = after.iter().flatten().any(|text| text.to_string().contains("Example"));
    // Groups of commands do nothing by themselves.
    if below.is_empty() && !says_example {
        found.push(format!("{path}: no example"));
    }
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        found.extend(about(arg).into_iter().map(|what| format!("{path} {}: {what}", arg.get_id())));
    }
    for one in below {
        walk(one, &format!("{path} {}", one.get_name()), found);
    }
}

/// What is wrong with the help of an option.
fn about(arg: &Arg) -> Vec<&'static str> {
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut wrong = Vec::new();
    if help.trim().is_empty() {
        wrong.push("no help");
    }
    if !takes_number(arg) {
        return wrong;
    }
    let names: Vec<_> = arg.get_value_names().unwrap_or_default().iter().map(|name| name.as_str()).collect();
    let unit =
        names.iter().any(|name| NAMES.contains(name)) || UNITS.iter().any(|unit| format!("{help} ").contains(unit));
    if !unit {
        wrong.push("a number of what?");
    }
    // What has no default is needed, or its help says what is without it.
    let shown = !arg.get_default_values().is_empty() && !arg.is_hide_default_value_set();
    let told = ["[default", "without", "Without", "nly", "instead", "Instead", "overrides", "end after"];
    let needed = arg.is_required_set() || arg.is_positional();
    if !(shown || needed || told.iter().any(|word| help.contains(word))) {
        wrong.push("what is it when it is not given?");
    }
    wrong
}

fn takes_number(arg: &Arg) -> bool {
    let numbers = [
        TypeId::of::<u8>(),
        TypeId::of::<u16>(),
        TypeId::of::<u32>(),
        TypeId::of::<u64>(),
        TypeId::of::<usize>(),
        TypeId::of::<i16>(),
        TypeId::of::<i32>(),
        TypeId::of::<i64>(),
        TypeId::of::<f64>(),
    ];
    arg.get_action().takes_values() && numbers.iter().any(|number| arg.get_value_parser().type_id() == *number)
}

/// Commands whose misspelt names do not bring the right one up.
pub(crate) fn without_suggestion(mut command: Command) -> Vec<String> {
    command.build();
    let mut words = vec![command.get_name().to_owned()];
    let mut found = Vec::new();
    misspell(&command, &command, &mut words, &mut found);
    found
}

fn misspell(root: &Command, at: &Command, words: &mut Vec<String>, found: &mut Vec<String>) {
    let mut check = |typo: String, right: String, words: &[String]| {
        let all: Vec<_> = words.iter().cloned().chain([typo]).collect();
        match root.clone().try_get_matches_from(&all) {
            Err(err) if err.to_string().contains(&format!("'{right}'")) => {}
            other => found.push(format!("{all:?}: {}", other.err().map_or("taken".to_owned(), |err| err.to_string()))),
        }
    };
    // What may be a file as well is taken for one.
    let commands =
        at.get_subcommands().filter(|one| one.get_name().len() > 3 && !at.is_args_conflicts_with_subcommands_set());
    for one in commands {
        check(typo(one.get_name()), one.get_name().to_owned(), words);
    }
    for name in
        at.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(Arg::get_long).filter(|name| name.len() > 3)
    {
        check(format!("--{}", typo(name)), format!("--{name}"), words);
    }
    for one in at.get_subcommands().filter(|one| one.get_name() != "help") {
        words.push(one.get_name().to_owned());
        misspell(root, one, words, found);
        words.pop();
    }
}

/// A name with its last two letters exchanged, or the last one twice.
fn typo(name: &str) -> String {
    let (head, tail) = name.split_at(name.len() - 2);
    let exchanged: String = tail.chars().rev().collect();
    if exchanged == tail { format!("{name}{}", &tail[..1]) } else { format!("{head}{exchanged}") }
}
