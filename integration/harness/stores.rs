//! One private Postgres and one private nats-server for the whole test run.
//!
//! Every test gets a database of its own in the one and an account of its own in the other, so that
//! names are those of the contract and no test sees another. The servers end with this process (see
//! `groundstation::dev`), and their folder is removed then, or by the next run.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use groundstation::dev::stores::{Nats, Postgres, remove_all};
use groundstation::dev::tools::Tools;

use super::program;

/// How many tests one run may have.
const ACCOUNTS: usize = 1_000;

/// A database with the schema in it, of which every test gets a copy.
const TEMPLATE: &str = "migrated";

/// Settings that make Postgres fast rather than durable: nothing here survives a power cut anyway.
const POSTGRES_SETTINGS: [(&str, &str); 6] = [
    ("max_connections", "500"),
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("max_wal_size", "1GB"),
    ("autovacuum_naptime", "60min"),
    // As for the sessions of pods: to compile a query of a test costs more than to run it.
    ("jit", "off"),
];

static STORES: OnceLock<Stores> = OnceLock::new();

struct Stores {
    postgres: Postgres,
    nats: Nats,
    password: String,
    folder: PathBuf,
    given: AtomicUsize,
    /// The lock that tells other runs that this one lives.
    _lock: File,
}

/// One test's share of the servers.
pub struct Share {
    /// The URL of a database of this test alone, as its owner.
    pub database_url: String,
    /// The URL of a NATS account of this test alone.
    pub nats_url: String,
}

/// A share with the schema in its database. Blocking.
pub fn share() -> Share {
    take(Some(TEMPLATE))
}

/// A share whose database is empty. Blocking.
pub fn share_without_schema() -> Share {
    take(None)
}

/// Starts a nats-server that one test may kill. Blocking.
pub fn own_nats() -> Nats {
    own_nats_with("")
}

/// Starts a nats-server with a configuration of the test. Blocking.
pub fn own_nats_with(configuration: &str) -> Nats {
    let stores = stores();
    let n = stores.given.fetch_add(1, Ordering::Relaxed);
    start_nats(&stores.folder.join(format!("nats-{n}")), configuration)
}

/// Starts a nats-server of any version with any configuration. Blocking.
pub fn nats_of(tools: &Tools, configuration: &str) -> Nats {
    nats_in(tools, |_| configuration.to_owned())
}

/// The same with a configuration that names the server's folder. Blocking.
pub fn nats_in(tools: &Tools, configuration: impl FnOnce(&Path) -> String) -> Nats {
    let stores = stores();
    let n = stores.given.fetch_add(1, Ordering::Relaxed);
    let folder = stores.folder.join(format!("nats-{n}"));
    let configuration = configuration(&folder);
    Nats::start(tools, &folder, &configuration).expect("a private nats-server")
}

/// Starts a Postgres that one test may spoil; returns the URL of a database with the schema too. Blocking.
pub fn own_postgres() -> (Postgres, String) {
    own_postgres_in(&[])
}

/// The same with extra environment variables. Blocking.
pub fn own_postgres_in(environment: &[(&str, String)]) -> (Postgres, String) {
    let stores = stores();
    let n = stores.given.fetch_add(1, Ordering::Relaxed);
    let folder = stores.folder.join(format!("postgres-{n}"));
    let postgres = copy_of(migrated(), &folder, &[], environment);
    let url = postgres.url(TEMPLATE);
    (postgres, url)
}

/// Starts a Postgres of any version; returns the URL of a database with the schema too. Blocking.
pub fn postgres_of_version(tools: &Tools) -> (Postgres, String) {
    let stores = stores();
    let n = stores.given.fetch_add(1, Ordering::Relaxed);
    let folder = stores.folder.join(format!("postgres-{n}"));
    let postgres = Postgres::start(tools, &folder, &POSTGRES_SETTINGS).expect("a private Postgres");
    create_database(&postgres, TEMPLATE, None);
    let url = postgres.url(TEMPLATE);
    let migrated = program::migrate(&url);
    assert!(migrated.status.success(), "{migrated:?}");
    (postgres, url)
}

