//! One socket's life, from its first frame to its last edge. [`super::active_session`] is the part in
//! between.
//!
//! Everything a session does names the session, so what it does late changes nothing.

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
use super::protocol::{
    DISABLED, FromSatellite, INVALID_CREDENTIALS, MUST_AUTHENTICATE, Said, ToSatellite,
};
use super::socket::{Broken, Message, Socket};
use super::{COMPLAINTS_OF_A_SESSION, Gateway, Handshake};
use crate::contract::wire::Actor;
use crate::domain::certificate;
use crate::domain::lifecycle::{Reason, SatelliteId, Session, SessionKey, Signal};
use crate::ingress::refusal::Refusal as Limit;
use crate::log::request::{Closed, Outcome};
use crate::platform::failpoint::stand_still;
use crate::platform::log_gate::Share;
use crate::platform::metrics::Counted;
use crate::registry::credentials::Verdict;
use crate::registry::satellites::AgentInfo;
use crate::registry::slow_checks::Asker;
use crate::sessions::table::{Command, Inbox};

/// How long a connect may wait for the log. This is longer than the database lets it wait for another pod
/// that stands still, so only a real outage sends a satellite away to come again. A satellite that is let in
/// after an outage came within its last seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Close codes (RFC 6455, 7.4, and the agent's own).
const NORMAL: u16 = 1000;
const RESTARTING: u16 = 1012;
const TRY_AGAIN_LATER: u16 = 1013;
const NOT_AUTHENTICATED: u16 = 4001;

/// Runs a socket to its end. Its place at the door is given back once it is authenticated.
///
/// What happens once is boxed: a task is as large as the largest future it ever waits for, and most of a
/// session's life is [`ActiveSession::hold`].
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
            // No budget bounds these sockets. Until its refusal is written, each keeps its place and can lose
            // it.
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
            // The append was its first sign of life. Only what the agent said of itself is still to be kept.
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
                    let end = held.await.unwrap_or(End::Panicked);
                    if end == End::Drain {
                        Box::pin(active.leave(socket, RESTARTING, "pod is restarting")).await;
                    }
                    end
                }
                Ok(Err(end)) => end,
                Err(_) => End::Panicked,
            };
            // The session leaves the table before its end is queued, so what comes later does not find it.
            drop(entered);
            // It was connected until now, so it is to find room when it comes back.
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

/// Appends a connect to the log; none if the socket was not let in, and was told why. The socket is read
/// meanwhile: only a satellite that is still connected is let in.
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
            // The satellite was removed since its token was checked.
            Ok(Outcome::UnknownSatellite) => Refusal::Credentials { claimed: Some(satellite) },
            Ok(Outcome::Nothing(_) | Outcome::Refused | Outcome::Locked) | Err(Closed) => Refusal::Unavailable,
        },
        end = given_up(&mut socket, gateway, by) => {
            connecting.withdraw();
            turn_away(socket.into_socket(), gateway, end).await;
            // The connect may be in the log all the same: then the session is ended there.
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

/// Waits until a satellite can no longer be let in: it has gone, its time is over, or the pod accepts no
/// satellites.
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

/// Ends a socket that was not let in after all.
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
    /// The id is unknown or the token wrong; the two are not told apart.
    Credentials {
        /// The id that it claims, if that is a UUID.
        claimed: Option<SatelliteId>,
    },
    /// The token is its own, but the certificate of its connection names somebody else.
    Certificate {
        /// The satellite.
        satellite: SatelliteId,
    },
    /// It is authenticated, but has connected too often lately.
    TooOften {
        /// The satellite.
        satellite: SatelliteId,
    },
    /// It is authenticated, but an administrator has it refused.
    Disabled,
    /// No complete first message in time.
    TooLate,
    /// It went away by itself.
    Gone,
    /// The framing is broken: closed with this code.
    Violation(u16),
    /// It sent nothing for a while, and its place was given to another socket.
    Shed,
    /// No satellite can be let in right now.
    Unavailable,
}

impl Refusal {
    /// Whether it had a place and never tried to authenticate.
    fn is_no_try(self) -> bool {
        matches!(self, Refusal::NotAuthenticate | Refusal::Violation(_))
    }
}

