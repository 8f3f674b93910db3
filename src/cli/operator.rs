//! Who runs a command, as the operating system knows it.

use std::fs;

/// The user's name and the host's, such as `ada@host`. It is what the system says, and no proof of who it was.
pub fn name() -> String {
    let host = gethostname::gethostname();
    format!("{}@{}", user(), host.to_string_lossy())
}

/// Not from the environment, where it can be had: that says what anybody wrote there.
fn user() -> String {
    let of_environment = || std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned());
    let Some(id) = user_id() else { return of_environment() };
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, of_name) = (fields.next()?, fields.nth(1)?);
        (of_name == id).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| format!("uid {id}"))
}

/// The number of the user of this process.
fn user_id() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().next().map(str::to_owned)
}