/// A stopped Postgres with nothing in it, to be copied: that takes a tenth of the time of `initdb`.
fn empty() -> &'static Postgres {
    static EMPTY: OnceLock<Postgres> = OnceLock::new();
    EMPTY.get_or_init(|| {
        let folder = stores().folder.join("postgres-empty");
        let mut postgres =
            Postgres::start(&tools(), &folder, &POSTGRES_SETTINGS).expect("a private Postgres");
        postgres.stop();
        postgres
    })
}

/// The same with the schema in [`TEMPLATE`].
fn migrated() -> &'static Postgres {
    static MIGRATED: OnceLock<Postgres> = OnceLock::new();
    MIGRATED.get_or_init(|| {
        let folder = stores().folder.join("postgres-migrated");
        let mut postgres = copy_of(empty(), &folder, &[], &[]);
        create_database(&postgres, TEMPLATE, None);
        let migrated = program::migrate(&postgres.url(TEMPLATE));
        assert!(migrated.status.success(), "{migrated:?}");
        postgres.stop();
        postgres
    })
}

fn copy_of(
    original: &Postgres,
    folder: &Path,
    settings: &[(&str, &str)],
    environment: &[(&str, String)],
) -> Postgres {
    let settings = [&POSTGRES_SETTINGS, settings].concat();
    Postgres::start_copy(&tools(), original, folder, &settings, environment)
        .expect("a private Postgres")
}

/// A program that comes with PostgreSQL, with the environment it needs.
pub fn postgres_program(name: &str) -> Command {
    // PATH may have links to some of them only.
    let postgres = tools().postgres_bin.join("postgres").canonicalize().expect("PostgreSQL");
    let mut command = Command::new(postgres.with_file_name(name));
    command.env("LC_ALL", "C");
    command
}

/// Starts a fresh Postgres on a base backup and the segments of WAL received after it, whole or not;
/// returns the URL in it of the database that had `url` too. Blocking.
pub fn postgres_of(base: &Path, wal: &Path, url: &str) -> (Postgres, String) {
    const COPY: &str = r#"
        owner=$(ls -ldn "$3" | awk '{ print $3 ":" $4 }')
        rm -rf "$3"/* && cp -R "$1"/. "$3" || exit 1
        for segment in "$2"/*; do
            name=${segment##*/}
            cp "$segment" "$3/pg_wal/${name%.partial}" || exit 1
        done
        chmod 700 "$3" && chown -R "$owner" "$3""#;
    let stores = stores();
    let n = stores.given.fetch_add(1, Ordering::Relaxed);
    let folder = stores.folder.join(format!("postgres-{n}"));
    let start = || copy_of(empty(), &folder, &[], &[]);
    let mut fresh = start();
    fresh.stop();
    let copied =
        Command::new("/bin/sh").args(["-c", COPY, "copy"]).args([base, wal, fresh.data()]).status();
    assert!(copied.expect("/bin/sh").success(), "the backup can be copied");
    drop(fresh);
    let restored = start();
    // Roles and their passwords are those of the backup.
    let (server, database) = url.rsplit_once('/').expect("a database");
    let (account, _) = server.rsplit_once(':').expect("a port");
    let url = format!("{account}:{}/{database}", restored.port());
    (restored, url)
}

/// Stores whose users have the rights of files such as those in `deploy/`.
pub struct Rights {
    /// The database's URL as the pods' login.
    pub pod_database_url: String,
    /// The same as the migrator.
    pub migrator_database_url: String,
    /// The same as the superuser.
    pub superuser_url: String,
    /// Host and port of the nats-server.
    pub nats_address: String,
    /// The password of every user of both.
    pub password: String,
    /// The server lives as long as these stores.
    _postgres: Postgres,
}

