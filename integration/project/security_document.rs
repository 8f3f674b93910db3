//! The document of security says of each promise which test shows it: those tests are there.

use std::path::Path;

/// Whether this is written like the name of a test: a sentence.
fn is_sentence(word: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    word.matches('_').count() >= 3 && word.chars().all(fits)
}

#[test]
fn every_test_that_the_threat_model_names_is_in_the_file_that_it_names() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/security.md")).expect("the document");
    let mut named = 0;
    for block in text.split("\n\n").flat_map(|paragraph| match paragraph.starts_with('|') {
        true => paragraph.lines().collect(),
        false => vec![paragraph],
    }) {
        let mut file = None;
        for word in block.split('`').skip(1).step_by(2) {
            if word.starts_with("integration/") && word.ends_with(".rs") {
                let content = std::fs::read_to_string(root.join(word));
                file = Some((word, content.unwrap_or_else(|error| panic!("{word}: {error}"))));
            } else if is_sentence(word) {
                let (path, content) = file.as_ref().expect("a file before the name of a test");
                assert!(content.contains(&format!("fn {word}(")), "{path} has no test {word}");
                named += 1;
            }
        }
    }
    assert!(named > 60, "{named} tests are named");
}
