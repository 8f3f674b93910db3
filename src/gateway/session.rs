//! One socket's life, from its first frame to its last edge; what is between is [`super::active_session`].
//!
//! A session says which one it is in everything it does, so whatever it does late changes nothing.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use secrecy::SecretString;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use super::active_session::ActiveSession;
use super::duplex_socket::DuplexSocket;
use super::end::{End, reason};
use super::protocol::{FromSatellite, INVALID_CREDENTIALS, MUST_AUTHENTICATE, Said, ToSatellite};
use super::socket::{Broken, Message, Socket};
use super::{COMPLAINTS_OF_A_SESSION, Gateway, Handshake};
use crate::contract::wire::Actor;
use crate::domain::lifecycle::{Reason, SatelliteId, Session, SessionKey, Signal};
use crate::ingress::refusal::Refusal as Limit;
use crate::log::request::{Closed, Outcome};
use crate::platform::failpoint::stand_still;
use crate::platform::log_gate::Share;
use crate::platform::metrics::Counted;
use crate::registry::credentials::Verdict;
use crate::registry::satellites::AgentInfo;
use crate::sessions::table::{Command, Inbox};

/// How long a connect may wait for the log: longer than the database lets it wait for another pod that
/// stands still, so that only what is really away sends a satellite back to come again. Whoever is let in
/// after an outage has come in the last seconds of it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Close codes (RFC 6455, 7.4, and the agent's own).
const NORMAL: u16 = 1000;
const RESTARTING: u16 = 1012;
const TRY_AGAIN_LATER: u16 = 1013;
const NOT_AUTHENTICATED: u16 = 4001;

/// Runs a socket to its end. Its place at the door is given back once it is authenticated.
///
/// What happens once is boxed: a task is as large as the largest thing it ever waits for, and most of
/// a session's life is [`ActiveSession::hold`].
pub async fn run(mut socket: Socket, gateway: Arc<Gateway>, handshake: Handshake) {
    let counted = Counted::on(&gateway.metrics.handshakes);
    let client = handshake.client;
    let admitted = Box::pin(authenticate(&mut socket, &gateway, &handshake)).await;
    let Admitted { satellite, agent_info, token_version, told } = match admitted {
        Ok(admitted) => admitted,
        Err(refusal) => {
            charge(&gateway, refusal, client);
            tell(&gateway, refusal, client);
            let refused = Box::pin(refuse(socket, &gateway, refusal));
            if !refusal.is_no_try() {
                drop((counted, handshake));
                return refused.await;
            }
            // No budget bounds these: until it is over each has its place, and may lose it.
            return tokio::select! {
                () = refused => {}
                () = handshake.place.shed() => {}
            };
        }
    };
    gateway.door.succeeded(client);
    drop((counted, handshake));
    socket.is_known(Some(satellite));
    let let_in = Box::pin(let_in(DuplexSocket::new(socket), &gateway, satellite));
    let Some((mut socket, session)) = let_in.await else { return };
    stand_still("session::appended").await;
    gateway.metrics.authentication("ok");

    let key = SessionKey { satellite, session };
    let end = match gateway.sessions.enter(key) {
        Some((entered, Inbox { mut commands, desired_state })) => {
            // The append was its first sign of life; only what it said of itself is still to be kept.
            gateway.heartbeats.said(key, agent_info.clone());
            let socket = &mut socket;
            let welcome = ActiveSession::welcome(
                &gateway,
                socket,
                key,
                (agent_info, token_version, told),
                desired_state,
            );
            let welcome = AssertUnwindSafe(Box::pin(welcome)).catch_unwind().await;
            let end = match welcome {
                Ok(Ok(mut active)) => {
                    let held = AssertUnwindSafe(active.hold(socket, &mut commands)).catch_unwind();
                    held.await.unwrap_or(End::Panicked)
                }
                Ok(Err(end)) => end,
                Err(_) => End::Panicked,
            };
            // Out of the table before the end is queued: what comes after it finds nobody.
            drop(entered);
            // It was here until now, and is to find room when it comes back.
            gateway.door.succeeded(client);
            end
        }
        None => End::Told(Command::Superseded),
    };
    if end == End::Panicked {
        error!(%satellite, session = session.0, "a session panicked: its connection is broken off");
    }
    debug!(%satellite, session = session.0, ?end, "session over");
    let goodbye = Box::pin(say_goodbye(socket.into_socket(), end));
    match reason(end) {
        Some(reason) => {
            let ended = Box::pin(disconnect(&gateway, satellite, session, reason));
            tokio::join!(ended, goodbye);
        }
        None => goodbye.await,
    }
}