/// Starts a nats-server with this configuration, and a Postgres in which `roles` ran before the migrator's
/// role migrated the schema. Blocking.
pub fn with_rights(nats: &str, roles: &str, password: String) -> (Nats, Rights) {
    let stores = stores();
    let n = stores.given.fetch_add(1, Ordering::Relaxed);
    let folder = stores.folder.join(format!("postgres-{n}"));
    let postgres = copy_of(empty(), &folder, &[], &[]);
    create_database(&postgres, TEMPLATE, None);
    let superuser_url = postgres.url(TEMPLATE);
    let mut client =
        postgres::Client::connect(&superuser_url, postgres::NoTls).expect("the superuser");
    client.batch_execute(roles).expect("the roles");
    client.batch_execute(roles).expect("the roles, once more");
    let address = superuser_url.split_once('@').expect("a URL with a password").1.to_owned();
    let url = |role: &str| format!("postgres://{role}:{password}@{address}");
    for role in ["groundstation_migrator", "groundstation_pod"] {
        client
            .batch_execute(&format!("alter role {role} password '{password}'"))
            .expect("a password");
    }
    let migrator_database_url = url("groundstation_migrator");
    let migrated = program::migrate(&migrator_database_url);
    assert!(migrated.status.success(), "{migrated:?}");
    let nats = own_nats_with(nats);
    let nats_address = nats.url();
    let pod_database_url = url("groundstation_pod");
    let rights = Rights {
        pod_database_url,
        migrator_database_url,
        superuser_url,
        nats_address,
        password,
        _postgres: postgres,
    };
    (nats, rights)
}

/// Starts a Postgres and a standby of it. Commits wait for the standby where `synchronous` is `*`. The URL
/// names both and means the one that takes writes. Blocking.
pub fn replicated_postgres(synchronous: &str) -> (Postgres, Postgres, String) {
    let stores = stores();
    let n = stores.given.fetch_add(1, Ordering::Relaxed);
    let folder = |name: &str| stores.folder.join(format!("{name}-{n}"));
    let names = [("synchronous_standby_names", synchronous)];
    let primary = copy_of(migrated(), &folder("primary"), &names, &[]);
    let url = primary.url(TEMPLATE);
    let password = url.split(['@', ':']).nth(2).expect("a password").to_owned();
    let port = primary.port();
    let from = format!("host=127.0.0.1 port={port} user=postgres password={password}");
    let mut standby = copy_of(migrated(), &folder("standby"), &[("primary_conninfo", &from)], &[]);
    standby.stop();
    // The data of a stopped server is a base backup. What this copy wrote as a server of its own goes.
    const COPY: &str =
        r#"rm -rf "$2"/* && cp -a "$1"/. "$2" && cp -p "$2"/PG_VERSION "$2"/standby.signal"#;
    let copied = Command::new("/bin/sh")
        .args(["-c", COPY, "copy"])
        .args([migrated().data(), standby.data()])
        .status();
    assert!(copied.expect("/bin/sh").success(), "the data can be copied");
    standby.restart().expect("a standby");
    let both = format!("127.0.0.1:{port},127.0.0.1:{}", standby.port());
    let url = url.replace(&format!("127.0.0.1:{port}"), &both);
    (primary, standby, format!("{url}?target_session_attrs=read-write"))
}

/// Promotes a standby, so that it takes writes. Blocking.
pub fn promote(standby: &Postgres, url_of_both: &str) {
    let password = url_of_both.split(['@', ':']).nth(2).expect("a password");
    let url = format!("postgres://postgres:{password}@127.0.0.1:{}/{TEMPLATE}", standby.port());
    let mut client = postgres::Client::connect(&url, postgres::NoTls).expect("the standby");
    let promoted = client.query_one("select pg_promote(true, 30)", &[]).expect("pg_promote");
    assert!(promoted.get::<_, bool>(0), "the standby was not promoted");
}

fn take(template: Option<&str>) -> Share {
    let stores = stores();
    let n = stores.given.fetch_add(1, Ordering::Relaxed);
    assert!(n < ACCOUNTS, "more than {ACCOUNTS} shares are needed: raise ACCOUNTS");
    let database = format!("test_{n}");
    create_database(&stores.postgres, &database, template);
    let account = format!("//test{n}:{}@", stores.password);
    Share {
        database_url: stores.postgres.url(&database),
        nats_url: stores.nats.url().replacen("//", &account, 1),
    }
}

