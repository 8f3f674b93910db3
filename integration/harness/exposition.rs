//! What `/metrics` says, in both forms.

use std::collections::BTreeSet;

use super::Pod;
use super::wait::blocking;

/// The `Accept` of a client that takes OpenMetrics.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The `Accept` of other clients.
pub const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Asks a pod for `/metrics` with this `Accept`; returns media type and text.
pub async fn scrape(pod: &Pod, accept: &str) -> (String, String) {
    let request = ureq::get(format!("http://{}/metrics", pod.address)).header("Accept", accept);
    let answer = blocking(move || {
        let mut answer = request.call()?;
        let kind = answer.headers()["content-type"].to_str().expect("ASCII").to_owned();
        Ok::<_, ureq::Error>((kind, answer.body_mut().read_to_string()?))
    });
    answer.await.expect("/metrics")
}

/// Every name that a query may use: those of samples, and those of families without a sample yet.
pub fn names(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in text.lines() {
        let name = match line.strip_prefix("# TYPE ") {
            Some(described) => described.split(' ').next(),
            None if line.starts_with('#') => None,
            None => line.split(['{', ' ']).next(),
        };
        names.extend(name.map(str::to_owned));
    }
    names
}
