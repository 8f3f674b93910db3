//! A private PostgreSQL and a private nats-server.
//!
//! It owns the folder given to `start`: data, configuration, log, password. Both servers listen on
//! 127.0.0.1 only, on a port of their own, and are ready when `start` returns. Data outlives a
//! restart. No server outlives this process, however it ends (see [`super::supervised`]). It does
//! not touch other servers, and knows nothing of what is stored in its own.
//!
//! Blocking code: call it before the runtime starts or from a blocking thread.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::staging::{Place, Stage, remove_if_there};
use super::supervised::{Launch, StartError, Supervised, await_predecessor};
use super::tools::Tools;

/// What the streams of a private server may reserve together. The server's own default is a part of
/// the free disk, which is no measure here: streams reserve far more than they use.
const MAX_FILE_STORE_BYTES: u64 = 1 << 40;

/// Crash recovery may take this long. A longer limit would hide a hang.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a start is retried while a port or the memory of a killed server is still in use.
const RETRY_LIMIT: Duration = Duration::from_secs(15);
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Texts in the servers' logs after which a retry of the start can help.
const PASSING: [&str; 3] = ["ddress already in use", "is still in use", "in use by another"];
const SUPERUSER: &str = "postgres";

/// A running PostgreSQL. Dropping it stops it.
pub struct Postgres {
    process: Supervised,
    place: Place,
    dir: PathBuf,
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    password: String,
    port: u16,
}

impl Postgres {
    /// Starts the Postgres whose data is in `dir`, after creating it if there is none.
    ///
    /// `settings` go on top of Postgres's own defaults, as in `postgresql.conf`.
    pub fn start(tools: &Tools, dir: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        Self::start_in(tools, dir, settings, &[])
    }

    /// The same, with further variables in the server's environment.
    pub fn start_in(
        tools: &Tools,
        dir: &Path,
        settings: &[(&str, &str)],
        environment: &[(&str, String)],
    ) -> Result<Self> {
        Self::start_filled(tools, dir, settings, environment, initdb)
    }

    /// The same, but a new one begins as a copy of `original`, which must have been stopped in order.
    pub fn start_copy(
        tools: &Tools,
        original: &Self,
        dir: &Path,
        settings: &[(&str, &str)],
        environment: &[(&str, String)],
    ) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        if !dir.join("password").exists() {
            keep_password(dir, &original.password)?;
        }
        let copy = |place: &Place, _: &str| copy_data(original.data(), place);
        Self::start_filled(tools, dir, settings, environment, copy)
    }

    /// `fill` makes the data folder, if there is none.
    fn start_filled(
        tools: &Tools,
        dir: &Path,
        settings: &[(&str, &str)],
        environment: &[(&str, String)],
        fill: impl FnOnce(&Place, &str) -> Result<()>,
    ) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let dir = dir.canonicalize()?;
        let place = Place::settle(tools, &dir)?;
        let password = password(&dir)?;
        match fs::read_to_string(place.data.join("PG_VERSION")) {
            Ok(major) => check_major(major.trim(), tools, &dir)?,
            Err(_) => fill(&place, &password)?,
        }
        let own = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        let settings: Vec<_> = settings.iter().map(own).collect();
        let own = |(name, value): &(&str, String)| ((*name).to_owned(), value.clone());
        let environment: Vec<_> = environment.iter().map(own).collect();
        let (process, port) = launch_postgres(&place, &dir, &settings, &environment, None)?;
        Ok(Self { process, place, dir, settings, environment, password, port })
    }

    /// The superuser's connection URL of a database; a new Postgres has only `postgres`.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// PostgreSQL's own data folder.
    pub fn data(&self) -> &Path {
        &self.place.data
    }

    /// The process id of the postmaster.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Stops it in order: sessions end, and everything is on disk.
    pub fn stop(&mut self) {
        self.process.stop();
    }

    /// Kills it as a crash would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Stops it if it runs and starts it again on the same port with the same data.
    pub fn restart(&mut self) -> Result<()> {
        self.process.stop();
        let port = Some(self.port);
        let (settings, environment) = (&self.settings, &self.environment);
        (self.process, _) = launch_postgres(&self.place, &self.dir, settings, environment, port)?;
        Ok(())
    }
}

/// A running nats-server with JetStream. Dropping it stops it.
pub struct Nats {
    process: Supervised,
    program: PathBuf,
    dir: PathBuf,
    configuration: String,
    port: u16,
}