fn stores() -> &'static Stores {
    STORES.get_or_init(|| {
        let (folder, lock) = run_folder();
        let tools = tools();
        let postgres = Postgres::start(&tools, &folder.join("postgres"), &POSTGRES_SETTINGS)
            .expect("a private Postgres");
        let password = random();
        let nats = start_nats(&folder.join("nats"), &accounts(&password));
        create_database(&postgres, TEMPLATE, None);
        let migrated = program::migrate(&postgres.url(TEMPLATE));
        assert!(migrated.status.success(), "{migrated:?}");
        Stores { postgres, nats, password, folder, given: AtomicUsize::new(0), _lock: lock }
    })
}

fn tools() -> Tools {
    Tools::find(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("run `make tools` first")
}

fn start_nats(folder: &Path, configuration: &str) -> Nats {
    Nats::start(&tools(), folder, configuration).expect("a private nats-server")
}

fn accounts(password: &str) -> String {
    let account = |n: usize| {
        format!(
            "test{n} {{ jetstream: enabled, users: [{{ user: test{n}, password: {password} }}] }}"
        )
    };
    let accounts: Vec<String> = (0..ACCOUNTS).map(account).collect();
    format!("accounts {{\n{}\n}}", accounts.join("\n"))
}

fn create_database(postgres: &Postgres, name: &str, template: Option<&str>) {
    let mut client = postgres::Client::connect(&postgres.url("postgres"), postgres::NoTls)
        .expect("a connection to the private Postgres");
    let template = template.unwrap_or("template0");
    client
        .batch_execute(&format!("create database {name} template {template}"))
        .expect("a database for the test");
}

/// Makes a folder for this run, locked while this process lives. Folders of ended runs are removed.
fn run_folder() -> (PathBuf, File) {
    let here = Path::new(env!("CARGO_TARGET_TMPDIR")).join("integration");
    let all = in_memory().unwrap_or(here);
    fs::create_dir_all(&all).expect("a folder for the runs");
    for entry in all.read_dir().expect("the runs").flatten() {
        let lock = File::open(entry.path().join("lock"));
        // A folder that cannot be removed (its servers are still ending) is left to the next run.
        if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
            remove_all(&entry.path()).ok();
        }
    }
    let folder = all.join(random());
    fs::create_dir(&folder).expect("a folder for this run");
    let lock = File::create(folder.join("lock")).expect("a lock file");
    lock.try_lock().expect("a lock nobody else has");
    remove_at_the_end(&folder);
    (folder, lock)
}

/// How much memory the stores of a whole run may take.
const MEMORY_KIB: u64 = 14 << 20;

/// A folder in memory for the runs of this user, where there is plenty: a database of a test is three hundred files,
/// and to make and remove them takes a disk twice as long as the test.
fn in_memory() -> Option<PathBuf> {
    const MEMORY: &str = "/dev/shm";
    let free = Command::new("df").args(["-Pk", MEMORY]).output().ok()?;
    let free = String::from_utf8(free.stdout).ok()?;
    let free: u64 = free.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()?;
    let available = fs::read_to_string("/proc/meminfo").ok()?;
    let available = available.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let available: u64 = available.split_whitespace().next()?.parse().ok()?;
    if free.min(available) < MEMORY_KIB {
        return None;
    }
    let user = fs::metadata(env!("CARGO_TARGET_TMPDIR")).ok()?.uid();
    let folder = Path::new(MEMORY).join(format!("groundstation-integration-{user}"));
    fs::create_dir_all(&folder).ok()?;
    // Any user may make folders there.
    (fs::metadata(&folder).ok()?.uid() == user).then_some(folder)
}

/// Removes the run's folder when this process has ended, however it ends: memory is not to be kept by it.
fn remove_at_the_end(folder: &Path) {
    const GUARD: &str = r#"
        trap '' HUP INT QUIT TERM
        while read -r gone; do :; done
        tries=50
        # Its servers are still ending.
        until rm -rf "$1" 2>/dev/null || [ $tries = 0 ]; do
            tries=$((tries - 1))
            sleep 0.2
        done"#;
    let guard = Command::new("/bin/sh")
        .args(["-c", GUARD, "guard"])
        .arg(folder)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    // The pipe closes when this process ends.
    std::mem::forget(guard.expect("/bin/sh").stdin);
}

/// Random hexadecimal digits. They start with a letter, because NATS takes `1e5` for a number.
pub fn random() -> String {
    format!("r{}", uuid::Uuid::new_v4().simple())
}
