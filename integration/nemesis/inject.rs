//! Each fault's two halves: how it begins and how it ends.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::{self, stream::Stream};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::cast::{Kind, Member};
use super::checker::Run;
use super::fault::{Fault, PODS, Resource};
use super::plan::Planned;
use super::tails::FOREIGN;
use super::world::signal_all;
use crate::harness::relaying::STREAM;
use crate::harness::{Credentials, Heard, Pod, Satellite};

/// How long one step of a fault may take where it depends on a server.
const STEP: Duration = Duration::from_secs(5);

/// Pause between two tries of an administrator.
const AGAIN: Duration = Duration::from_millis(400);

/// How long it takes until all pods know an administrator's change.
const KNOWN: Duration = Duration::from_secs(3);

/// Pause between two foreign messages.
const FOREIGN_PAUSE: Duration = Duration::from_millis(12);

/// The things a fault takes hold of, each by one fault at a time.
#[derive(Default)]
struct Held(Mutex<HashMap<Resource, Arc<tokio::sync::Mutex<()>>>>);

impl Held {
    fn of(&self, resource: Resource) -> Arc<tokio::sync::Mutex<()>> {
        self.0.lock().expect("what is held").entry(resource).or_default().clone()
    }
}

/// Injects the plan's faults until the plan is over or the run is stopped; returns when every fault has
/// ended. A fault that could not be injected (the server it needs is away) is reported.
pub async fn all(run: &Arc<Run>, plan: &[Planned], length: Duration) {
    let (began, held) = (Instant::now(), Arc::new(Held::default()));
    let mut faults = JoinSet::new();
    for (number, planned) in plan.iter().enumerate() {
        tokio::select! {
            () = sleep_until(began + planned.at) => {}
            () = run.stop.cancelled() => break,
        }
        let (run, held, planned) = (run.clone(), held.clone(), *planned);
        faults.spawn(async move {
            let one = held.of(planned.fault.resource());
            let _one = one.lock().await;
            let open = planned.fault.hampers().map(|what| run.windows.begin(what));
            let lasts = planned.lasts.as_secs_f64();
            run.timeline.say(&format!("> {number}: {} ({lasts:.1} s)", planned.fault));
            let done = inject(&run, planned).await;
            let how = done.err().map(|why| format!(", which did not work: {why}"));
            run.timeline.say(&format!("< {number}: {}{}", planned.fault, how.unwrap_or_default()));
            open.into_iter().for_each(|open| run.windows.end(open));
        });
    }
    tokio::select! {
        () = sleep_until(began + length) => {}
        () = run.stop.cancelled() => {}
    }
    run.stop.cancel();
    run.timeline.say("no more faults: everything heals");
    while let Some(ended) = faults.join_next().await {
        ended.expect("a fault's own hands do not fail");
    }
}

impl Run {
    /// Waits as long as the fault lasts, or until all faults are to end.
    async fn hold(&self, lasts: Duration) {
        tokio::select! {
            () = sleep(lasts) => {}
            () = self.stop.cancelled() => {}
        }
    }
}

