//! What is listed by positions on the command line: a page of it, or what comes.

use clap::Args;

/// Which page, or whether to follow.
#[derive(Args)]
pub struct PagedArgs {
    /// Behind this position [default: the beginning, or now with --follow]
    #[arg(long, value_name = "POSITION", conflicts_with = "newest_first",
          value_parser = clap::value_parser!(i64).range(0..))]
    pub after: Option<i64>,
    /// The newest first
    #[arg(long, conflicts_with = "follow")]
    newest_first: bool,
    /// With --newest-first: only before this position
    #[arg(long, value_name = "POSITION", requires = "newest_first",
          value_parser = clap::value_parser!(i64).range(1..))]
    before: Option<i64>,
    /// How many
    #[arg(long, default_value_t = 100, conflicts_with = "follow",
          value_parser = clap::value_parser!(i64).range(1..=1000))]
    limit: i64,
    /// Recorded at or after this time, such as 2026-03-01T12:00:00Z
    #[arg(long, value_name = "TIME", conflicts_with = "follow")]
    since: Option<String>,
    /// Recorded before this time
    #[arg(long, value_name = "TIME", conflicts_with = "follow")]
    until: Option<String>,
    /// Go on with what comes, without a gap, whatever happens to the pod or the connection; Ctrl-C ends
    #[arg(long)]
    pub follow: bool,
}

impl PagedArgs {
    /// The parameters of the request for the page.
    pub fn parameters(self) -> impl Iterator<Item = (&'static str, String)> {
        given([
            ("after", self.after.map(|after| after.to_string())),
            ("order", self.newest_first.then(|| "desc".to_owned())),
            ("before", self.before.map(|before| before.to_string())),
            ("limit", Some(self.limit.to_string())),
            ("since", self.since),
            ("until", self.until),
        ])
    }
}

/// Those parameters that have a value.
pub fn given<const N: usize>(
    parameters: [(&'static str, Option<String>); N],
) -> impl Iterator<Item = (&'static str, String)> {
    parameters.into_iter().filter_map(|(name, value)| Some((name, value?)))
}
