//! The files in `deploy/` fit together and fit the program: every reference has its target, every metric that is
//! queried exists, every alert does what its test says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use groundstation::platform::units::duration;
use groundstation::pod::config::ServeArgs;
use serde::Deserialize;
use serde_json::Value;

use crate::harness::exposition::{OPENMETRICS, TEXT, names, scrape};
use crate::harness::kubectl::kustomize;
use crate::harness::promtool::promtool;
use crate::harness::wait::blocking;
use crate::harness::{CALM, Fleet, Satellite};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn text(file: &str) -> String {
    std::fs::read_to_string(folder().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The documents of a YAML file.
fn documents(file: &str) -> Vec<Value> {
    let text = text(file);
    let documents = serde_yaml_ng::Deserializer::from_str(&text);
    documents
        .map(|document| Value::deserialize(document).unwrap_or_else(|e| panic!("{file}: {e}")))
        .collect()
}

fn kustomization() -> Value {
    documents("kustomize/kustomization.yaml").remove(0)
}

fn strings(list: &Value) -> Vec<String> {
    let list = list.as_array().expect("a list").iter();
    list.map(|item| item.as_str().expect("text").to_owned()).collect()
}

/// Every object, by kind.
fn objects() -> BTreeMap<String, Value> {
    let files = strings(&kustomization()["resources"]);
    let objects = files.iter().flat_map(|file| documents(&format!("kustomize/{file}")));
    objects.map(|object| (object["kind"].as_str().expect("a kind").to_owned(), object)).collect()
}

/// Every value under this key, at any depth.
fn all<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            for (name, below) in fields {
                if name == key {
                    found.push(below);
                }
                all(below, key, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| all(item, key, found)),
        _ => {}
    }
}

fn pod_template(object: &Value) -> &Value {
    &object["spec"]["template"]
}

#[test]
fn the_network_policy_says_from_where_and_to_where() {
    let policy = &objects()["NetworkPolicy"]["spec"];
    for (rules, whom) in [("ingress", "from"), ("egress", "to")] {
        for rule in policy[rules].as_array().expect("rules") {
            let named = rule[whom].as_array().is_some_and(|peers| !peers.is_empty());
            assert!(named && rule["ports"].is_array(), "{rules}: {rule}");
        }
    }
    // From inside, nothing on the internet is reached.
    let mut networks = Vec::new();
    all(&policy["egress"], "cidr", &mut networks);
    let is_private = |network: &&Value| {
        let address = network.as_str().and_then(|text| text.split('/').next()).expect("a network");
        match address.parse().expect("an address") {
            std::net::IpAddr::V4(address) => address.is_private(),
            std::net::IpAddr::V6(address) => address.is_unique_local(),
        }
    };
    assert!(!networks.is_empty() && networks.iter().all(is_private), "{networks:?}");
}

#[test]
fn nothing_in_compose_has_rights_it_does_not_need() {
    let compose: Value = documents("../docker-compose.yml").remove(0);
    for (name, service) in compose["services"].as_object().expect("services") {
        // A key that is merged in is beneath `<<`.
        let setting = |key: &str| match &service[key] {
            Value::Null => match &service["<<"][key] {
                Value::Null => service["<<"]["<<"][key].clone(),
                value => value.clone(),
            },
            value => value.clone(),
        };
        assert_eq!(setting("cap_drop"), serde_json::json!(["ALL"]), "{name}");
        assert_eq!(setting("read_only"), Value::Bool(true), "{name}");
        let option = serde_json::json!(["no-new-privileges:true"]);
        assert_eq!(setting("security_opt"), option, "{name}");
    }
}

#[test]
fn every_file_of_the_base_is_named_by_it() {
    let mut named: BTreeSet<String> = strings(&kustomization()["resources"]).into_iter().collect();
    named.insert("kustomization.yaml".to_owned());
    let there = folder().join("kustomize").read_dir().expect("the base");
    let there: BTreeSet<String> =
        there.map(|file| file.expect("a file").file_name().into_string().expect("text")).collect();
    assert_eq!(named, there);
    assert_eq!(objects().len(), named.len() - 1, "one object a file, no kind twice");
}

#[test]
fn every_reference_between_the_objects_has_its_end() {
    let objects = objects();
    let deployment = &objects["Deployment"];
    let labels = pod_template(deployment)["metadata"]["labels"].as_object().expect("labels");
    let selectors = [
        &deployment["spec"]["selector"]["matchLabels"],
        &objects["Service"]["spec"]["selector"],
        &objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        &objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ];
    for selector in selectors {
        for (name, value) in selector.as_object().expect("labels") {
            assert_eq!(labels.get(name), Some(value), "{selector}");
        }
    }
    let job = pod_template(&objects["Job"])["metadata"]["labels"].as_object().expect("labels");
    let traffic = objects["Service"]["spec"]["selector"].as_object().expect("labels");
    assert!(traffic.iter().any(|(name, value)| job.get(name) != Some(value)), "no traffic to it");

    let container = &pod_template(deployment)["spec"]["containers"][0];
    let port = &container["ports"][0];
    assert_eq!(objects["Service"]["spec"]["ports"][0]["targetPort"], port["name"]);
    let ops = &container["ports"][1];
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        assert_eq!(container[probe]["httpGet"]["port"], ops["name"], "{probe}");
    }
    let scraped = &pod_template(deployment)["metadata"]["annotations"]["prometheus.io/port"];
    assert_eq!(scraped, &ops["containerPort"].to_string());
    let open = &objects["NetworkPolicy"]["spec"]["ingress"];
    assert_eq!(open[0]["ports"][0]["port"], port["containerPort"]);
    assert_eq!(open[1]["ports"][0]["port"], ops["containerPort"]);
    let target = &objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"];
    assert_eq!(target["name"], deployment["metadata"]["name"]);
    assert_eq!(target["kind"], "Deployment");
    let volumes = &pod_template(deployment)["spec"]["volumes"];
    for mount in container["volumeMounts"].as_array().expect("mounts") {
        let is_there = |volume: &Value| volume["name"] == mount["name"];
        assert!(volumes.as_array().expect("volumes").iter().any(is_there), "{mount}");
    }
    let settings = &kustomization()["configMapGenerator"][0]["name"];
    assert_eq!(&container["envFrom"][0]["configMapRef"]["name"], settings);
    let images: Vec<_> = ["Deployment", "Job"].map(|kind| &objects[kind]).into();
    for object in images {
        let image = &pod_template(object)["spec"]["containers"][0]["image"];
        assert_eq!(image, &kustomization()["images"][0]["name"]);
    }
}

