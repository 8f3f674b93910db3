//! Two cells and a hub, as docs/scale.md says to configure them.

use std::path::Path;
use std::time::Duration;

use async_nats::{Client, Request, RequestErrorKind};
use groundstation::dev::stores::Nats;
use groundstation::platform::nats::Address;
use serde_json::Value;

use super::cluster::{LONG, Version, free_ports};
use super::fleet::{Fleet, Timing};
use super::pod::{self, Pod};
use super::proxy::Proxy;
use super::stores;
use super::wait::{blocking, within};

/// The account of a cell's pods, whose rights are the business of other tests.
const ACCOUNT: &str =
    "accounts { GROUNDSTATION { jetstream: enabled, users: [{ user: pods, password: pods }] } }";

/// A Groundstation with stores of its own.
pub struct Cell {
    pub name: &'static str,
    pub pod: Pod,
    pub fleet: Fleet,
    /// Between its nats-server and the hub's.
    link: Proxy,
    nats: Nats,
}

/// How a cell is taken away from the hub.
#[derive(Debug, Clone, Copy)]
pub enum Cut {
    /// Its link is cut. Servers before the newest find another way: the hub tells them its own address whatever its
    /// configuration says.
    Link,
    /// Its nats-server is suspended.
    Server,
}

/// Two cells and the hub. Dropping it ends all of them.
pub struct Cells {
    pub cells: [Cell; 2],
    /// A client of the hub that may do everything there.
    pub hub: Client,
    /// The same, as a URL.
    pub hub_url: String,
    _nats: Nats,
}

impl Cells {
    /// Starts them, and waits until the hub has a link to each cell.
    pub async fn start(version: Version, timing: Timing) -> Cells {
        let [port] = free_ports();
        let configuration =
            documented("# hub\n").replace("0.0.0.0:7422", &format!("127.0.0.1:{port}"));
        let nats = start(version, configuration).await;
        let hub_url = nats.url().replacen("//", "//hub:HUB_PASSWORD@", 1);
        let address = Address::parse(&hub_url).expect("an address");
        let hub = address.connect("test").await.expect("a connection to the hub");
        let cells = [
            Cell::start("north", version, timing, port).await,
            Cell::start("south", version, timing, port).await,
        ];
        for cell in &cells {
            cell.expect_link(&hub).await;
        }
        Cells { cells, hub, hub_url, _nats: nats }
    }

    /// Makes a merged stream at the hub.
    pub async fn merge(&self, name: &str) {
        let mut config: Value =
            serde_json::from_str(&documented("{\n  \"name\"")).expect("JSON of docs/scale.md");
        config["name"] = name.into();
        let subject = format!("$JS.API.STREAM.CREATE.{name}");
        let made = self.hub.request(subject, config.to_string().into()).await;
        let made: Value = serde_json::from_slice(&made.expect("an answer").payload).expect("JSON");
        assert!(made.get("error").is_none(), "{made}");
    }
}

impl Cell {
    async fn start(name: &'static str, version: Version, timing: Timing, hub: u16) -> Cell {
        let link = Proxy::to(([127, 0, 0, 1], hub).into()).await;
        let configuration = documented("# cell: north\n")
            .replace("north", name)
            .replace("NORTH", &name.to_uppercase())
            .replace("hub.example:7422", &link.address.to_string());
        let nats = start(version, format!("{ACCOUNT}\n{configuration}")).await;
        let mut fleet = Fleet::with_own_postgres(timing).await;
        fleet.nats_url = nats.url().replacen("//", "//pods:pods@", 1);
        let pod = fleet.plan(name).with("GROUNDSTATION_CELL", name).start().await;
        Cell { name, fleet, pod, link, nats }
    }

    /// Waits until the hub can ask its JetStream.
    async fn expect_link(&self, hub: &Client) {
        const A_MOMENT: Duration = Duration::from_millis(200);
        let subject = format!("$JS.{}.API.CONSUMER.NAMES.none", self.name);
        within(LONG, &format!("the link of {}", self.name), async || {
            // The answer does not pass the link, but that somebody is there to answer is known at the hub.
            let request = Request::new().timeout(Some(A_MOMENT));
            match hub.send_request(subject.clone(), request).await {
                Err(error) if error.kind() == RequestErrorKind::NoResponders => {
                    Err(error.to_string())
                }
                _ => Ok(()),
            }
        })
        .await;
    }

    /// Takes it away from the hub.
    pub fn cut_off(&self, cut: Cut) {
        match cut {
            Cut::Link => self.link.refuse(),
            Cut::Server => pod::signal(self.nats.pid(), "STOP"),
        }
    }

    /// Ends what [`Cell::cut_off`] began.
    pub fn join(&self, cut: Cut) {
        match cut {
            Cut::Link => self.link.admit(),
            Cut::Server => pod::signal(self.nats.pid(), "CONT"),
        }
    }
}

async fn start(version: Version, configuration: String) -> Nats {
    let in_its_folder =
        move |folder: &Path| configuration.replace("/data/nats", &folder.display().to_string());
    blocking(move || stores::nats_in(&version.tools(), in_its_folder)).await
}

/// The file in docs/scale.md that begins like this.
fn documented(beginning: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/scale.md");
    let page = std::fs::read_to_string(page).expect("docs/scale.md");
    let files = page.split("```").skip(1).step_by(2).filter_map(|block| block.split_once('\n'));
    let mut files = files.map(|(_, file)| file).filter(|file| file.starts_with(beginning));
    files.next().unwrap_or_else(|| panic!("docs/scale.md has no file {beginning:?}")).to_owned()
}
