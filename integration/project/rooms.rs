//! The code has the structure that ARCHITECTURE.md draws: imports run downwards through the rooms, nothing goes in a
//! circle, and its "nevers" hold.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the program by its module, `room::…::file`, without its tests and comments.
fn modules() -> BTreeMap<String, String> {
    let mut modules = BTreeMap::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                modules.insert(module_of(&path), code_of(&path));
            }
        }
    }
    modules
}

fn module_of(path: &Path) -> String {
    let inside: PathBuf = path.strip_prefix(root().join("src")).expect("in src").with_extension("");
    inside
        .components()
        .map(|part| part.as_os_str().to_string_lossy())
        .collect::<Vec<_>>()
        .join("::")
}

fn code_of(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("a file");
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The paths within the program that a text names, after `prefix`.
fn named<'a>(code: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    code.split(prefix).skip(1).map(|rest| {
        let end = rest.find(|c: char| {
            !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == ':')
        });
        rest[..end.unwrap_or(rest.len())].trim_end_matches(':')
    })
}

fn room_of(module: &str) -> &str {
    module.split("::").next().unwrap_or(module)
}

/// What each room may use, as ARCHITECTURE.md says it.
fn drawn() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let words = |cell: &str| -> BTreeSet<String> {
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let rooms = rows.filter_map(|row| {
        let cells: Vec<&str> = row.split('|').collect();
        let [_, room, _, uses, _] = cells[..] else { return None };
        Some((words(room).pop_first()?, words(uses)))
    });
    rooms.collect()
}

/// The rooms that each room uses, with a module that does so.
fn used(modules: &BTreeMap<String, String>) -> BTreeMap<(String, String), String> {
    let mut used = BTreeMap::new();
    for (module, code) in modules {
        for path in named(code, "crate::") {
            let (from, to) = (room_of(module), room_of(path));
            if from != to && from != "main" && from != "lib" {
                used.insert((from.to_owned(), to.to_owned()), module.clone());
            }
        }
    }
    used
}

#[test]
fn rooms_use_what_the_drawing_says_and_nothing_else() {
    let (modules, drawn) = (modules(), drawn());
    let rooms: BTreeSet<&str> = modules.keys().map(|module| room_of(module)).collect();
    let known: BTreeSet<&str> = drawn.keys().map(String::as_str).chain(["main", "lib"]).collect();
    assert_eq!(rooms, known, "the rooms of the drawing");
    let used = used(&modules);
    for ((from, to), module) in &used {
        assert!(drawn[from].contains(to), "{module} uses {to}, which {from} may not");
    }
    for (from, uses) in &drawn {
        for to in uses {
            let pair = (from.clone(), to.clone());
            assert!(used.contains_key(&pair), "{from} does not use {to}: the drawing says it");
        }
    }
}

#[test]
fn the_tests_are_in_the_rooms_of_the_drawing() {
    // What belongs to no room: the foundation of all tests, the many faults at once, and the project around the
    // program.
    const BESIDE: [&str; 4] = ["drills", "harness", "nemesis", "project"];
    let drawn = drawn();
    for entry in std::fs::read_dir(root().join("integration")).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let is_room = drawn.contains_key(&name) || BESIDE.contains(&name.as_str());
        assert!(is_room || name == "main", "integration/{name} is no room");
    }
}

#[test]
fn rooms_are_drawn_from_the_top_down() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let drawn = drawn();
    let place =
        |room: &str| text.find(&format!("\n| `{room}` |")).unwrap_or_else(|| panic!("{room}"));
    for (from, uses) in &drawn {
        for to in uses {
            assert!(place(from) < place(to), "{from} uses {to}, which stands above it");
        }
    }
}

/// The modules that a module uses: those it names from the root, and those it names relative to itself.
fn edges(modules: &BTreeMap<String, String>) -> BTreeMap<&str, BTreeSet<&str>> {
    let longest = |path: &str| -> Option<&str> {
        let parts: Vec<&str> = path.split("::").collect();
        (1..=parts.len()).rev().find_map(|n| {
            modules.get_key_value(&parts[..n].join("::")).map(|(module, _)| module.as_str())
        })
    };
    let mut edges = BTreeMap::new();
    for (module, code) in modules {
        let mut to: BTreeSet<&str> = named(code, "crate::").filter_map(longest).collect();
        let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
        for path in named(code, "super::") {
            to.extend(longest(&format!("{parent}::{path}")));
        }
        to.remove(module.as_str());
        edges.insert(module.as_str(), to);
    }
    edges
}

#[test]
fn no_module_uses_itself_by_way_of_others() {
    fn walk<'a>(
        at: &'a str,
        edges: &BTreeMap<&'a str, BTreeSet<&'a str>>,
        path: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) {
        if let Some(from) = path.iter().position(|module| *module == at) {
            panic!("a circle: {:?}", &path[from..]);
        }
        if done.contains(at) {
            return;
        }
        path.push(at);
        for next in edges.get(at).into_iter().flatten() {
            walk(next, edges, path, done);
        }
        path.pop();
        done.insert(at);
    }
    let modules = modules();
    let (edges, mut done) = (edges(&modules), BTreeSet::new());
    for module in edges.keys() {
        walk(module, &edges, &mut Vec::new(), &mut done);
    }
}

#[test]
fn the_rules_wait_for_nothing_and_reach_nothing() {
    let reaches = [
        "tokio",
        "async",
        "std::net",
        "std::fs",
        "std::thread",
        "tokio_postgres",
        "async_nats",
        "SystemTime::now",
        "Instant::now",
        "now_utc",
    ];
    for (module, code) in modules().iter().filter(|(module, _)| room_of(module) == "domain") {
        for reach in reaches {
            assert!(!code.contains(reach), "{module} has {reach}");
        }
    }
}

#[test]
fn only_the_log_names_its_table() {
    for (module, code) in modules().iter().filter(|(module, _)| room_of(module) != "log") {
        assert!(!code.contains("entity_transitions"), "{module} names the log's table");
    }
}

/// The Markdown files of the project.
fn documents() -> Vec<PathBuf> {
    let mut documents = Vec::new();
    for folder in ["", "docs", "docs/adr", "docs/internals"] {
        for entry in std::fs::read_dir(root().join(folder)).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|extension| extension == "md") {
                documents.push(path);
            }
        }
    }
    documents
}

#[test]
fn what_documents_link_to_is_there() {
    for document in documents() {
        let text = std::fs::read_to_string(&document).expect("a document");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let target = document.parent().expect("a folder").join(file);
            assert!(target.exists(), "{}: {link}", document.display());
        }
    }
}

#[test]
fn the_files_that_documents_name_are_there() {
    for document in documents() {
        let text = std::fs::read_to_string(&document).expect("a document");
        // Records of the past may name what existed then.
        if document.ends_with("CHANGELOG.md") {
            continue;
        }
        for name in text.split('`').skip(1).step_by(2) {
            let is_path =
                name.ends_with(".rs") && name.contains('/') && !name.contains(['*', '<', ' ']);
            let places = ["", "src", "docs"].map(|folder| root().join(folder).join(name));
            assert!(
                !is_path || places.iter().any(|place| place.exists()),
                "{}: {name}",
                document.display()
            );
        }
    }
}