/// The one object of this kind.
fn one<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let mut found = objects.iter().filter(|object| object["kind"] == kind);
    let object = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "more than one {kind}");
    object
}

#[test]
fn kustomize_builds_the_base_as_it_is_committed() {
    let Some(built) = kustomize(&folder().join("kustomize")) else { return };
    let mut kinds: BTreeSet<String> = objects().into_keys().collect();
    kinds.insert("ConfigMap".to_owned());
    let there: Vec<&str> = built.iter().filter_map(|object| object["kind"].as_str()).collect();
    assert_eq!(there.len(), kinds.len(), "{there:?}");
    assert_eq!(there.iter().map(|kind| kind.to_string()).collect::<BTreeSet<_>>(), kinds);
    for object in &built {
        let labels = &object["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/part-of"], "groundstation", "{object}");
    }
    // The pods use the settings under their generated name, and the image of this version.
    let (deployment, settings) = (one(&built, "Deployment"), one(&built, "ConfigMap"));
    let container = &pod_template(deployment)["spec"]["containers"][0];
    let name = &container["envFrom"][0]["configMapRef"]["name"];
    assert!(
        name.as_str().is_some_and(|name| name.starts_with("groundstation-settings-")),
        "{name}"
    );
    assert_eq!(name, &settings["metadata"]["name"]);
    let literals = strings(&kustomization()["configMapGenerator"][0]["literals"]);
    for (name, value) in literals.iter().filter_map(|line| line.split_once('=')) {
        assert_eq!(settings["data"][name], value, "{name}");
    }
    let image = format!("groundstation:{}", env!("CARGO_PKG_VERSION"));
    for kind in ["Deployment", "Job"] {
        let container = &pod_template(one(&built, kind))["spec"]["containers"][0];
        assert_eq!(container["image"], image.as_str(), "{kind}");
    }
    // A selector cannot be changed later, so nothing was added to it.
    let selector = &deployment["spec"]["selector"];
    assert_eq!(selector, &objects()["Deployment"]["spec"]["selector"]);
}

