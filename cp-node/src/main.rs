//! The `cp-node` program; all of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    cp_node::main(std::env::args_os())
}