async fn inject(run: &Run, Planned { fault, lasts, .. }: Planned) -> Result<(), String> {
    let posts = &run.world.posts;
    match fault {
        Fault::KillPod(p) | Fault::EndPod(p) => {
            let mut pod = posts[p].pod.lock().await;
            if fault == Fault::EndPod(p) && pod.has_ended().is_none() {
                pod.terminate();
                let ended = async {
                    while pod.has_ended().is_none() {
                        sleep(Duration::from_millis(50)).await;
                    }
                };
                // This is longer than a drain may take.
                timeout(Duration::from_secs(30), ended).await.ok();
            }
            kill(&mut pod);
            run.hold(lasts).await;
            posts[p].start_again(&mut pod, &run.timeline).await;
        }
        Fault::StopPod(p) => {
            let pod = posts[p].pod.lock().await;
            signal_all(pod.pid(), "STOP");
            run.hold(lasts).await;
            signal_all(pod.pid(), "CONT");
        }
        Fault::CutDatabase(p) => cut(run, &posts[p].database, lasts).await,
        Fault::CutNats(p) => cut(run, &posts[p].nats, lasts).await,
        Fault::CutLine(p) => cut(run, &posts[p].line, lasts).await,
        Fault::StallDatabase(p) => stall(run, &posts[p].database, lasts).await,
        Fault::StallNats(p) => stall(run, &posts[p].nats, lasts).await,
        Fault::StallLine(p) => stall(run, &posts[p].line, lasts).await,
        Fault::LoseCommits(p) => {
            posts[p].database.lose_commits(3);
            run.hold(lasts).await;
            posts[p].database.lose_commits(0);
        }
        Fault::KillPostgres => {
            run.world.with_postgres(|postgres| postgres.kill()).await;
            run.hold(lasts).await;
            run.world.with_postgres(|postgres| postgres.restart().expect("Postgres")).await;
        }
        Fault::RestartPostgres => {
            run.world.with_postgres(|postgres| postgres.stop()).await;
            run.hold(lasts).await;
            run.world.with_postgres(|postgres| postgres.restart().expect("Postgres")).await;
        }
        Fault::StopPostgres => {
            run.world.with_postgres(|postgres| signal_all(postgres.pid(), "STOP")).await;
            run.hold(lasts).await;
            run.world.with_postgres(|postgres| signal_all(postgres.pid(), "CONT")).await;
        }
        Fault::KillNats => {
            run.world.with_nats(|nats| nats.kill()).await;
            run.hold(lasts).await;
            run.world.with_nats(|nats| nats.restart().expect("nats-server")).await;
        }
        Fault::RestartNats => {
            run.world.with_nats(|nats| nats.stop()).await;
            run.hold(lasts).await;
            run.world.with_nats(|nats| nats.restart().expect("nats-server")).await;
        }
        Fault::StopNats => {
            run.world.with_nats(|nats| signal_all(nats.pid(), "STOP")).await;
            run.hold(lasts).await;
            run.world.with_nats(|nats| signal_all(nats.pid(), "CONT")).await;
        }
        Fault::RestoreNats => return restore_nats(run, lasts).await,
        Fault::Foreign => return foreign(run, lasts).await,
        Fault::Copies => return copies(run).await,
        Fault::Burst => burst(run, lasts).await,
        Fault::LockSatellite(m) => return lock(run, m, "satellites", "id", lasts).await,
        Fault::LockConnection(m) => {
            return lock(run, m, "satellite_connections", "satellite_id", lasts).await;
        }
        Fault::StealLease => return steal_lease(run, lasts).await,
        Fault::LoseTail(count) => return lose_tail(run, count).await,
        Fault::Purge => return purge(run).await,
        Fault::Clock(p, seconds) => {
            posts[p].clock.shift(seconds);
            run.hold(lasts).await;
            posts[p].clock.shift(0);
        }
        Fault::SlowReaders(p) => return slow_readers(run, p, lasts).await,
        Fault::RotateToken(m) => rotate(run, &run.cast[m]).await,
        Fault::Remove(m) => remove(run, &run.cast[m]).await,
        Fault::Threshold(m, threshold) => set_threshold(run, &run.cast[m], threshold).await,
        Fault::Assign(m) => assign(run, &run.cast[m]).await,
    }
    Ok(())
}

/// Fails for a process that has ended, which is no problem.
fn kill(pod: &mut Pod) {
    if pod.has_ended().is_none() {
        pod.kill();
    }
}

async fn cut(run: &Run, link: &crate::harness::Proxy, lasts: Duration) {
    link.refuse();
    run.hold(lasts).await;
    link.admit();
}

async fn stall(run: &Run, link: &crate::harness::Proxy, lasts: Duration) {
    link.stall();
    run.hold(lasts).await;
    link.resume();
}