/// What the operations guide asks for in an overlay.
const OVERLAY: &str = r#"
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: presence
resources: [../base]
images: [{name: groundstation, newName: registry.example/groundstation, newTag: "9"}]
secretGenerator:
  - {name: groundstation-stores, literals: [database-url=postgres://, nats-url=nats://]}
  - {name: groundstation-migrate, literals: [database-url=postgres://]}
  - {name: groundstation-tokens, literals: [admin=a, read=b]}
configMapGenerator:
  - {name: groundstation-settings, behavior: merge, literals: [GROUNDSTATION_RETENTION=90d]}
"#;

#[test]
fn an_overlay_that_brings_image_secrets_and_settings_is_all_that_is_missing() {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("overlay");
    std::fs::remove_dir_all(&place).ok();
    let (base, overlay) = (place.join("base"), place.join("overlay"));
    for folder in [&base, &overlay] {
        std::fs::create_dir_all(folder).expect("a folder");
    }
    for file in folder().join("kustomize").read_dir().expect("the base").flatten() {
        std::fs::copy(file.path(), base.join(file.file_name())).expect("copied");
    }
    std::fs::write(overlay.join("kustomization.yaml"), OVERLAY).expect("an overlay");
    let Some(built) = kustomize(&overlay) else { return };
    // Every name that is referred to is the name of an object that was built.
    let names: Vec<&Value> = built.iter().map(|object| &object["metadata"]["name"]).collect();
    let mut references = Vec::new();
    for object in &built {
        assert_eq!(object["metadata"]["namespace"], "presence", "{object}");
        for key in ["secretKeyRef", "configMapRef", "scaleTargetRef"] {
            let mut found = Vec::new();
            all(object, key, &mut found);
            references.extend(found.iter().map(|reference| &reference["name"]));
        }
        all(object, "secretName", &mut references);
    }
    assert_eq!(references.len(), 6, "{references:?}");
    for reference in references {
        assert!(names.contains(&reference), "{reference} of {names:?}");
    }
    let settings = one(&built, "ConfigMap");
    assert_eq!(settings["data"]["GROUNDSTATION_RETENTION"], "90d");
    assert_eq!(settings["data"]["GROUNDSTATION_LOG_FORMAT"], "json");
    for kind in ["Deployment", "Job"] {
        let container = &pod_template(one(&built, kind))["spec"]["containers"][0];
        assert_eq!(container["image"], "registry.example/groundstation:9", "{kind}");
    }
}

#[test]
fn every_secret_is_told_of_in_the_operations_guide() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let guide = std::fs::read_to_string(guide).expect("docs/operations.md");
    for object in objects().values() {
        let (mut keys, mut names) = (Vec::new(), Vec::new());
        all(object, "secretKeyRef", &mut keys);
        all(object, "secretName", &mut names);
        for key in keys {
            names.push(&key["name"]);
            let key = key["key"].as_str().expect("a key");
            assert!(guide.contains(&format!("`{key}`")), "{key}");
        }
        for name in names {
            let name = name.as_str().expect("a name");
            assert!(guide.contains(&format!("`{name}`")), "{name}");
        }
    }
}

/// The variables of the pods, those of the settings included.
fn environment() -> BTreeMap<String, String> {
    let literals = strings(&kustomization()["configMapGenerator"][0]["literals"]);
    let literals = literals.iter().map(|line| line.split_once('=').expect("name=value"));
    let mut environment: BTreeMap<String, String> =
        literals.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let objects = objects();
    let container = &pod_template(&objects["Deployment"])["spec"]["containers"][0];
    for variable in container["env"].as_array().expect("variables") {
        let value = variable["value"].as_str().unwrap_or("from elsewhere");
        environment.insert(variable["name"].as_str().expect("a name").to_owned(), value.to_owned());
    }
    environment
}

#[test]
fn every_variable_of_the_pods_is_a_setting_of_serve() {
    let command = ServeArgs::augment_args(clap::Command::new("serve"));
    let settings: BTreeSet<String> = command
        .get_arguments()
        .filter_map(|argument| Some(argument.get_env()?.to_str().expect("text").to_owned()))
        .chain(["RUST_LOG".to_owned(), "GROUNDSTATION_LOG_FORMAT".to_owned()])
        .collect();
    for name in environment().keys() {
        assert!(settings.contains(name), "{name} is no setting");
    }
}

#[test]
fn a_pod_has_longer_to_end_than_it_takes() {
    let environment = environment();
    let deadline = &environment["GROUNDSTATION_DRAIN_DEADLINE"];
    let deadline = duration("GROUNDSTATION_DRAIN_DEADLINE", deadline).expect("a duration");
    let objects = objects();
    let spec = &pod_template(&objects["Deployment"])["spec"];
    let seconds = |value: &Value| Duration::from_secs(value.as_u64().expect("seconds"));
    let grace = seconds(&spec["terminationGracePeriodSeconds"]);
    let before = seconds(&spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]);
    let needed = before + deadline + Duration::from_secs(5);
    assert!(grace >= needed, "{grace:?} for {before:?} and {deadline:?}");
}

#[test]
fn every_container_runs_with_the_least_rights() {
    for kind in ["Deployment", "Job"] {
        let objects = objects();
        let spec = &pod_template(&objects[kind])["spec"];
        assert_eq!(spec["automountServiceAccountToken"], false, "{kind}");
        assert_eq!(spec["securityContext"]["runAsNonRoot"], true, "{kind}");
        assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{kind}");
        let container = &spec["containers"][0]["securityContext"];
        assert_eq!(container["allowPrivilegeEscalation"], false, "{kind}");
        assert_eq!(container["readOnlyRootFilesystem"], true, "{kind}");
        assert_eq!(strings(&container["capabilities"]["drop"]), ["ALL"], "{kind}");
    }
}

#[tokio::test]
async fn the_probes_and_the_scrape_ask_what_a_pod_answers() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let objects = objects();
    let template = pod_template(&objects["Deployment"]);
    let (mut gets, mut paths) = (Vec::new(), Vec::new());
    all(template, "httpGet", &mut gets);
    gets.iter().for_each(|get| paths.push(get["path"].as_str().expect("a path")));
    let annotations = &template["metadata"]["annotations"];
    paths.push(annotations["prometheus.io/path"].as_str().expect("a path"));
    assert_eq!(paths.len(), 4);
    for path in paths {
        assert_eq!(pod.call("GET", path, None, None).await.status, 200, "{path}");
    }
}

/// Every expression of the alerts and the dashboard.
fn expressions() -> Vec<String> {
    let rules = documents("prometheus/rules.yaml").remove(0);
    let dashboard: Value =
        serde_json::from_str(&text("grafana/groundstation.json")).expect("the dashboard");
    let mut found = Vec::new();
    all(&rules, "expr", &mut found);
    all(&dashboard, "expr", &mut found);
    assert!(found.len() > 40, "{}", found.len());
    found.iter().map(|expression| expression.as_str().expect("text").to_owned()).collect()
}

/// The metrics an expression names.
fn metrics_of(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("groundstation_"))
}

