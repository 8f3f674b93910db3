//! `groundstation dev`: everything on one machine, to see that it works.
//!
//! It runs a private Postgres and nats-server under `.groundstation/` ([`stores`]), migrations, one
//! pod, and a dozen demonstration satellites over real WebSockets. They have a past that is made up
//! ([`past`]). Now and then they leave, drop the connection or fall silent. The terminal shows which
//! are online, the edges as they arrive on NATS, and how to go on ([`welcome`]). Ctrl-C leaves no
//! process behind and keeps the data.

use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser};
use futures_util::StreamExt;
use futures_util::future::ready;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clients::agent::{self, Identity, Order};
use crate::clients::client::{Client, Create};
use crate::clients::watch::Seen;
use crate::console::code::Code;
use crate::platform::migrations;
use crate::platform::token;
use crate::platform::units;
use crate::pod;
use crate::pod::config::{Config, ServeArgs};
use crate::registry::satellites::NewSatellite;

mod past;
mod staging;
pub mod stores;
mod supervised;
pub mod tools;
mod view;
mod welcome;

use stores::{Nats, Postgres};
use tools::Tools;
use welcome::Welcome;

/// The folder of all private data.
const FOLDER: &str = ".groundstation";

/// The database's name.
const DATABASE: &str = "groundstation";

/// The demonstration's satellites: name and region.
const SATELLITES: [(&str, &str); 12] = [
    ("amsterdam-1", "eu-west"),
    ("dublin-1", "eu-west"),
    ("frankfurt-1", "eu-west"),
    ("frankfurt-2", "eu-west"),
    ("ashburn-1", "us-east"),
    ("ashburn-2", "us-east"),
    ("montreal-1", "us-east"),
    ("miami-1", "us-east"),
    ("mumbai-1", "ap-south"),
    ("singapore-1", "ap-south"),
    ("singapore-2", "ap-south"),
    ("sydney-1", "ap-south"),
];

/// The demonstration is faster than the field, so that silence shows within seconds.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
const THRESHOLD: Duration = Duration::from_secs(4);

/// How long a satellite of the demonstration is silent: longer than the threshold.
const SILENCE: Duration = Duration::from_secs(9);

/// How long a satellite stays away after it leaves.
const AWAY: Duration = Duration::from_secs(6);

/// How often one satellite gets an order.
const PACE: Duration = Duration::from_millis(2_500);

/// The options of `groundstation dev`.
#[derive(Args)]
pub struct DevArgs {
    /// Forget all earlier data and start over
    #[arg(long)]
    fresh: bool,

    /// Address and port for HTTP and WebSockets; a free port is taken where 8080 is in use
    #[arg(
        long,
        env = "GROUNDSTATION_LISTEN",
        default_value = "127.0.0.1:8080",
        value_name = "ADDRESS"
    )]
    listen: SocketAddr,

    /// End by itself after this long
    #[arg(long, value_name = "DURATION", value_parser = |text: &str| units::duration("--duration", text))]
    duration: Option<Duration>,
}