impl Nats {
    /// Starts the nats-server whose streams are in `dir`. `configuration` is added to its
    /// configuration file, for example `accounts { … }`.
    pub fn start(tools: &Tools, dir: &Path, configuration: &str) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let (dir, program) = (dir.canonicalize()?, tools.nats_server.clone());
        let (process, port) = launch_nats(&program, &dir, configuration, None)?;
        Ok(Self { process, program, dir, configuration: configuration.to_owned(), port })
    }

    /// The URL for clients.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of its streams: for copies while it is stopped.
    pub fn streams(&self) -> PathBuf {
        self.dir.join("jetstream")
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Stops it in order.
    pub fn stop(&mut self) {
        self.process.stop();
    }

    /// Kills it as a crash would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Stops it if it runs and starts it again on the same port with the same streams.
    pub fn restart(&mut self) -> Result<()> {
        self.process.stop();
        let port = Some(self.port);
        (self.process, _) = launch_nats(&self.program, &self.dir, &self.configuration, port)?;
        Ok(())
    }
}

/// Removes `dir` and what was staged elsewhere for a Postgres in it or in one of its folders. Fails
/// while a server still uses it.
pub fn remove_all(dir: &Path) -> Result<()> {
    let Ok(entries) = dir.read_dir() else {
        return remove_if_there(dir);
    };
    let inner = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let inner = inner.filter(|path| path.is_dir() && !path.is_symlink());
    for folder in inner.chain([dir.to_path_buf()]) {
        await_predecessor(&folder.join("data/postmaster.pid"), "postgres")?;
        await_predecessor(&folder.join("nats-server.pid"), "nats-server")?;
        Stage::of(&folder)?.remove()?;
    }
    remove_if_there(dir)
}

fn launch_postgres(
    place: &Place,
    dir: &Path,
    settings: &[(String, String)],
    environment: &[(String, String)],
    port: Option<u16>,
) -> Result<(Supervised, u16)> {
    let pid_file = place.data.join("postmaster.pid");
    let ready = |pid: u32| {
        // Line 1 is the process id, line 8 the state; `pg_ctl` waits for the same.
        let text = fs::read_to_string(&pid_file).ok()?;
        let mut lines = text.lines();
        let current = lines.next()?.trim().parse() == Ok(pid);
        (current && lines.nth(6)?.trim() == "ready").then_some(())
    };
    insist(|| {
        await_predecessor(&pid_file, "postgres")?;
        let port = port.map_or_else(free_port, Ok)?;
        let mut arguments: Vec<OsString> = vec!["-D".into(), place.data.clone().into()];
        let port_text = port.to_string();
        let fixed = [
            ("listen_addresses", "127.0.0.1"),
            ("port", &port_text),
            ("unix_socket_directories", ""),
        ];
        let given = settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in fixed.into_iter().chain(given) {
            arguments.extend(["-c".into(), format!("{name}={value}").into()]);
        }
        let mut process = Supervised::start(Launch {
            name: "PostgreSQL",
            program: place.bin.join("postgres"),
            arguments,
            environment: environment.to_vec(),
            account: place.account,
            signals: "INT QUIT KILL",
            log: dir.join("server.log"),
        })?;
        process.wait_until(START_LIMIT, ready)?;
        Ok((process, port))
    })
}

fn launch_nats(
    program: &Path,
    dir: &Path,
    configuration: &str,
    port: Option<u16>,
) -> Result<(Supervised, u16)> {
    let file = dir.join("nats-server.conf");
    let name = program.file_name().and_then(|name| name.to_str()).unwrap_or("nats-server");
    insist(|| {
        await_predecessor(&dir.join("nats-server.pid"), name)?;
        fs::write(&file, nats_configuration(dir, port, configuration)?)?;
        let mut process = Supervised::start(Launch {
            name: "nats-server",
            program: program.to_path_buf(),
            arguments: vec!["--config".into(), file.clone().into()],
            environment: Vec::new(),
            account: None,
            signals: "TERM KILL",
            log: dir.join("server.log"),
        })?;
        let port = process.wait_until(START_LIMIT, |pid| announced_port(dir, pid))?;
        Ok((process, port))
    })
}

