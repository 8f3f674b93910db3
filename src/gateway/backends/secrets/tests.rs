use std::fs;
use std::os::unix::fs::symlink;

use proptest::prelude::*;

use super::*;

/// A folder as Kubernetes mounts a secret; removed when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new() -> Mounted {
        let folder = std::env::temp_dir().join(format!("secrets-{}", uuid::Uuid::new_v4()));
        let version = folder.join("mount/..2026_03_01");
        fs::create_dir_all(&version).expect("a folder");
        fs::write(version.join("TOKEN"), "value\n").expect("a file");
        fs::write(folder.join("outside"), "outside").expect("a file");
        let mounted = Mounted(folder);
        symlink("..2026_03_01", mounted.root().join("..data")).expect("a link");
        symlink("..data/TOKEN", mounted.root().join("TOKEN")).expect("a link");
        mounted
    }

    fn root(&self) -> PathBuf {
        self.0.join("mount")
    }

    fn read(&self, name: &str) -> Result<String, Unresolved> {
        read(&self.root(), name).map(|value| value.expose_secret().to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("the folder can be removed");
    }
}

#[test]
fn a_secret_is_read_as_kubernetes_mounts_it_and_again_when_it_is_swapped() {
    let mounted = Mounted::new();
    assert_eq!(mounted.read("TOKEN"), Ok("value".to_owned()));
    let newer = mounted.root().join("..2026_03_02");
    fs::create_dir(&newer).expect("a folder");
    fs::write(newer.join("TOKEN"), "newer").expect("a file");
    symlink("..2026_03_02", mounted.root().join("..data_tmp")).expect("a link");
    fs::rename(mounted.root().join("..data_tmp"), mounted.root().join("..data")).expect("swapped");
    assert_eq!(mounted.read("TOKEN"), Ok("newer".to_owned()));
}

fn unreadable(name: &str, why: &str) -> Unresolved {
    Unresolved::Unreadable { name: name.to_owned(), why: why.to_owned() }
}

/// The log tells operators why; satellites are told only which secret.
#[test]
fn why_a_secret_cannot_be_read_is_not_for_satellites() {
    let unreadable = unreadable("TOKEN", "it is not text");
    assert_eq!(unreadable.to_string(), "Secret cannot be read: TOKEN");
    assert_eq!(unreadable.why(), Some("it is not text"));
    assert_eq!(Unresolved::Malformed.to_string(), Unresolved::NoAnswer.to_string());
    assert_eq!(Unresolved::NotFound("TOKEN".to_owned()).why(), None);
}

#[test]
fn a_link_that_leads_out_of_the_folder_is_not_followed() {
    let mounted = Mounted::new();
    let unreadable = |name: &str| Err(unreadable(name, "its link leads out of the folder"));
    symlink("../outside", mounted.root().join("relative")).expect("a link");
    symlink(mounted.0.join("outside"), mounted.root().join("absolute")).expect("a link");
    symlink("..", mounted.root().join("parent")).expect("a link");
    symlink("parent/outside", mounted.root().join("by_parent")).expect("a link");
    for name in ["relative", "absolute", "by_parent"] {
        assert_eq!(mounted.read(name), unreadable(name));
    }
    // A folder whose name begins the same is another folder.
    fs::create_dir(mounted.0.join("mount2")).expect("a folder");
    fs::write(mounted.0.join("mount2/x"), "x").expect("a file");
    symlink("../mount2/x", mounted.root().join("alike")).expect("a link");
    assert_eq!(mounted.read("alike"), unreadable("alike"));
}

#[test]
fn what_is_no_secret_is_refused() {
    let mounted = Mounted::new();
    let root = mounted.root();
    fs::write(root.join("large"), "x".repeat(MAX_BYTES + 1)).expect("a file");
    fs::write(root.join("fits"), "x".repeat(MAX_BYTES)).expect("a file");
    fs::write(root.join("binary"), [0xff, 0xfe]).expect("a file");
    fs::create_dir(root.join("folder")).expect("a folder");
    for (name, why) in
        [("large", "it is too large"), ("binary", "it is not text"), ("folder", "it is not a file")]
    {
        assert_eq!(mounted.read(name), Err(unreadable(name, why)));
    }
    assert_eq!(mounted.read("fits").map(|value| value.len()), Ok(MAX_BYTES));
    assert_eq!(mounted.read("absent"), Err(Unresolved::NotFound("absent".to_owned())));
}

#[test]
fn names_are_words() {
    for name in ["TOKEN", "a", "db-password", "tls.key", "_x", "a..b", "0"] {
        assert!(is_name(name), "{name}");
    }
    let long = "x".repeat(MAX_NAME + 1);
    for name in
        ["", ".", "..", "..data", ".hidden", "a/b", "../a", "a\\b", "a b", "ä", "a\0", &long]
    {
        assert!(!is_name(name), "{name}");
    }
}

proptest! {
    #[test]
    fn a_name_is_one_step_down_a_path_and_no_other(name in "[a-z./\\\\~\u{0}-]{0,12}") {
        if is_name(&name) {
            let path = Path::new("/secrets").join(&name);
            prop_assert_eq!(path.parent(), Some(Path::new("/secrets")));
            prop_assert_eq!(path.file_name().and_then(|name| name.to_str()), Some(name.as_str()));
        }
    }
}