async fn the_stream(run: &Run) -> Result<(async_nats::Client, Stream), String> {
    let nats = run.world.nats().await.ok_or("NATS is away")?;
    let jetstream = jetstream::new(nats.clone());
    let stream = timeout(STEP, jetstream.get_stream(STREAM)).await;
    let stream = stream.map_err(|_| "no answer of NATS")?.map_err(|error| error.to_string())?;
    Ok((nats, stream))
}

async fn restore_nats(run: &Run, lasts: Duration) -> Result<(), String> {
    let (_, stream) = the_stream(run).await?;
    let sequence = stream.cached_info().state.last_sequence;
    let copy = run.timeline.folder.join("streams");
    let to = copy.clone();
    run.world
        .with_nats(move |nats| {
            nats.stop();
            replace(&nats.streams(), &to);
            nats.restart().expect("nats-server");
        })
        .await;
    run.hold(lasts).await;
    run.facts().is_tampered = true;
    run.world
        .with_nats(move |nats| {
            nats.stop();
            replace(&copy, &nats.streams());
            nats.restart().expect("nats-server");
        })
        .await;
    run.facts().rewind(sequence);
    Ok(())
}

/// Makes a folder a copy of another.
fn replace(from: &Path, to: &Path) {
    let copy = r#"rm -rf "$2" && cp -R "$1" "$2""#;
    let mut command = std::process::Command::new("/bin/sh");
    let status = command.args(["-c", copy, "copy"]).args([from, to]).status();
    assert!(status.expect("/bin/sh").success(), "{} can be copied", from.display());
}

async fn foreign(run: &Run, lasts: Duration) -> Result<(), String> {
    const SUBJECTS: [&str; 4] = ["connected", "disconnected", "heartbeat_lost", "removed"];
    let nats = run.world.nats().await.ok_or("NATS is away")?;
    let until = Instant::now() + lasts;
    let mut rng = fastrand::Rng::with_seed(run.seed);
    while Instant::now() < until && !run.stop.is_cancelled() {
        let subject = format!("satellite.{}", SUBJECTS[rng.usize(..4)]);
        let published = nats.publish(subject, "{}".into());
        timeout(STEP, published).await.map_err(|_| "stuck")?.map_err(|error| error.to_string())?;
        timeout(STEP, nats.flush()).await.ok();
        sleep(FOREIGN_PAUSE).await;
    }
    Ok(())
}

/// Publishes copies of the newest messages, as a program would that forwards what it hears.
async fn copies(run: &Run) -> Result<(), String> {
    let (nats, stream) = the_stream(run).await?;
    let last = stream.cached_info().state.last_sequence;
    for sequence in last.saturating_sub(3)..=last {
        let Ok(Ok(message)) = timeout(STEP, stream.get_raw_message(sequence)).await else {
            continue;
        };
        let mut headers = HeaderMap::new();
        for (name, values) in message.headers.iter() {
            if !name.to_string().starts_with("Nats-") {
                headers.insert(name.clone(), values[0].clone());
            }
        }
        headers.insert(FOREIGN, "copy");
        let published = nats.publish_with_headers(message.subject, headers, message.payload);
        timeout(STEP, published).await.map_err(|_| "stuck")?.map_err(|error| error.to_string())?;
    }
    timeout(STEP, nats.flush()).await.ok();
    Ok(())
}

/// The whole crowd connects and says goodbye, again and again, each time to another pod.
async fn burst(run: &Run, lasts: Duration) {
    let until = Instant::now() + lasts;
    let mut rounds = 0;
    while Instant::now() < until && !run.stop.is_cancelled() {
        let visits = run.crowd.iter().enumerate().map(|(n, credentials)| {
            let line = run.world.posts[(n + rounds) % PODS].line.address;
            timeout(STEP, visit(line, credentials))
        });
        join_all(visits).await;
        rounds += 1;
        sleep(Duration::from_millis(100)).await;
    }
}

