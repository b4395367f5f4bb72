//! The `kimberlite` binary: command line in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    kimberlite::cli::main()
}