/// Brings a connect into the log; none where the socket was not let in, and has been told why. Only
/// whoever is there to be let in is: it is listened to as long as that takes.
async fn let_in(
    mut socket: DuplexSocket,
    gateway: &Gateway,
    satellite: SatelliteId,
) -> Option<(DuplexSocket, Session)> {
    let by = Instant::now() + CONNECT_TIMEOUT;
    let taken = tokio::select! {
        biased;
        taken = gateway.log.connect(satellite) => taken.map_err(|Closed| End::Unavailable),
        end = given_up(&mut socket, gateway, by) => Err(end),
    };
    let mut connecting = match taken {
        Ok(connecting) => connecting,
        Err(end) => {
            turn_away(socket.into_socket(), gateway, end).await;
            return None;
        }
    };
    let refusal = tokio::select! {
        biased;
        outcome = connecting.outcome() => match outcome {
            Ok(Outcome::Appended { session, .. }) => return Some((socket, session)),
            // Removed since its token was checked.
            Ok(Outcome::UnknownSatellite) => Refusal::Credentials { claimed: Some(satellite) },
            Ok(Outcome::Nothing(_) | Outcome::Refused | Outcome::Locked) | Err(Closed) => Refusal::Unavailable,
        },
        end = given_up(&mut socket, gateway, by) => {
            connecting.withdraw();
            turn_away(socket.into_socket(), gateway, end).await;
            // It can be in the log all the same: then it is ended there.
            if let Ok(Outcome::Appended { session, .. }) = connecting.outcome().await
                && let Some(reason) = reason(end)
            {
                disconnect(gateway, satellite, session, reason).await;
            }
            return None;
        }
    };
    refuse(socket.into_socket(), gateway, refusal).await;
    None
}

/// Waits until a satellite is not to be let in any more: it has gone, its time is over, or the pod
/// lets nobody in.
async fn given_up(socket: &mut DuplexSocket, gateway: &Gateway, by: Instant) -> End {
    tokio::select! {
        over = socket.over() => match over {
            Ok(()) => End::ClientClose,
            Err(Broken::Violation(code)) => End::Violation(code),
            Err(Broken::Gone) => End::Dropped,
        },
        () = gateway.health.drained() => End::Unavailable,
        () = sleep_until(by) => End::Unavailable,
    }
}

/// Ends a socket that was not let in, after all.
async fn turn_away(socket: Socket, gateway: &Gateway, end: End) {
    let refusal = match end {
        End::ClientClose => {
            gateway.metrics.authentication("gone");
            return socket.answer_close().await;
        }
        End::Violation(code) => Refusal::Violation(code),
        End::Unavailable => Refusal::Unavailable,
        _ => Refusal::Gone,
    };
    refuse(socket, gateway, refusal).await;
}

/// Appends the end of a session.
async fn disconnect(gateway: &Gateway, satellite: SatelliteId, session: Session, reason: Reason) {
    let signal = Signal::Disconnect { session, reason };
    if let Err(closed) = gateway.log.append(satellite, signal, Actor::system()).await {
        warn!(%satellite, session = session.0, %closed, "the end of a session is not in the log");
    }
}

