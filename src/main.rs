//! The command line, nothing else.

fn main() -> std::process::ExitCode {
    // A build for fault tests reads FAILPOINTS; other builds do not.
    #[cfg(feature = "failpoints")]
    let _failpoints = fail::FailScenario::setup();
    groundstation::cli::main()
}
