//! What `/metrics` says, in either form.

use std::collections::BTreeSet;

use super::Pod;
use super::wait::blocking;

/// For whoever accepts it.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// For everybody else.
pub const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `/metrics` of a pod for this `Accept`: its media type and its text.
pub async fn scrape(pod: &Pod, accept: &str) -> (String, String) {
    let request = ureq::get(format!("http://{}/metrics", pod.address)).header("Accept", accept);
    let answer = blocking(move || {
        let mut answer = request.call()?;
        let kind = answer.headers()["content-type"].to_str().expect("ASCII").to_owned();
        Ok::<_, ureq::Error>((kind, answer.body_mut().read_to_string()?))
    });
    answer.await.expect("/metrics")
}

/// Every name a query may use: of samples, and of families without one yet.
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