/// The demonstration's satellites and their tokens, kept between runs.
#[derive(Serialize, Deserialize)]
struct Demonstration {
    admin_token: String,
    satellites: Vec<Member>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Member {
    id: Uuid,
    token: String,
}

/// Runs `groundstation dev` until Ctrl-C. It blocks: it starts and stops the stores around a
/// runtime.
pub fn run(args: &DevArgs) -> anyhow::Result<()> {
    let here = std::env::current_dir().context("cannot tell the current folder")?;
    let folder = here.join(FOLDER);
    if args.fresh {
        stores::remove_all(&folder).context("cannot remove the earlier data")?;
    }
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let tools = Tools::find(&here)?;
    eprintln!(
        "starting a private Postgres {} and nats-server in {FOLDER}/",
        tools.postgres_version
    );
    let mut postgres = Postgres::start(&tools, &folder.join("postgres"), &[])?;
    let mut nats = Nats::start(&tools, &folder.join("nats"), "")?;
    create_database(&postgres)?;
    let address =
        crate::platform::database::Address::parse("the private database", &postgres.url(DATABASE))?;
    let migrated = migrations::migrate(&address, None)?;
    eprintln!("the schema is at version {}", migrated.version);
    crate::platform::logging::start_file(&folder.join("pod.log"))?;

    let mut demonstration = Demonstration::load(&folder)?;
    let mut past = 0;
    if demonstration.satellites.is_empty() {
        demonstration.satellites = new_members()?;
        // Before the past: a satellite whose token nobody knows could never connect.
        demonstration.save(&folder)?;
        past = past::make(&address, &demonstration.satellites)?;
    }
    let (code, text) = Code::make()?;
    let config = Config { sign_in: Some(code), ..config(args, &postgres, &nats, &demonstration)? };
    let welcome = Welcome::new(&folder, nats.url(), &demonstration.admin_token, text)?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let ended = runtime.block_on(demonstrate(
        folder.clone(),
        config,
        demonstration,
        past,
        welcome,
        args.duration,
    ));
    runtime.shutdown_timeout(Duration::from_secs(1));
    nats.stop();
    postgres.stop();
    ended?;
    println!("stopped; the data stays in {FOLDER}/ (`groundstation dev --fresh` starts over)");
    Ok(())
}

fn create_database(postgres: &Postgres) -> anyhow::Result<()> {
    let address = crate::platform::database::Address::parse(
        "the private database",
        &postgres.url("postgres"),
    )?;
    let mut client = address.connect_blocking()?;
    let there = client.query("select 1 from pg_database where datname = $1", &[&DATABASE])?;
    if there.is_empty() {
        client.batch_execute(&format!("create database {DATABASE}"))?;
    }
    Ok(())
}

/// The pod's settings, parsed as `serve` parses them.
fn config(
    args: &DevArgs,
    postgres: &Postgres,
    nats: &Nats,
    demonstration: &Demonstration,
) -> anyhow::Result<Config> {
    #[derive(Parser)]
    #[command(no_binary_name = true)]
    struct Serve {
        #[command(flatten)]
        args: ServeArgs,
    }
    let listen = free_address(args.listen)?.to_string();
    let database = postgres.url(DATABASE);
    let nats = nats.url();
    let interval = format!("{}ms", HEARTBEAT_INTERVAL.as_millis());
    let threshold = format!("{}ms", THRESHOLD.as_millis());
    let arguments = [
        ("--database-url", database.as_str()),
        ("--nats-url", nats.as_str()),
        ("--listen", listen.as_str()),
        ("--admin-token", demonstration.admin_token.as_str()),
        ("--pod", "dev"),
        ("--heartbeat-interval", interval.as_str()),
        ("--offline-threshold", threshold.as_str()),
        ("--sweep-interval", "500ms"),
        // No other satellites connect here.
        ("--drain-delay", "0s"),
        ("--drain-spread", "1s"),
    ];
    let arguments = arguments.iter().map(|(name, value)| format!("{name}={value}"));
    Serve::try_parse_from(arguments)?.args.check()
}

/// The requested address, or a free port on its host if it is in use.
fn free_address(asked: SocketAddr) -> anyhow::Result<SocketAddr> {
    match std::net::TcpListener::bind(asked) {
        Ok(_) => Ok(asked),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            Ok(SocketAddr::new(asked.ip(), 0))
        }
        Err(error) => bail!("cannot listen on {asked}: {error}"),
    }
}

/// Ids and tokens for all satellites.
fn new_members() -> anyhow::Result<Vec<Member>> {
    let member = |_: &_| {
        let token = token::generate()?.expose_secret().to_owned();
        Ok(Member { id: Uuid::new_v4(), token })
    };
    SATELLITES.iter().map(member).collect()
}

/// A satellite of the demonstration, by which tag it is known.
fn new_satellite(name: &str, region: &str) -> NewSatellite {
    NewSatellite {
        name: name.to_owned(),
        region: region.to_owned(),
        tags: [("demonstration".to_owned(), "yes".to_owned())].into(),
        offline_threshold_ms: None,
    }
}

impl Demonstration {
    fn path(folder: &Path) -> PathBuf {
        folder.join("demonstration.json")
    }

    /// The data of an earlier run, or new data without satellites.
    fn load(folder: &Path) -> anyhow::Result<Demonstration> {
        match std::fs::read(Demonstration::path(folder)) {
            Ok(json) => serde_json::from_slice(&json)
                .context("demonstration.json is damaged: `groundstation dev --fresh` starts over"),
            Err(_) => Ok(Demonstration {
                admin_token: token::generate()?.expose_secret().to_owned(),
                satellites: Vec::new(),
            }),
        }
    }