#[tokio::test]
async fn every_metric_that_is_asked_for_is_one_of_a_pod() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let satellite = Satellite::connect(pod.address, &credentials).await;
    satellite.send(&serde_json::json!({"type": "nonsense"}));
    satellite.close().await;
    fleet
        .expect_history(credentials.id, &["1 connected connect", "1 disconnected client_close"])
        .await;
    // Includes families without a sample yet, under the names that their samples will have.
    let (_, text) = scrape(&pod, TEXT).await;
    let there = names(&text);
    for expression in expressions() {
        // Those of forwarders are held against one in integration/forward/manners.rs.
        let of_pods = |metric: &&str| !metric.starts_with("groundstation_forward_");
        for metric in metrics_of(&expression).filter(of_pods) {
            assert!(there.contains(metric), "{metric} of {expression}");
        }
    }
    let objects = objects();
    let mut scaled = Vec::new();
    all(&objects["HorizontalPodAutoscaler"], "metric", &mut scaled);
    assert_eq!(scaled.len(), 1);
    assert!(there.contains(scaled[0]["name"].as_str().expect("a name")));
    let (_, open) = scrape(&pod, OPENMETRICS).await;
    assert!(names(&open).contains("groundstation_sessions"));
}

#[tokio::test]
async fn the_alerts_do_what_their_tests_say() {
    blocking(|| {
        for arguments in [
            ["check", "rules", "deploy/prometheus/rules.yaml"],
            ["test", "rules", "deploy/prometheus/rules-test.yaml"],
        ] {
            promtool(&arguments, "").unwrap_or_else(|said| panic!("{arguments:?}: {said}"));
        }
    })
    .await;
}

#[tokio::test]
async fn promtool_understands_every_query_of_the_dashboard() {
    let dashboard: Value =
        serde_json::from_str(&text("grafana/groundstation.json")).expect("the dashboard");
    let mut queries = Vec::new();
    all(&dashboard, "expr", &mut queries);
    let rules: Vec<Value> = queries
        .iter()
        .enumerate()
        .map(|(n, query)| {
            let query = query.as_str().expect("text").replace("$__rate_interval", "1m");
            serde_json::json!({"record": format!("panel:{n}"), "expr": query})
        })
        .collect();
    let group = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard-rules.yaml");
    std::fs::write(&file, group.to_string()).expect("a file");
    let arguments = ["check", "rules", file.to_str().expect("text")].map(str::to_owned);
    blocking(move || promtool(&arguments, "")).await.expect("queries promtool understands");
}

#[test]
fn every_alert_is_told_of_in_the_operations_guide() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let guide = std::fs::read_to_string(guide).expect("docs/operations.md");
    let rules = documents("prometheus/rules.yaml").remove(0);
    let mut alerts = Vec::new();
    all(&rules, "alert", &mut alerts);
    for alert in alerts {
        let alert = alert.as_str().expect("a name");
        assert!(guide.contains(&format!("`{alert}`")), "{alert}");
    }
}