/// Why a socket is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// The first message was something else.
    NotAuthenticate,
    /// Unknown id or wrong token, not told apart.
    Credentials {
        /// Who it says it is, where that could be a satellite's id.
        claimed: Option<SatelliteId>,
    },
    /// It is who it says, and has connected too often lately.
    TooOften {
        /// Which it is.
        satellite: SatelliteId,
    },
    /// No complete first message in time.
    TooLate,
    /// It went away by itself.
    Gone,
    /// The framing is broken: closed with this code.
    Violation(u16),
    /// It said nothing for a while, and its place was given to somebody else.
    Shed,
    /// Nobody can be let in right now.
    Unavailable,
}

impl Refusal {
    /// It had a place, and said nothing that is a try to authenticate.
    fn is_no_try(self) -> bool {
        matches!(self, Refusal::NotAuthenticate | Refusal::Violation(_))
    }
}

/// Who was let in.
struct Admitted {
    satellite: SatelliteId,
    agent_info: AgentInfo,
    /// Which of the satellite's tokens it came with.
    token_version: i64,
    /// What may still be told of what it complains about.
    told: Share,
}

/// Waits for the first message and checks its credentials.
async fn authenticate(
    socket: &mut Socket,
    gateway: &Gateway,
    handshake: &Handshake,
) -> Result<Admitted, Refusal> {
    let deadline = handshake.deadline;
    let first = timeout_at(deadline, first_message(socket));
    let (client_id, token, capabilities) = tokio::select! {
        biased;
        first = first => first.map_err(|_| Refusal::TooLate)??,
        () = handshake.place.shed() => return Err(Refusal::Shed),
        () = gateway.health.drained() => return Err(Refusal::Unavailable),
    };
    handshake.place.is_busy();
    let claimed = Uuid::try_parse(&client_id).ok().map(SatelliteId);
    // A malformed id has no row; it is looked up like any other.
    let id = claimed.unwrap_or(SatelliteId(Uuid::nil()));
    match timeout_at(deadline, gateway.credentials.check(id, &token)).await {
        Ok(Ok(Verdict::Right { token_version, session })) => {
            let mut connects = gateway.connects.lock().unwrap_or_else(PoisonError::into_inner);
            if !connects.connect(id, session, Instant::now()) {
                return Err(Refusal::TooOften { satellite: id });
            }
            drop(connects);
            let mut told = Share::new(COMPLAINTS_OF_A_SESSION);
            let capabilities = gateway.understood(&mut told, id, "capabilities", capabilities);
            let agent_info = AgentInfo { version: None, capabilities };
            Ok(Admitted { satellite: id, agent_info, token_version, told })
        }
        Ok(Ok(Verdict::Wrong)) => Err(Refusal::Credentials { claimed }),
        Ok(Ok(Verdict::Busy)) => Err(Refusal::Unavailable),
        Ok(Err(error)) => {
            // Strangers cause it, as many as there are; who is refused for its credentials is not told then.
            if let Some(left_out) = gateway.refusals.pass(Instant::now()) {
                warn!(error = %format!("{error:#}"), left_out, "cannot check credentials");
            }
            Err(Refusal::Unavailable)
        }
        Err(_) => Err(Refusal::Unavailable),
    }
}

async fn first_message(
    socket: &mut Socket,
) -> Result<(String, SecretString, Option<Said<Vec<String>>>), Refusal> {
    loop {
        return match socket.recv().await {
            None | Some(Ok(Message::Close(_))) => Err(Refusal::Gone),
            Some(Err(Broken::Violation(code))) => Err(Refusal::Violation(code)),
            Some(Err(Broken::Gone)) => Err(Refusal::Gone),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
            Some(Ok(Message::Binary(_))) => Err(Refusal::NotAuthenticate),
            Some(Ok(Message::Text(text))) => match FromSatellite::parse(&text) {
                Ok(FromSatellite::Authenticate { client_id, token, capabilities }) => {
                    Ok((client_id, token, capabilities))
                }
                Ok(_) | Err(_) => Err(Refusal::NotAuthenticate),
            },
        };
    }
}

