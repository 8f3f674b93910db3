//! The page's files come from the program, with headers that let it do nothing but what it is for.

use std::io::Read;

use crate::harness::asked::{Asked, ask};
use crate::harness::{CALM, Fleet, Pod};

/// To the letter: a browser enforces it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; font-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'self'; \
    frame-ancestors 'none'";

async fn get(pod: &Pod, path: &str, headers: &[(&str, &str)]) -> Asked {
    ask(pod, "GET", path, headers, "").await
}

/// The assets that a page names.
fn assets(page: &str) -> Vec<String> {
    let named = page.split('"').filter(|text| text.starts_with("/console/assets/"));
    named.map(str::to_owned).collect()
}

/// The page; none in a program that was built without it (`make console`).
async fn page(pod: &Pod) -> Option<String> {
    let answer = get(pod, "/console/", &[]).await;
    assert_eq!(answer.status, 200);
    if answer.headers["content-type"].starts_with("text/html") {
        return Some(answer.text().to_owned());
    }
    assert!(answer.text().contains("`make console`"), "{answer:?}");
    assert!(std::env::var_os("CI").is_none(), "built without the page");
    eprintln!("NOT CHECKED: this program was built without the page");
    None
}

#[tokio::test]
async fn every_way_to_the_page_leads_to_it_and_nowhere_else() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    for path in ["/", "/console", "/?next=//evil.example", "/console?next=https://evil.example"] {
        let answer = get(&pod, path, &[("X-Forwarded-Host", "evil.example")]).await;
        assert_eq!((answer.status, answer.headers["location"].as_str()), (303, "/console/"));
    }
    assert_eq!(get(&pod, "//evil.example/", &[]).await.status, 404);
    let home = get(&pod, "/console/", &[]).await;
    for place in ["/console/satellites/7", "/console/sign-in", "/console/?status=online"] {
        let answer = get(&pod, place, &[]).await;
        assert_eq!((answer.status, &answer.body), (200, &home.body), "{place}");
    }
    for nowhere in [
        "/console/assets/other-12345678.js",
        "/console/../Cargo.toml",
        "/console/%2e%2e/Cargo.toml",
        "/console/..%2fCargo.toml",
        "/console/%2Fetc%2Fhosts.conf",
        "/console/assets/../index.htm",
        "/console/%ff",
        "/favicon.ico",
    ] {
        let answer = get(&pod, nowhere, &[]).await;
        assert_eq!(answer.status, 404, "{nowhere}");
        assert_eq!(answer.headers["content-type"], "application/problem+json");
    }
    let posted = ask(&pod, "POST", "/console/", &[], "").await;
    assert_eq!((posted.status, posted.headers["allow"].as_str()), (405, "GET,HEAD"));
}

#[tokio::test]
async fn whatever_is_answered_there_has_the_policy() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    for path in
        ["/console/", "/console/sign-in", "/console/session", "/console/assets/none.js", "/console"]
    {
        let answer = get(&pod, path, &[]).await;
        assert_eq!(answer.headers["content-security-policy"], POLICY, "{path}");
        assert_eq!(answer.headers["referrer-policy"], "no-referrer");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers["cross-origin-resource-policy"], "same-origin");
    }
}

#[tokio::test]
async fn the_page_is_asked_for_again_and_its_assets_are_kept() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let Some(page) = page(&pod).await else { return };
    let assets = assets(&page);
    assert!(!assets.is_empty(), "{page}");
    // A policy without inline scripts and styles is of use only if the page has none.
    assert!(!page.contains("<style") && !page.contains(" style=") && !page.contains("<script>"));
    let home = "/console/".to_owned();
    for path in assets.iter().chain([&home]) {
        let whole = get(&pod, path, &[]).await;
        let kept = if *path == home { "no-cache" } else { "public, max-age=31536000, immutable" };
        assert_eq!((whole.status, whole.headers["cache-control"].as_str()), (200, kept), "{path}");
        assert!(!whole.headers["content-type"].starts_with("application/octet"), "{path}");
        assert_eq!(whole.headers["content-length"], whole.body.len().to_string());

        let head = ask(&pod, "HEAD", path, &[], "").await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_eq!(head.headers["content-length"], whole.headers["content-length"]);
        let known = get(&pod, path, &[("If-None-Match", &whole.headers["etag"])]).await;
        assert_eq!((known.status, known.body.len()), (304, 0), "{path}");
        assert_eq!(known.headers["etag"], whole.headers["etag"]);

        let zipped = get(&pod, path, &[("Accept-Encoding", "gzip, br")]).await;
        assert_eq!(zipped.headers["vary"], "accept-encoding");
        if zipped.headers.contains_key("content-encoding") {
            let mut text = Vec::new();
            let mut gzip = flate2::read::GzDecoder::new(zipped.body.as_slice());
            gzip.read_to_end(&mut text).expect("gzip");
            assert_eq!(text, whole.body, "{path}");
            assert!(zipped.body.len() < whole.body.len());
        } else {
            assert_eq!(zipped.body, whole.body);
        }
    }
}

#[tokio::test]
async fn the_operators_listener_has_no_page() {
    let fleet = Fleet::new(CALM).await;
    let plan = fleet.plan("a").with("GROUNDSTATION_OPS_LISTEN", "127.0.0.1:0");
    let mut pod = Pod::launch("a", &plan.environment(), &fleet.admin_token);
    let ops = pod.expect_log("probes and metrics are here").await;
    pod.address = ops["address"].as_str().expect("text").parse().expect("an address");
    for path in ["/", "/console/", "/console/session"] {
        assert_eq!(get(&pod, path, &[]).await.status, 404, "{path}");
    }
}