async fn visit(line: std::net::SocketAddr, credentials: &Credentials) {
    let Ok(mut satellite) = Satellite::try_open(line).await else { return };
    satellite.authenticate(credentials);
    if matches!(satellite.hear().await, Heard::Message(_)) {
        satellite.send_frame(tokio_tungstenite::tungstenite::Message::Close(None));
        while matches!(satellite.hear().await, Heard::Message(_)) {}
    }
}

async fn lock(
    run: &Run,
    member: usize,
    table: &str,
    column: &str,
    lasts: Duration,
) -> Result<(), String> {
    let id = run.cast[member].id().ok_or("it is not registered")?;
    let sql = run.world.sql().await.ok_or("Postgres is away")?;
    let lock = format!(
        "begin; set local lock_timeout = '4s';
         select 1 from {table} where {column} = '{id}' for update"
    );
    let locked = timeout(STEP, sql.batch_execute(&lock)).await;
    locked.map_err(|_| "no answer")?.map_err(|error| error.to_string())?;
    run.hold(lasts).await;
    let ended = timeout(STEP, sql.batch_execute("rollback")).await;
    ended.map_err(|_| "no answer")?.map_err(|error| error.to_string())
}

async fn steal_lease(run: &Run, lasts: Duration) -> Result<(), String> {
    let sql = run.world.sql().await.ok_or("Postgres is away")?;
    let steal = format!(
        "update relay set holder = 'nobody we know',
                lease_expires_at = clock_timestamp() + interval '{} milliseconds'",
        lasts.as_millis()
    );
    let stolen = timeout(STEP, sql.batch_execute(&steal)).await;
    stolen.map_err(|_| "no answer")?.map_err(|error| error.to_string())?;
    sleep(lasts).await;
    Ok(())
}

/// Deletes the newest messages, one by one from the end. If a message came on top meanwhile they are no
/// longer the newest: the relay may go on, and only an audit names them.
async fn lose_tail(run: &Run, count: u64) -> Result<(), String> {
    let (_nats, mut stream) = the_stream(run).await?;
    let state = stream.cached_info().state.clone();
    let (first, last) = (state.first_sequence, state.last_sequence);
    // Some messages of the service are left: a stream without any looks as if its limits removed them.
    if run.facts().are_on_the_stream(first..last.saturating_sub(count)) < 3 {
        return Err("there is too little on it".to_owned());
    }
    let mut positions = Vec::new();
    run.facts().is_tampered = true;
    for sequence in (last + 1 - count..=last).rev() {
        let Ok(Ok(message)) = timeout(STEP, stream.get_raw_message(sequence)).await else {
            continue;
        };
        let position = message.headers.get("Groundstation-Position");
        let position = position.and_then(|position| position.as_str().parse::<i64>().ok());
        let position = position.filter(|_| message.headers.get(FOREIGN).is_none());
        // Noted before the deletion, because a task that reads meanwhile must not report the gap.
        position.inspect(|position| run.facts().may_go(*position));
        let deleted = timeout(STEP, stream.delete_message(sequence)).await;
        if deleted.is_ok_and(|deleted| deleted.is_ok()) {
            positions.extend(position);
        }
    }
    let now = timeout(STEP, stream.info()).await.ok().and_then(Result::ok);
    let is_newest = now.is_some_and(|info| info.state.last_sequence == last);
    run.timeline.say(&format!(
        "  deleted positions {positions:?}{}",
        if is_newest { "" } else { "; something came on top meanwhile" }
    ));
    run.facts().took(&positions, !is_newest);
    Ok(())
}

/// Deletes all messages. They need not come again, because the stream looks as if its own limits had
/// removed them.
async fn purge(run: &Run) -> Result<(), String> {
    let (_nats, stream) = the_stream(run).await?;
    let state = stream.cached_info().state.clone();
    let mut newest = 0;
    for sequence in (state.first_sequence..=state.last_sequence).rev() {
        let Ok(Ok(message)) = timeout(STEP, stream.get_raw_message(sequence)).await else {
            continue;
        };
        if message.headers.get(FOREIGN).is_none()
            && let Some(position) = message.headers.get("Groundstation-Position")
        {
            newest = position.as_str().parse().expect("a position");
            break;
        }
    }
    run.facts().is_tampered = true;
    let all = stream.purge().sequence(state.last_sequence + 1).into_future();
    let purged = timeout(STEP, all).await;
    run.facts().emptied(newest);
    purged.map_err(|_| "no answer")?.map_err(|error| error.to_string())?;
    Ok(())
}