/// Puts a refusal on the account of its address: a failure where credentials were looked at, a place that
/// was taken for nothing where none came.
fn charge(gateway: &Gateway, refusal: Refusal, address: IpAddr) {
    match refusal {
        Refusal::Credentials { .. } => gateway.door.failed(address),
        Refusal::NotAuthenticate | Refusal::Violation(_) | Refusal::TooLate | Refusal::Gone => {
            gateway.door.silent(address)
        }
        Refusal::TooOften { .. } | Refusal::Shed | Refusal::Unavailable => {}
    }
}

/// Tells operators of a satellite that is refused; no more often than they can read.
fn tell(gateway: &Gateway, refusal: Refusal, address: IpAddr) {
    if !matches!(refusal, Refusal::Credentials { .. } | Refusal::TooOften { .. }) {
        return;
    }
    let Some(left_out) = gateway.refusals.pass(Instant::now()) else { return };
    match refusal {
        Refusal::TooOften { satellite } => warn!(%satellite, %address, left_out,
            "a satellite connects too often: several agents with its credential, or one that does not wait"),
        Refusal::Credentials { claimed: Some(satellite) } => {
            info!(%satellite, %address, left_out, "a satellite was refused: unknown id or wrong token");
        }
        _ => info!(%address, left_out, "a satellite was refused: its id is not a UUID"),
    }
}

async fn refuse(mut socket: Socket, gateway: &Gateway, refusal: Refusal) {
    let (word, message, code) = match refusal {
        Refusal::NotAuthenticate => {
            ("not_authenticate", Some(MUST_AUTHENTICATE), NOT_AUTHENTICATED)
        }
        Refusal::Credentials { .. } => ("refused", Some(INVALID_CREDENTIALS), NOT_AUTHENTICATED),
        // Its connection may be slow: its credentials are not void.
        Refusal::TooLate => ("timeout", None, TRY_AGAIN_LATER),
        Refusal::Gone => ("gone", None, NORMAL),
        Refusal::Violation(code) => ("violation", None, code),
        Refusal::TooOften { .. } => ("too_often", None, TRY_AGAIN_LATER),
        Refusal::Shed => ("shed", None, TRY_AGAIN_LATER),
        Refusal::Unavailable => ("unavailable", None, TRY_AGAIN_LATER),
    };
    gateway.metrics.authentication(word);
    match refusal {
        Refusal::TooLate => gateway.metrics.refused(Limit::AuthenticationTimeout),
        Refusal::TooOften { .. } => gateway.metrics.refused(Limit::ConnectRate),
        _ => {}
    }
    debug!(?refusal, "a socket was not let in");
    if refusal == Refusal::Gone {
        return;
    }
    if let Some(reason) = message
        && send(&mut socket, &ToSatellite::AuthFailed { reason }).await.is_err()
    {
        return;
    }
    socket.close(code, message.unwrap_or_default()).await;
}

async fn send(socket: &mut Socket, message: &ToSatellite) -> Result<(), Broken> {
    let text = match message.to_text() {
        Ok(text) => text,
        Err(error) => {
            warn!(%error, "a message cannot be written as JSON");
            return Err(Broken::Gone);
        }
    };
    socket.send(text).await
}

async fn say_goodbye(mut socket: Socket, end: End) {
    let (code, words) = match end {
        End::ClientClose => return socket.answer_close().await,
        // What was being written when it panicked cannot be followed by a goodbye.
        End::Dropped | End::Silent | End::Stuck | End::Panicked => return,
        End::Violation(code) => (code, ""),
        End::Unavailable => (TRY_AGAIN_LATER, ""),
        End::Drain => (RESTARTING, "pod is restarting"),
        End::Told(command) => {
            let reason = match command {
                Command::Superseded => "A newer connection of this satellite took over",
                Command::Removed => "Satellite removed",
                Command::TokenRotated => "token_rotated",
            };
            if send(&mut socket, &ToSatellite::Shutdown { reason }).await.is_err() {
                return;
            }
            (NORMAL, reason)
        }
    };
    socket.close(code, words).await;
}
