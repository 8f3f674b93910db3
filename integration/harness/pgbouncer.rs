//! A PgBouncer in front of a private Postgres. `make test-tools` brings it where it can.
//!
//! Where there is none, a test says so and is skipped. PgBouncer refuses root, so root lets it change to `nobody`. It
//! ends with the test, and when the test's process dies.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::stores::random;

/// Starts the program named by its arguments, and kills it when the pipe is closed.
const GUARD: &str = r#"
exec 2>>"$0"
"$@" </dev/null >/dev/null &
read -r _
kill -s KILL $!
wait $!"#;

/// Where packages put it; it need not be in PATH.
const INSTALLED: &str = "/usr/sbin/pgbouncer";

const ACCOUNT: &str = "nobody";

/// How often a start is tried, and how long one may take.
const STARTS: u32 = 6;
const START: Duration = Duration::from_secs(10);

/// More than two pods ask for.
const DEFAULTS: [(&str, &str); 3] =
    [("pool_mode", "session"), ("default_pool_size", "40"), ("max_client_conn", "500")];

/// Dropping it kills it.
pub struct PgBouncer {
    program: Command,
    /// Configuration, passwords and log.
    folder: PathBuf,
    port: u16,
    /// The server's port, and the login of tests.
    server: u16,
    account: (String, String),
    guard: Option<Child>,
}

impl PgBouncer {
    /// A PgBouncer in front of the server in this URL, and the URL that leads through it; none where there is no
    /// PgBouncer. It pools sessions unless the settings say otherwise.
    pub async fn before(url: &str, settings: &[(&str, &str)]) -> Option<(PgBouncer, String)> {
        let Some(program) = program() else {
            // Only Debian's packages can be brought without root, so no machine is held to it.
            eprintln!("NOT CHECKED: there is no pgbouncer here, see `make test-tools`");
            return None;
        };
        let parsed: tokio_postgres::Config = url.parse().expect("a URL");
        let password = String::from_utf8(parsed.get_password().expect("a password").to_vec());
        let account = (parsed.get_user().expect("a user").to_owned(), password.expect("text"));
        let server = parsed.get_ports()[0];
        // The account has to reach it, and of the project's own folder that is not certain.
        let folder = std::env::temp_dir().join(format!("groundstation-pgbouncer-{}", random()));
        std::fs::create_dir(&folder).expect("a folder");
        let mut pooler = PgBouncer { program, folder, port: 0, server, account, guard: None };
        pooler
            .write("userlist.txt", &format!("\"{}\" \"{}\"\n", pooler.account.0, pooler.account.1));
        for _ in 0..STARTS {
            pooler.port = free_port();
            pooler.configure(settings);
            if pooler.starts().await {
                let through = url.replace(&format!(":{server}/"), &format!(":{}/", pooler.port));
                return Some((pooler, through));
            }
        }
        panic!("PgBouncer does not start");
    }

    /// Gives it other settings, as an operator does beside traffic.
    pub async fn change(&mut self, settings: &[(&str, &str)]) {
        self.configure(settings);
        self.command("RELOAD").await;
    }

    /// Kills it, as a crash does, and starts it again.
    pub async fn restart(&mut self) {
        self.kill();
        for _ in 0..STARTS {
            if self.starts().await {
                return;
            }
        }
        panic!("PgBouncer does not start again");
    }

    /// Its connections to the server that this state of `SHOW SERVERS` names.
    pub async fn servers(&self, state: &str) -> usize {
        let messages = self.console().await.simple_query("SHOW SERVERS").await.expect("servers");
        let has_state = |message: &&SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => row.get("state") == Some(state),
            _ => false,
        };
        messages.iter().filter(has_state).count()
    }

    fn configure(&self, settings: &[(&str, &str)]) {
        let defaults = DEFAULTS.iter().filter(|(name, _)| settings.iter().all(|(n, _)| n != name));
        let lines: String =
            defaults.chain(settings).map(|(name, value)| format!("{name} = {value}\n")).collect();
        let (folder, user) = (self.folder.display(), &self.account.0);
        let configuration = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {}\nunix_socket_dir =\nauth_type = scram-sha-256\n\
             auth_file = {folder}/userlist.txt\nadmin_users = {user}\n\
             logfile = {folder}/pgbouncer.log\n{lines}",
            self.server, self.port
        );
        self.write("pgbouncer.ini", &configuration);
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.join(name), text).expect("a file");
        if is_root() {
            let chown = Command::new("chown").args(["-R", ACCOUNT]).arg(&self.folder).status();
            assert!(chown.expect("chown").success(), "the account cannot be given its files");
        }
    }

    /// Whether it starts. Somebody may have taken its port meanwhile.
    async fn starts(&mut self) -> bool {
        let mut guarded = Command::new("/bin/sh");
        guarded.args(["-c", GUARD]).arg(self.folder.join("errors.log"));
        guarded.arg(self.program.get_program());
        guarded.args(is_root().then_some(["-u", ACCOUNT]).into_iter().flatten());
        guarded.arg(self.folder.join("pgbouncer.ini"));
        guarded.envs(self.program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let guard = guarded.stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        self.guard = Some(guard.expect("/bin/sh"));
        let begun = Instant::now();
        while begun.elapsed() < START {
            if self.try_console().await.is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        eprintln!("PgBouncer does not start: {}", self.log());
        self.kill();
        false
    }

    /// What it has said.
    fn log(&self) -> String {
        let read = |name| std::fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        ["errors.log", "pgbouncer.log"].map(read).concat()
    }

    fn kill(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            guard.wait().expect("the guard ends");
        }
    }

    async fn command(&self, command: &str) {
        self.console().await.simple_query(command).await.expect(command);
    }

    async fn console(&self) -> Client {
        self.try_console().await.expect("its console")
    }

    async fn try_console(&self) -> Result<Client, tokio_postgres::Error> {
        let (user, password) = &self.account;
        let url = format!("postgres://{user}:{password}@127.0.0.1:{}/pgbouncer", self.port);
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- PgBouncer says:\n{}", self.log());
        }
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

/// PgBouncer, with the environment it needs.
fn program() -> Option<Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|folder| folder.join("pgbouncer"));
    let installed = in_path.chain([PathBuf::from(INSTALLED)]).find(|program| program.is_file());
    if let Some(program) = installed {
        return Some(Command::new(program));
    }
    let brought = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/pgbouncer");
    let program = brought.join("usr/sbin/pgbouncer");
    if !program.is_file() {
        return None;
    }
    // Its libraries are in a folder that is named by the machine.
    let libraries = brought.join("usr/lib").read_dir().expect("its libraries");
    let libraries = libraries.map(|entry| entry.expect("a folder").path());
    let libraries: OsString = std::env::join_paths(libraries).expect("names without a colon");
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", libraries);
    Some(command)
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id");
    id.stdout.trim_ascii() == b"0"
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}
