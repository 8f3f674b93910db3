//! One socket's life, from its first frame to its last edge; what is between is [`super::live`].
//!
//! A session says which one it is in everything it does, so whatever it does late changes nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::Message;
use secrecy::SecretString;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};
use uuid::Uuid;

use super::line::Line;
use super::live::Live;
use super::protocol::{FromSatellite, INVALID_CREDENTIALS, MUST_AUTHENTICATE, ToSatellite};
use super::registry::{COMMANDS, Command};
use super::socket::{Broken, Socket};
use super::{Gateway, Handshake};
use crate::credentials::Verdict;
use crate::door::refusal::Refusal as Limit;
use crate::lifecycle::{Edge, Reason, SatelliteId, Session};
use crate::log::append::Outcome;
use crate::satellites::About;
use crate::wire::Actor;

/// Close codes (RFC 6455, 7.4, and the agent's own).
const NORMAL: u16 = 1000;
const RESTARTING: u16 = 1012;
const TRY_AGAIN_LATER: u16 = 1013;
const NOT_AUTHENTICATED: u16 = 4001;

/// How a socket came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The satellite sent a close frame.
    ClientClose,
    /// The connection broke.
    Dropped,
    /// The satellite broke the protocol's framing: closed with this code.
    Violation(u16),
    /// Nothing was heard for so long that nobody can be there.
    Silent,
    /// The satellite does not read what it is sent.
    Stuck,
    /// It was let in, and now there is no telling it what to do: the service's fault.
    Unavailable,
    /// The registry said so.
    Told(Command),
    /// The pod is draining: no edge, the satellite comes back elsewhere.
    Drain,
}

/// Runs a socket to its end. Its place at the door is given back once it is authenticated.
///
/// What happens once is boxed: a task is as large as the largest thing it ever waits for, and most of
/// a session's life is [`Live::hold`].
pub async fn run(mut socket: Socket, gateway: Arc<Gateway>, handshake: Handshake) {
    gateway.metrics.handshakes.inc();
    let admitted = Box::pin(authenticate(&mut socket, &gateway, handshake.deadline)).await;
    gateway.metrics.handshakes.dec();
    if let Err(Refusal::Credentials | Refusal::NotAuthenticate | Refusal::Violation(_)) = admitted {
        gateway.door.failed(handshake.client);
    }
    drop(handshake);
    let Admitted { satellite, about, token_version, threshold_ms } = match admitted {
        Ok(admitted) => admitted,
        Err(refusal) => return Box::pin(refuse(socket, &gateway, refusal)).await,
    };

    let append = gateway.log.append(satellite, Edge::Connect, Actor::system());
    let session = match Box::pin(append).await {
        Ok(Outcome::Appended { session, .. }) => session,
        // Removed since its token was checked.
        Ok(Outcome::UnknownSatellite) => {
            return Box::pin(refuse(socket, &gateway, Refusal::Credentials)).await;
        }
        Ok(Outcome::Nothing(_) | Outcome::Refused | Outcome::Locked) | Err(_) => {
            return Box::pin(refuse(socket, &gateway, Refusal::Unavailable)).await;
        }
    };
    gateway.metrics.authentication("ok");
    gateway.metrics.sessions.inc();
    let (commands, mut orders) = mpsc::channel(COMMANDS);
    let (place, told) = gateway.standings.enter(satellite, session);
    let mut line = Line::new(socket);
    let end = if gateway.registry.enter(satellite, session, commands, threshold_ms) {
        // The append was its first sign of life; only what it said of itself is still to be kept.
        if about != About::default() {
            gateway.heartbeats.said(satellite, session, about.clone());
        }
        let who = (satellite, session);
        match Box::pin(Live::welcome(&gateway, &mut line, who, (about, token_version), told)).await
        {
            Ok(mut live) => live.hold(&mut line, &mut orders).await,
            Err(end) => end,
        }
    } else {
        End::Told(Command::Superseded)
    };
    drop(place);
    gateway.metrics.sessions.dec();
    debug!(%satellite, session = session.0, ?end, "session over");
    // Out of the registry before the end is queued: what comes after it finds nobody.
    gateway.registry.leave(satellite, session);
    gateway.heartbeats.forget(satellite, session);
    let goodbye = Box::pin(say_goodbye(line.into_socket(), end));
    match reason(end) {
        Some(reason) => {
            let edge = Edge::Disconnect { session, reason };
            let append = Box::pin(gateway.log.append(satellite, edge, Actor::system()));
            let (appended, ()) = tokio::join!(append, goodbye);
            if let Err(closed) = appended {
                warn!(%satellite, session = session.0, %closed, "the end of a session is not in the log");
            }
        }
        None => goodbye.await,
    }
}

/// The edge an end leads to. A session that was superseded or removed has its edge already; a
/// draining pod leaves it to the satellite to come back, or to the monitor to tell the truth.
fn reason(end: End) -> Option<Reason> {
    match end {
        End::ClientClose => Some(Reason::ClientClose),
        End::Dropped | End::Violation(_) | End::Silent | End::Stuck => {
            Some(Reason::ConnectionDropped)
        }
        End::Unavailable => Some(Reason::Shutdown),
        // Where the rotation has ended it already this changes nothing.
        End::Told(Command::TokenRotated) => Some(Reason::TokenRotated),
        End::Told(Command::Superseded | Command::Removed) | End::Drain => None,
    }
}

