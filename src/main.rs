//! The command line, nothing else.

fn main() -> std::process::ExitCode {
    groundstation::cli::main()
}
