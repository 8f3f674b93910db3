//! The command line, nothing else.

fn main() -> std::process::ExitCode {
    // Reads FAILPOINTS in a build for fault tests; nothing in any other.
    #[cfg(feature = "failpoints")]
    let _failpoints = fail::FailScenario::setup();
    groundstation::cli::main()
}
