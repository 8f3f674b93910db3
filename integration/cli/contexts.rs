//! Which pod a command talks to, and with which token: by its options, by contexts, by the environment.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::harness::program::ran;
use crate::harness::{CALM, Fleet, Pod};

/// A user's configuration folder; removed when dropped.
struct Home(PathBuf);

impl Home {
    fn with(config: &str) -> Home {
        let home = Home(Path::new(env!("CARGO_TARGET_TMPDIR")).join(Uuid::new_v4().to_string()));
        std::fs::create_dir_all(home.file("")).expect("a folder");
        home.write("config.toml", config);
        home
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join("groundstation").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let file = self.file(name);
        std::fs::write(&file, text).expect("a file");
        let own = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&file, own).expect("a mode");
    }

    /// Its variable, and others.
    fn and(&self, others: &[(&str, &str)]) -> Vec<(String, String)> {
        let own = ("XDG_CONFIG_HOME", self.0.to_str().expect("text"));
        let all = others.iter().chain([&own]);
        all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("the folder can be removed");
    }
}

const LIST: [&str; 4] = ["satellite", "list", "-o", "name"];

fn url(pod: &Pod) -> String {
    format!("http://{}", pod.address)
}

#[tokio::test]
async fn a_context_is_an_address_and_its_token() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    pod.register("edge", "eu").await;
    let home = Home::with(&format!(
        "context = \"here\"\n\
         [contexts.here]\nurl = \"{0}\"\ntoken-file = \"here.token\"\n\
         [contexts.reader]\nurl = \"{0}\"\ntoken = \"{1}\"\n\
         [contexts.nowhere]\nurl = \"http://127.0.0.1:9\"\ntoken = \"{1}\"\n",
        url(&pod),
        fleet.read_token,
    ));
    home.write("here.token", &format!("{}\n", fleet.admin_token));

    let (listed, said, error) = ran(&LIST, &home.and(&[])).await;
    assert!(listed && said == "edge\n" && error.is_empty(), "{said}{error}");
    let create = ["satellite", "create", "--name", "x", "--region", "eu"];
    let (created, _, error) = ran(&create, &home.and(&[])).await;
    assert!(created, "{error}");
    let as_reader = [&create[..], &["--context", "reader"]].concat();
    let (created, _, error) = ran(&as_reader, &home.and(&[])).await;
    assert!(!created && error.contains("403"), "{error}");

    // What is named on the command line goes before the environment, and that before the file's own choice.
    let nowhere = [("GROUNDSTATION_URL", "http://127.0.0.1:9")];
    let named = [&LIST[..], &["--context", "here"]].concat();
    let (listed, _, error) = ran(&named, &home.and(&nowhere)).await;
    assert!(listed, "{error}");
    let (_, _, error) = ran(&LIST, &home.and(&[("GROUNDSTATION_CONTEXT", "nowhere")])).await;
    assert!(error.contains("127.0.0.1:9"), "{error}");
    let by_options = ["--url", &url(&pod), "--token", &fleet.read_token];
    let by_options = [&LIST[..], &by_options].concat();
    let (listed, _, error) =
        ran(&by_options, &home.and(&[("GROUNDSTATION_CONTEXT", "nowhere")])).await;
    assert!(listed, "{error}");
}

#[tokio::test]
async fn a_contexts_token_goes_to_no_other_address() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let home = Home::with(&format!(
        "context = \"prod\"\n[contexts.prod]\nurl = \"http://127.0.0.1:9\"\ntoken = \"{}\"\n",
        fleet.admin_token,
    ));
    let elsewhere = home.and(&[("GROUNDSTATION_URL", &url(&pod))]);
    let (listed, _, error) = ran(&LIST, &elsewhere).await;
    assert!(!listed && error.contains("no token"), "{error}");
    let (listed, _, error) =
        ran(&[&LIST[..], &["--url", &url(&pod)]].concat(), &home.and(&[])).await;
    assert!(!listed && error.contains("no token"), "{error}");
}

#[tokio::test]
async fn a_token_is_read_from_a_file() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let home = Home::with("");
    home.write("token", &format!("{}, older\n", fleet.read_token));
    home.write("empty", "\n");
    let [token, empty] =
        ["token", "empty"].map(|name| home.file(name).to_str().expect("text").to_owned());
    let here = home.and(&[("GROUNDSTATION_URL", &url(&pod))]);
    let (listed, _, error) = ran(&[&LIST[..], &["--token-file", &token]].concat(), &here).await;
    assert!(listed, "{error}");
    let by_variable =
        [("GROUNDSTATION_URL", &*url(&pod)), ("GROUNDSTATION_ADMIN_TOKEN_FILE", &token)];
    let (listed, _, error) = ran(&LIST, &home.and(&by_variable)).await;
    assert!(listed, "{error}");
    for (file, why) in [(&*empty, "there is no token in"), ("/nowhere", "cannot read the token in")]
    {
        let (listed, _, error) = ran(&[&LIST[..], &["--token-file", file]].concat(), &here).await;
        assert!(!listed && error.contains(why) && error.contains(file), "{error}");
    }
}

#[tokio::test]
async fn what_is_wrong_in_the_file_is_named_without_its_tokens() {
    let cases = [
        ("context = \"x\"", "there is no context \"x\": "),
        ("context = \"x\"\n[contexts.y]\nurl = \"http://y\"", "config.toml has y"),
        ("context = \"x\"\n[contexts.x]\ntoken = \"hush\"", "missing field `url`"),
        ("context = \"x\"\n[contexts.x]\nurl = \"http://x\"\ntokens = \"hush\"", "line 4: "),
        ("context = \"x\"\n[contexts.x]\nurl = \"http://x\"\ntoken = \"hush", "line 4: "),
        (
            "context = \"x\"\n[contexts.x]\nurl = \"http://x\"\ntoken = \"hush\"\ntoken-file = \"t\"",
            "has both token and token-file",
        ),
    ];
    for (config, why) in cases {
        let (listed, _, error) = ran(&LIST, &Home::with(config).and(&[])).await;
        assert!(!listed && error.contains(why) && !error.contains("hush"), "{config}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let home = Home::with("[contexts.x]\nurl = \"http://127.0.0.1:9\"\ntoken = \"hush\"");
    let config = home.file("config.toml");
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o644)).expect("a mode");
    let (_, _, error) = ran(&[&LIST[..], &["--context", "x"]].concat(), &home.and(&[])).await;
    assert!(error.contains("others can read it: chmod 600"), "{error}");
}

#[tokio::test]
async fn a_token_that_leaves_the_machine_in_plain_text_is_warned_of() {
    let away = [("GROUNDSTATION_URL", "http://pod.invalid"), ("GROUNDSTATION_ADMIN_TOKEN", "hush")];
    let away = away.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let (_, _, error) = ran(&LIST, &away).await;
    assert!(error.contains("the token goes to pod.invalid in plain text"), "{error}");
}