/// Lets the server choose its port unless one is given. The server writes it to a file of its own.
fn nats_configuration(dir: &Path, port: Option<u16>, more: &str) -> Result<String> {
    let port = port.map_or(-1, i32::from);
    let dir = dir.to_str().context("nats-server needs a folder whose name is UTF-8")?;
    let dir = dir.replace('\\', r"\\").replace('"', r#"\""#);
    Ok(format!(
        "listen: \"127.0.0.1:{port}\"\n\
         pid_file: \"{dir}/nats-server.pid\"\n\
         ports_file_dir: \"{dir}\"\n\
         jetstream {{ store_dir: \"{dir}/jetstream\", max_file_store: {MAX_FILE_STORE_BYTES} }}\n\
         {more}\n"
    ))
}

/// The port in the file `<program>_<pid>.ports`.
fn announced_port(dir: &Path, pid: u32) -> Option<u16> {
    let ending = format!("_{pid}.ports");
    let mut names =
        dir.read_dir().ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let file = dir.join(names.find(|name| name.ends_with(&ending))?);
    let port = client_port(&fs::read_to_string(&file).ok()?)?;
    // The server removes it when it stops in order, which is not certain.
    fs::remove_file(file).ok()?;
    Some(port)
}

fn client_port(ports: &str) -> Option<u16> {
    let (_, address) = ports.split_once("://127.0.0.1:")?;
    address.split_once('"')?.0.parse().ok()
}

/// Retries a start while it fails for a temporary reason.
fn insist<T>(start: impl Fn() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    loop {
        let error = match start() {
            Ok(started) => return Ok(started),
            Err(error) => error,
        };
        let log = error.downcast_ref::<StartError>().map_or("", |error| &error.log);
        let passing = PASSING.iter().any(|reason| log.contains(reason));
        if !passing || begun.elapsed() > RETRY_LIMIT {
            return Err(error);
        }
        thread::sleep(RETRY_PAUSE);
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The superuser's password, made on first use.
fn password(dir: &Path) -> Result<String> {
    let file = dir.join("password");
    if let Ok(password) = fs::read_to_string(&file)
        && !password.is_empty()
    {
        return Ok(password);
    }
    let mut random = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let password: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    keep_password(dir, &password)?;
    Ok(password)
}

fn keep_password(dir: &Path, password: &str) -> Result<()> {
    let mut options = File::options();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    Ok(options.open(dir.join("password"))?.write_all(password.as_bytes())?)
}

fn check_major(major: &str, tools: &Tools, dir: &Path) -> Result<()> {
    let found = tools.postgres_version;
    if major == found.0.to_string() {
        return Ok(());
    }
    bail!(
        "{} holds data of PostgreSQL {major}, but {} is {found}: name a PostgreSQL {major} in \
         GROUNDSTATION_POSTGRES_BIN, or start afresh",
        dir.display(),
        tools.postgres_bin.display(),
    )
}

/// Makes the data folder, completely or not at all.
fn initdb(place: &Place, password: &str) -> Result<()> {
    let unfinished = place.folder_for_initdb()?;
    // The pipe belongs to the shell, so that the account may open it by name.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", r#"cat | "$@" --pwfile=/dev/stdin"#, "initdb"]);
    command.arg(place.bin.join("initdb")).arg("-D").arg(&unfinished);
    command.args(["-U", SUPERUSER, "--encoding=UTF8", "--locale=C", "--auth=scram-sha-256"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.env("LC_ALL", "C").current_dir("/");
    if let Some(account) = place.account {
        account.apply(&mut command);
    }
    let mut child = command.spawn().context("cannot run initdb")?;
    let written = child.stdin.take().map(|mut stdin| writeln!(stdin, "{password}"));
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("initdb failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    written.transpose().context("initdb took no password")?;
    fs::rename(&unfinished, &place.data)?;
    Ok(())
}

/// Copies the data folder of a stopped server, completely or not at all.
fn copy_data(original: &Path, place: &Place) -> Result<()> {
    let unfinished = place.folder_for_initdb()?;
    let mut command = Command::new("cp");
    command.arg("-R").arg(original.join(".")).arg(&unfinished).current_dir("/");
    if let Some(account) = place.account {
        account.apply(&mut command);
    }
    let output = command.stdin(Stdio::null()).output().context("cannot run cp")?;
    if !output.status.success() {
        bail!("the data was not copied: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    fs::rename(&unfinished, &place.data)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_file_tells_the_clients_port() {
        let ports = r#"{"nats":["nats://127.0.0.1:40211"],"monitoring":["http://127.0.0.1:8222"]}"#;
        assert_eq!(client_port(ports), Some(40211));
        assert_eq!(client_port(r#"{"nats":["nats://127.0.0.1:402"#), None);
        assert_eq!(client_port(""), None);
    }

    #[test]
    fn the_nats_configuration_survives_odd_folder_names() -> Result<()> {
        let text = nats_configuration(Path::new("/tmp/a \"b\""), None, "debug: true")?;
        assert!(text.contains(r#"store_dir: "/tmp/a \"b\"/jetstream""#));
        assert!(text.starts_with("listen: \"127.0.0.1:-1\"\n") && text.ends_with("debug: true\n"));
        Ok(())
    }

    #[test]
    fn a_start_is_tried_again_only_for_a_reason_that_passes() {
        let tries = std::cell::Cell::new(0);
        let failed: Result<()> = insist(|| {
            tries.set(tries.get() + 1);
            bail!("the disk is full")
        });
        assert!(failed.is_err());
        assert_eq!(tries.get(), 1);
    }
}
