//! Keeps what a pod knows of named tokens up to date, and keeps when they were used.
//!
//! Twice a second each pod asks the database whether there are other tokens than before. That alone keeps the promise
//! that a revocation counts within a second. Announcements on core NATS only make it ask at once.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use deadpool_postgres::Object;
use futures_util::StreamExt;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_postgres::Error;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::{Access, Named, Settings, USES_INTERVAL};
use crate::api::people::People;
use crate::api::person::Person;
use crate::contract::wire::Actor;
use crate::platform::database::{Database, Failed};
use crate::registry::ended_sessions as ended;
use crate::registry::tokens::{self, Known, Version, uses};
use crate::sessions::changes;

/// How often the database is asked: half of the promised second.
const INTERVAL: Duration = Duration::from_millis(500);

/// How long one look may take: the next one may get an answer where this one does not.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// How often it is looked whether there is a use to keep.
const USES_LOOK: Duration = Duration::from_millis(500);

/// What a look found.
struct Look {
    began: Instant,
    version: Version,
    clock: time::OffsetDateTime,
    /// The tokens and the ended sessions, where they are others than before.
    others: Option<(Vec<Arc<Known>>, HashSet<Uuid>)>,
}

async fn look(database: &Database, known: Option<Version>) -> Result<Look, Failed> {
    let look = async |client: &mut Object| {
        let began = Instant::now();
        let (version, clock) = tokens::version(client).await?;
        let others = match known == Some(version) {
            true => None,
            // They are of this version or a later one, which the next look finds.
            false => {
                let tokens = tokens::known(client).await?.into_iter().map(Arc::new).collect();
                Some((tokens, ended::ended(client).await?))
            }
        };
        Ok::<_, Error>(Look { began, version, clock, others })
    };
    database.run_within(LOOK_LIMIT, look).await
}

impl Access {
    /// Reads the named tokens for the first time.
    pub async fn begin(
        settings: Settings,
        people: People,
        database: Database,
    ) -> anyhow::Result<Arc<Access>> {
        let Look { began, version, clock, others } = look(&database, None).await?;
        let (tokens, ended) = others.unwrap_or_default();
        let named = Named { version, tokens, ended, looked_at: began, clock };
        Ok(Arc::new(Access {
            settings: RwLock::new(settings),
            people,
            named: RwLock::new(named),
            uses: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
            database,
        }))
    }

    /// Ends a person's session on every pod, before its time.
    pub async fn end_session(&self, person: &Person) -> Result<(), Failed> {
        let Some(session) = &person.session else { return Ok(()) };
        let (granted, actor) = ((person.role, &person.selector), Actor::person(&person.name));
        let end = async |client: &mut Object| {
            ended::end(client, session.id, granted, session.end(), &actor).await
        };
        self.database.run_within(LOOK_LIMIT, end).await?;
        self.look().await
    }

    /// Asks the database whether there are other tokens than before.
    pub async fn look(&self) -> Result<(), Failed> {
        let _alone = self.looking.lock().await;
        let known = self.named().version;
        let Look { began, version, clock, others } = look(&self.database, Some(known)).await?;
        let mut named = self.named.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        (named.version, named.looked_at, named.clock) = (version, began, clock);
        if let Some((tokens, ended)) = others {
            (named.tokens, named.ended) = (tokens, ended);
            self.uses().retain(|id, _| named.with_id(*id).is_some());
        }
        Ok(())
    }

    /// Follows the changes, and keeps uses, until told to stop.
    pub async fn follow(self: Arc<Access>, nats: async_nats::Client, stop: CancellationToken) {
        tokio::join!(self.follow_changes(&nats, &stop), self.keep_uses(&stop));
    }

    async fn follow_changes(&self, nats: &async_nats::Client, stop: &CancellationToken) {
        let mut heard = match nats.subscribe(changes::SUBJECT).await {
            Ok(subscription) => subscription.boxed(),
            Err(error) => {
                warn!(%error, "cannot listen to the other pods: revoked tokens are found a little later");
                futures_util::stream::pending().boxed()
            }
        };
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                Some(_) = heard.next() => {}
                () = stop.cancelled() => return,
            }
            match self.look().await {
                Ok(()) if std::mem::take(&mut failing) => info!("named tokens are followed again"),
                Ok(()) => {}
                Err(error) if !std::mem::replace(&mut failing, true) => {
                    warn!(%error, "cannot ask for named tokens, trying again: after 10 s without an answer none counts");
                }
                Err(_) => {}
            }
        }
    }

    /// Beside the requests and beside the looks: nobody waits for it.
    async fn keep_uses(&self, stop: &CancellationToken) {
        let mut ticks = interval(USES_LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_last = tokio::select! {
                _ = ticks.tick() => false,
                () = stop.cancelled() => true,
            };
            if let Err(error) = self.keep_uses_now(is_last).await {
                debug!(%error, "cannot keep when tokens were used, trying again");
            }
            if is_last {
                return;
            }
        }
    }

    /// Keeps the uses that are due: those of tokens of which none was kept lately, or at the end all.
    async fn keep_uses_now(&self, is_last: bool) -> Result<(), Failed> {
        let due: HashMap<Uuid, Instant> = self
            .uses()
            .iter()
            .filter(|(_, used)| {
                let is_time = used.kept_at.is_none_or(|kept| kept.elapsed() >= USES_INTERVAL);
                !used.is_kept && (is_time || is_last)
            })
            .map(|(id, used)| (*id, used.last))
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        let keep = async |client: &mut Object| {
            let ago = |(id, last): (&Uuid, &Instant)| (*id, last.elapsed().as_secs_f64());
            uses::used(client, &due.iter().map(ago).collect::<Vec<_>>()).await
        };
        let kept = self.database.run_within(LOOK_LIMIT, keep).await?;
        let mut uses = self.uses();
        for id in kept {
            let Some(used) = uses.get_mut(&id) else { continue };
            used.kept_at = Some(Instant::now());
            used.is_kept = due.get(&id) == Some(&used.last);
        }
        Ok(())
    }
}
