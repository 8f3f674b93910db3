//! Text that others wrote, as it may be printed on a terminal.
//!
//! A satellite's name, a reason or a proxy's answer can hold characters that move the cursor, change the window's title
//! or turn the direction of writing. Whoever registers a satellite must not write on an operator's screen.

use std::borrow::Cow;

/// The text with such characters written out, as `\u{1b}`. Line breaks are among them.
pub fn printable(text: &str) -> Cow<'_, str> {
    escape(text, is_printable)
}

/// The same for text of several lines of our own.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    escape(text, |c| c == '\n' || is_printable(c))
}

fn escape(text: &str, is_kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.chars().all(&is_kept) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match is_kept(c) {
            true => escaped.push(c),
            false => escaped.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(escaped)
}

/// Neither a control character, C1 included, nor a mark or an override of direction (Unicode's Bidi_Control).
fn is_printable(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !c.is_control() && !turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_steer_a_terminal_is_written_out() {
        let cases = [
            ("edge-eu (é, 東京, 🛰)", "edge-eu (é, 東京, 🛰)"),
            ("\x1b[2J", "\\u{1b}[2J"),
            ("a\u{9b}31m", "a\\u{9b}31m"),
            ("a\r\nb\t\u{7f}", "a\\u{d}\\u{a}b\\u{9}\\u{7f}"),
            ("\u{202e}ecivres", "\\u{202e}ecivres"),
        ];
        for (text, shown) in cases {
            assert_eq!(printable(text), shown);
        }
        assert_eq!(printable_lines("one\ntwo\x07"), "one\ntwo\\u{7}");
    }
}