async fn slow_readers(run: &Run, pod: usize, lasts: Duration) -> Result<(), String> {
    const READERS: usize = 12;
    let address = run.world.posts[pod].address();
    let token = &run.world.fleet.read_token;
    let mut open = Vec::new();
    for _ in 0..READERS {
        let Ok(Ok(mut socket)) = timeout(STEP, TcpStream::connect(address)).await else { continue };
        let request = format!(
            "GET /v1/transitions/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Last-Event-ID: 0\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
        open.push(socket);
    }
    run.hold(lasts).await;
    Ok(())
}

/// Calls until a pod answers that it is done; returns the answer.
async fn insist(run: &Run, method: &str, path: &str, body: Option<&Value>, done: &[u16]) -> Value {
    let mut pod = fastrand::usize(..PODS);
    loop {
        let body = body.map(Value::to_string);
        if let Ok(answer) = run.world.posts[pod].call(method, path, body).await
            && done.contains(&answer.status)
        {
            return serde_json::from_str(&answer.text).unwrap_or_default();
        }
        pod = (pod + 1) % PODS;
        sleep(AGAIN).await;
    }
}

async fn rotate(run: &Run, member: &Member) {
    let Some(id) = member.id() else { return };
    let path = format!("/v1/satellites/{id}/token");
    // After a lost answer the next token is another one.
    let rotated = insist(run, "POST", &path, None, &[200, 201]).await;
    let token = rotated["token"].as_str().expect("a token").to_owned();
    member.state().credentials = Some(Credentials { id, token });
    sleep(KNOWN).await;
}

async fn remove(run: &Run, member: &Member) {
    let Some(id) = member.id() else { return };
    insist(run, "DELETE", &format!("/v1/satellites/{id}"), None, &[204, 404]).await;
    member.becomes(None);
    register(run, member).await;
    sleep(KNOWN).await;
}

/// Registers a member. After a lost answer there is one more satellite, which no member uses.
pub async fn register(run: &Run, member: &Member) {
    let threshold = member.kind.threshold().map(|threshold| threshold.as_millis() as u64);
    let mut description = json!({"name": member.name, "region": "eu"});
    if member.kind == Kind::Patient || member.kind == Kind::Brisk {
        description["offlineThresholdMs"] = json!(threshold);
    }
    let created = insist(run, "POST", "/v1/satellites", Some(&description), &[201]).await;
    let id = created["satellite"]["id"].as_str().expect("an id").parse().expect("a UUID");
    let token = created["token"].as_str().expect("a token").to_owned();
    member.becomes(Some(Credentials { id, token }));
}

async fn set_threshold(run: &Run, member: &Member, threshold: Option<u64>) {
    let Some(id) = member.id() else { return };
    let path = format!("/v1/satellites/{id}");
    let change = json!({"offlineThresholdMs": threshold});
    member.state().life.change_threshold(threshold.map(Duration::from_millis));
    insist(run, "PATCH", &path, Some(&change), &[200, 404]).await;
}

async fn assign(run: &Run, member: &Member) {
    let Some(id) = member.id() else { return };
    let one = |n: u32| {
        json!({"configId": format!("config-{n}"), "systemId": "s",
        "strategyId": "http", "config": {}, "intervalSeconds": 60})
    };
    let list: Vec<Value> = (0..fastrand::u32(1..4)).map(|_| one(fastrand::u32(..))).collect();
    let path = format!("/v1/satellites/{id}/assignments");
    let list = json!({"assignments": list});
    insist(run, "PUT", &path, Some(&list), &[200, 404]).await;
    member.state().assigned = Some(list["assignments"].clone());
}
