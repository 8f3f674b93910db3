//! What commands print.

use std::fmt;
use std::io::{self, Write};

/// Prints a line. Whoever reads may close the pipe when it has read enough: that is no error, and what a command does
/// besides goes on. Any other failure ends the program: an output that lacks lines must not pass for whole.
pub(super) fn line(text: fmt::Arguments<'_>) {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("groundstation: cannot print: {error}");
            std::process::exit(1);
        }
        _ => {}
    }
}

/// `println!` for commands; see [`line()`].
macro_rules! print_line {
    ($($text:tt)*) => {
        $crate::cli::output::line(format_args!($($text)*))
    };
}

pub(crate) use print_line;
