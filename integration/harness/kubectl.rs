//! `kubectl kustomize`, which builds what `kubectl apply -k` would send. `make test-tools` brings it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

/// The objects of a kustomization; `None` where there is no kubectl. Blocking.
pub fn kustomize(folder: &Path) -> Option<Vec<Value>> {
    let built = match Command::new(program()).arg("kustomize").arg(folder).output() {
        Ok(built) => built,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("NOT CHECKED: there is no kubectl here, see `make test-tools`");
            return None;
        }
        Err(error) => panic!("kubectl does not run: {error}"),
    };
    let said = String::from_utf8(built.stderr).expect("text");
    // Warnings count too: they point at something that was not meant.
    assert!(built.status.success() && said.is_empty(), "{said}");
    let text = String::from_utf8(built.stdout).expect("text");
    let documents = serde_yaml_ng::Deserializer::from_str(&text);
    Some(documents.map(|document| Value::deserialize(document).expect("YAML")).collect())
}

fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("GROUNDSTATION_KUBECTL").filter(|name| !name.is_empty()) {
        return named.into();
    }
    let brought = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/kubectl/bin/kubectl");
    if brought.exists() { brought } else { "kubectl".into() }
}