    /// Keeps the data for the next run; only the owner can read it.
    fn save(&self, folder: &Path) -> anyhow::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(Demonstration::path(folder)).context("demonstration.json")?;
        serde_json::to_writer_pretty(file, self).context("demonstration.json")
    }

    /// Registers the satellites that are not registered yet.
    fn register(&mut self, client: &Client) -> anyhow::Result<()> {
        let known: Vec<Uuid> = client.list(&[])?.iter().map(|satellite| satellite.id).collect();
        self.satellites.retain(|member| known.contains(&member.id));
        for (name, region) in SATELLITES.iter().skip(self.satellites.len()) {
            let tags = new_satellite(name, region).tags;
            let created =
                client.create(&Create { name, region, tags, offline_threshold_ms: None })?;
            self.satellites.push(Member { id: created.satellite.id, token: created.token });
        }
        Ok(())
    }
}

async fn demonstrate(
    folder: PathBuf,
    config: Config,
    mut demonstration: Demonstration,
    past: i64,
    welcome: Welcome,
    duration: Option<Duration>,
) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let (listening, address) = oneshot::channel();
    let nats = config.nats.clone();
    let pod = tokio::spawn(pod::run(config, stop.clone().cancelled_owned(), move |address| {
        if listening.send(address).is_err() {
            tracing::debug!("the address is no longer needed");
        }
    }));
    let Ok(address) = address.await else {
        pod.await??;
        bail!("the pod ended by itself");
    };
    let client =
        Client::new(&format!("http://{address}"), demonstration.admin_token.clone().into());
    let registrar = client.clone();
    let members = tokio::task::spawn_blocking(move || {
        demonstration.register(&registrar)?;
        demonstration.save(&folder)?;
        anyhow::Ok(demonstration.satellites)
    })
    .await??;

    let triggers =
        crate::clients::watch::triggers(nats.connect("groundstation dev").await?).await?;
    // The past arrives there too, as the relay publishes it.
    let is_of_now = move |seen: &anyhow::Result<Seen>| {
        ready(!matches!(seen, Ok(seen) if seen.position <= past))
    };
    let triggers = triggers.filter(is_of_now);
    let mut flight = JoinSet::new();
    let orders = launch(&mut flight, &members, address);
    let interrupted = crate::platform::shutdown::signal()?;
    let over = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    let welcome = welcome.lines(address);
    let shown = tokio::select! {
        shown = view::show(&welcome, address, client, triggers) => shown,
        () = act(&orders) => Ok(()),
        () = interrupted => Ok(()),
        () = over => Ok(()),
    };
    // The pod stops first. A draining pod makes no edges of its goodbyes, so the satellites are
    // taken over when they come back.
    stop.cancel();
    let drained = pod.await?;
    drop(orders);
    flight.shutdown().await;
    drained.and(shown)
}

fn launch(
    flight: &mut JoinSet<()>,
    members: &[Member],
    address: SocketAddr,
) -> Vec<mpsc::Sender<Order>> {
    let mut orders = Vec::with_capacity(members.len());
    for member in members {
        let identity = Identity {
            url: format!("ws://{address}/api/ws/satellite"),
            id: member.id,
            token: SecretString::from(member.token.clone()),
            heartbeat_interval: HEARTBEAT_INTERVAL,
            longest_pause: agent::LONGEST_PAUSE,
            capabilities: vec!["demonstration".to_owned()],
            from: None,
        };
        let (order, told) = mpsc::channel(1);
        orders.push(order);
        flight.spawn(agent::run(identity, told, |happening| {
            tracing::debug!(?happening, "demonstration satellite");
        }));
    }
    orders
}

/// Gives one satellite an order now and then, for ever.
async fn act(orders: &[mpsc::Sender<Order>]) {
    let kinds = [Order::FallSilent(SILENCE), Order::Leave(AWAY), Order::Drop];
    for kind in kinds.iter().cycle() {
        tokio::time::sleep(PACE).await;
        // A satellite that has not carried out its last order keeps that one.
        if let Some(order) = fastrand::choice(orders)
            && order.try_send(*kind).is_err()
        {
            tracing::debug!("a demonstration satellite is busy");
        }
    }
}
