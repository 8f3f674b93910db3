//! `POST /v1/enrol`: an agent registers its own satellite.
//!
//! Ten thousand agents may do so in a minute. So few enrolments run at once that neither edges nor administrators'
//! changes wait for them, and so few wait that satellites find a place at the door. The others are told to come back.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};
use deadpool_postgres::Object;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tracing::info;

use super::caller::Caller;
use super::problem::Problem;
use super::satellites::{Registered, inside, registered};
use super::{Api, conditions};
use crate::domain::access::Role;
use crate::platform::database::Database;
use crate::platform::metrics::{Counted, EnrolmentOutcome, Metrics};
use crate::registry::enrolment::{self, Enrolled, Key, NewEnrolment, Refused};
use crate::registry::satellites::Shown;

/// The bounds of enrolments at a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many run at once; each has a connection to the database.
    pub at_once: usize,
    /// How many wait for their turn.
    pub waiting: usize,
    /// How long each of them waits.
    pub wait: Duration,
}

/// The enrolments of a pod.
pub struct Enrolments {
    database: Database,
    limits: Limits,
    turns: Semaphore,
    places: Semaphore,
    metrics: Metrics,
}

impl Enrolments {
    /// None yet.
    pub fn new(limits: Limits, database: Database, metrics: Metrics) -> Enrolments {
        metrics.enrolments_max.set(i64::try_from(limits.at_once).unwrap_or(i64::MAX));
        Enrolments {
            database,
            limits,
            turns: Semaphore::new(limits.at_once),
            places: Semaphore::new(limits.waiting),
            metrics,
        }
    }

    /// Waits for a turn, in order.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(turn) = self.turns.try_acquire() {
            return Some(turn);
        }
        let _place = self.places.try_acquire().ok()?;
        let _waiting = Counted::on(&self.metrics.enrolments_waiting);
        timeout(self.limits.wait, self.turns.acquire()).await.ok()?.ok()
    }
}

/// Enrol a satellite
///
/// An agent registers its own satellite with a token of the role `enrol`. What the token's selector names is added where it
/// is left out, and refused where it is different. With the header Idempotency-Key the same request makes one
/// satellite, however often it is sent, and is answered with the same token until the satellite has connected: the token
/// follows from the key, so that is a secret, of at least 128 random bits.
#[utoipa::path(
    post, operation_id = "enrolSatellite",
    path = "/v1/enrol",
    tag = "satellites",
    params(("Idempotency-Key" = Option<String>, Header,
            description = "What this enrolment is called: random, of at least 128 bits, such as 32 hexadecimal digits")),
    request_body = NewEnrolment,
    responses(
        (status = 201, description = "It is registered", body = Registered, headers(
            ("Location" = String, description = "Where it is"),
            ("ETag" = String, description = "The version of its description"),
        )),
        (status = 409, description = "The key's satellite has connected already",
         body = super::problem::ProblemJson, content_type = "application/problem+json"),
    )
)]
pub async fn enrol(
    State(api): State<Arc<Api>>,
    caller: Caller,
    headers: HeaderMap,
    body: Result<Json<NewEnrolment>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(asked) = body?;
    let new = asked.within(caller.selector())?;
    let key = conditions::key(&headers)?;
    let key = key.map(|key| Key::new(&key, &caller.digest())).transpose()?;
    let enrolments = &api.enrolments;
    let count = |outcome| enrolments.metrics.enrolment(outcome);
    let Some(_turn) = enrolments.turn().await else {
        count(EnrolmentOutcome::TurnedAway);
        return Err(Problem::enrolments_busy());
    };
    let (by, author, default) = (caller.token_id(), caller.author(), api.default_threshold);
    let agents = (caller.role() == Role::Enrol).then(|| caller.selector());
    let enrol = async |client: &mut Object| {
        enrolment::enrol(client, &new, by, agents, key.as_ref(), &author, default).await
    };
    let refused = |problem| {
        count(EnrolmentOutcome::Refused);
        Err(problem)
    };
    match enrolments.database.run(enrol).await? {
        Enrolled::New(satellite, token) => {
            count(EnrolmentOutcome::Enrolled);
            let shown = &satellite.satellite;
            info!(satellite = %shown.id, name = %shown.name, by = %author.actor.id, "satellite enrolled");
            Ok(told(*satellite, &token))
        }
        Enrolled::Again(satellite, token) => {
            let shown = &satellite.satellite;
            if inside(&caller, Some(&shown.region), Some(&shown.tags)).is_err() {
                return refused(Problem::key_of_another());
            }
            count(EnrolmentOutcome::Repeated);
            let replayed = [(HeaderName::from_static("idempotency-replayed"), "true")];
            Ok((replayed, told(*satellite, &token)).into_response())
        }
        Enrolled::TooLate(id) => refused(Problem::key_of_connected(&id.to_string())),
        Enrolled::KeyOfAnother => refused(Problem::key_of_another()),
        Enrolled::NoToken => refused(Problem::token_ended()),
        Enrolled::InSet(set) => {
            info!(name = %new.name, set, by = %author.actor.id, "an agent chose to be in a set of assignments, and was refused");
            refused(Problem::chosen_set())
        }
        Enrolled::UsedUp => refused(Problem::token_used_up(caller.name().unwrap_or_default())),
    }
}

fn told(satellite: Shown, token: &SecretString) -> Response {
    registered(satellite, Some(token.expose_secret().to_owned())).into_response()
}

impl From<Refused<'_>> for Problem {
    fn from(refused: Refused<'_>) -> Problem {
        match refused {
            Refused::Outside(outside) => Problem::outside(outside),
            Refused::Invalid(invalid) => invalid.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enrolments(at_once: usize, waiting: usize) -> Enrolments {
        let address = crate::platform::database::Address::parse("TEST", "postgres://h/d");
        let database = address.and_then(|address| address.pool("test")).expect("a pool");
        let limits = Limits { at_once, waiting, wait: Duration::from_secs(5) };
        Enrolments::new(limits, database, Metrics::new())
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_run_so_many_wait_so_long_and_the_rest_is_turned_away_at_once() {
        let enrolments = enrolments(1, 1);
        let running = enrolments.turn().await.expect("the first runs");
        let waits = async {
            let begun = tokio::time::Instant::now();
            (enrolments.turn().await.is_some(), begun.elapsed())
        };
        let beyond = async {
            tokio::task::yield_now().await;
            assert_eq!(enrolments.metrics.enrolments_waiting.get(), 1);
            let begun = tokio::time::Instant::now();
            (enrolments.turn().await.is_some(), begun.elapsed())
        };
        let ((has_turn, waited), (is_let_in, at_once)) = tokio::join!(waits, beyond);
        assert_eq!((has_turn, waited), (false, Duration::from_secs(5)));
        assert_eq!((is_let_in, at_once), (false, Duration::ZERO));
        assert_eq!(enrolments.metrics.enrolments_waiting.get(), 0);
        let (turn, ()) = tokio::join!(enrolments.turn(), async { drop(running) });
        assert!(turn.is_some(), "its turn comes");
    }
}