/// A satellite that was let in.
struct Admitted {
    satellite: SatelliteId,
    agent_info: AgentInfo,
    /// The version of the satellite's token that it presented.
    token_version: i64,
    /// Bounds the log lines about its complaints.
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
    // A malformed id has no row. It is looked up like any other.
    let id = claimed.unwrap_or(SatelliteId(Uuid::nil()));
    let (origin, is_suspect) = gateway.door.suspicion(handshake.client);
    let asker = Asker { origin, is_suspect };
    match timeout_at(deadline, gateway.credentials.check(id, &token, asker)).await {
        Ok(Ok(Verdict::Right { name, token_version, session, is_disabled })) => {
            if let Some(certificate) = &handshake.certificate
                && !certificate::names(certificate, id, &name)
            {
                return Err(Refusal::Certificate { satellite: id });
            }
            let mut connects = gateway.connects.lock().unwrap_or_else(PoisonError::into_inner);
            if !connects.connect(id, session, Instant::now()) {
                return Err(Refusal::TooOften { satellite: id });
            }
            drop(connects);
            if is_disabled {
                return Err(Refusal::Disabled);
            }
            let mut told = Share::new(COMPLAINTS_OF_A_SESSION);
            let capabilities = gateway.understood(&mut told, id, "capabilities", capabilities);
            let agent_info = AgentInfo { capabilities, ..AgentInfo::default() };
            Ok(Admitted { satellite: id, agent_info, token_version, told })
        }
        Ok(Ok(Verdict::Wrong)) => Err(Refusal::Credentials { claimed }),
        Ok(Ok(Verdict::Busy)) => Err(Refusal::Unavailable),
        Ok(Err(error)) => {
            // Strangers can cause this, in any number. Refusals for wrong credentials are not logged
            // meanwhile.
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

/// Charges a refusal to its address: as a failure if credentials were checked, as a wasted place if none
/// came.
fn charge(gateway: &Gateway, refusal: Refusal, address: IpAddr) {
    match refusal {
        Refusal::Credentials { .. } | Refusal::Certificate { .. } => gateway.door.failed(address),
        Refusal::NotAuthenticate | Refusal::Violation(_) | Refusal::TooLate | Refusal::Gone => {
            gateway.door.silent(address)
        }
        // Its agent comes back for ever, as it should, and is no stranger.
        Refusal::Disabled => {}
        Refusal::TooOften { .. } | Refusal::Shed | Refusal::Unavailable => {}
    }
}

/// Logs a refused satellite, at a rate that operators can read.
fn tell(gateway: &Gateway, refusal: Refusal, address: IpAddr) {
    let is_told = matches!(
        refusal,
        Refusal::Credentials { .. } | Refusal::Certificate { .. } | Refusal::TooOften { .. }
    );
    if !is_told {
        return;
    }
    let Some(left_out) = gateway.refusals.pass(Instant::now()) else { return };
    match refusal {
        Refusal::TooOften { satellite } => warn!(%satellite, %address, left_out,
            "a satellite connects too often: several agents with its credential, or one that does not wait"),
        Refusal::Certificate { satellite } => warn!(%satellite, %address, left_out,
            "a satellite was refused: its token is right, and its certificate does not name it"),
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
        Refusal::Certificate { .. } => {
            ("certificate", Some(INVALID_CREDENTIALS), NOT_AUTHENTICATED)
        }
        Refusal::Disabled => ("disabled", Some(DISABLED), NOT_AUTHENTICATED),
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
        // A message that was being written when the session panicked cannot be followed by a goodbye.
        // The goodbye of a drain is said before, by the session.
        End::Dropped | End::Silent | End::Stuck | End::Panicked | End::Drain => return,
        End::Violation(code) => (code, ""),
        End::Unavailable => (TRY_AGAIN_LATER, ""),
        End::Told(command) => {
            let reason = match command {
                Command::Superseded => "A newer connection of this satellite took over",
                Command::Removed => "Satellite removed",
                Command::TokenRotated => "token_rotated",
                Command::Kicked => "kicked",
                Command::Disabled => DISABLED,
            };
            if send(&mut socket, &ToSatellite::Shutdown { reason }).await.is_err() {
                return;
            }
            (NORMAL, reason)
        }
    };
    socket.close(code, words).await;
}