/// Why a socket is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// The first message was something else.
    NotAuthenticate,
    /// Unknown id or wrong token, not told apart.
    Credentials,
    /// No complete first message in time.
    TooLate,
    /// It went away by itself.
    Gone,
    /// The framing is broken: closed with this code.
    Violation(u16),
    /// Nobody can be let in right now.
    Unavailable,
}

/// Who was let in.
struct Admitted {
    satellite: SatelliteId,
    about: About,
    /// Which of the satellite's tokens it came with.
    token_version: i64,
    /// Its own offline threshold.
    threshold_ms: Option<i64>,
}

/// Waits for the first message and checks its credentials.
async fn authenticate(
    socket: &mut Socket,
    gateway: &Gateway,
    deadline: Instant,
) -> Result<Admitted, Refusal> {
    let first = timeout_at(deadline, first_message(socket));
    let (client_id, token, capabilities) = tokio::select! {
        first = first => first.map_err(|_| Refusal::TooLate)??,
        () = gateway.drain.cancelled() => return Err(Refusal::Unavailable),
    };
    // A malformed id has no row; it is looked up like any other.
    let id = SatelliteId(Uuid::try_parse(&client_id).unwrap_or(Uuid::nil()));
    match timeout_at(deadline, gateway.credentials.check(id, &token)).await {
        Ok(Ok(Verdict::Right { token_version, threshold_ms })) => {
            let about = About { version: None, capabilities };
            Ok(Admitted { satellite: id, about, token_version, threshold_ms })
        }
        Ok(Ok(Verdict::Wrong)) => Err(Refusal::Credentials),
        Ok(Ok(Verdict::Busy)) => Err(Refusal::Unavailable),
        Ok(Err(error)) => {
            warn!(error = %format!("{error:#}"), "cannot check credentials");
            Err(Refusal::Unavailable)
        }
        Err(_) => Err(Refusal::Unavailable),
    }
}

async fn first_message(
    socket: &mut Socket,
) -> Result<(String, SecretString, Option<Vec<String>>), Refusal> {
    loop {
        return match socket.recv().await {
            None | Some(Ok(Message::Close(_))) => Err(Refusal::Gone),
            Some(Err(Broken::Violation(code))) => Err(Refusal::Violation(code)),
            Some(Err(Broken::Gone)) => Err(Refusal::Gone),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
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

async fn refuse(mut socket: Socket, gateway: &Gateway, refusal: Refusal) {
    let (word, message, code) = match refusal {
        Refusal::NotAuthenticate => {
            ("not_authenticate", Some(MUST_AUTHENTICATE), NOT_AUTHENTICATED)
        }
        Refusal::Credentials => ("refused", Some(INVALID_CREDENTIALS), NOT_AUTHENTICATED),
        Refusal::TooLate => ("timeout", Some(MUST_AUTHENTICATE), NOT_AUTHENTICATED),
        Refusal::Gone => ("gone", None, NORMAL),
        Refusal::Violation(code) => ("violation", None, code),
        Refusal::Unavailable => ("unavailable", None, TRY_AGAIN_LATER),
    };
    gateway.metrics.authentication(word);
    if refusal == Refusal::TooLate {
        gateway.metrics.refused(Limit::AuthenticationTimeout);
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

/// A moment within `over`, different for each session: a whole pod's satellites do not come back
/// in the same instant.
pub(super) fn spread(session: Session, satellite: SatelliteId, over: Duration) -> Duration {
    let (high, low) = satellite.0.as_u64_pair();
    let mixed = (high ^ low ^ session.0.unsigned_abs()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    over.mul_f64((mixed >> 11) as f64 / (1u64 << 53) as f64)
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
        End::Dropped | End::Silent | End::Stuck => return,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_end_of_the_satellites_own_is_an_edge() {
        let cases = [
            (End::ClientClose, Some(Reason::ClientClose)),
            (End::Dropped, Some(Reason::ConnectionDropped)),
            (End::Violation(1009), Some(Reason::ConnectionDropped)),
            (End::Silent, Some(Reason::ConnectionDropped)),
            (End::Stuck, Some(Reason::ConnectionDropped)),
            (End::Unavailable, Some(Reason::Shutdown)),
            (End::Told(Command::TokenRotated), Some(Reason::TokenRotated)),
            (End::Told(Command::Superseded), None),
            (End::Told(Command::Removed), None),
            (End::Drain, None),
        ];
        for (end, expected) in cases {
            assert_eq!(reason(end), expected, "{end:?}");
        }
    }

    #[test]
    fn goodbyes_are_spread_over_the_whole_time() {
        let over = Duration::from_secs(10);
        let moments: Vec<Duration> = (0..1_000)
            .map(|n| spread(Session(1), SatelliteId(Uuid::from_u128(n * 7_919)), over))
            .collect();
        assert!(moments.iter().all(|moment| *moment < over));
        for tenth in 0..10 {
            let from = Duration::from_secs(tenth);
            let here = moments.iter().filter(|m| (from..from + over / 10).contains(*m)).count();
            assert!(here > 50, "{here} in tenth {tenth}");
        }
    }
}
