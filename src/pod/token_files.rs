//! Follows the files of the settings' tokens: another token counts without a restart.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::config::{self, TokenFile};
use crate::api::access::Access;
use crate::platform::token::{Digest, Digests};

/// How often the files are read. They are small.
const INTERVAL: Duration = Duration::from_secs(1);

/// What a read found: the digest of the content, or why there is none.
type Found = Result<Digest, String>;

/// One file, and what was found in it.
struct Followed {
    file: TokenFile,
    /// The newest, if that was not taken yet: what is being written is not taken.
    fresh: Option<Found>,
    /// What is in force, or was told of.
    settled: Option<Found>,
}

fn is_same(one: &Option<Found>, other: &Found) -> bool {
    match (one, other) {
        (Some(Ok(one)), Ok(other)) => one.is(other),
        (Some(Err(one)), Err(other)) => one == other,
        _ => false,
    }
}

/// Looks into the files until told to stop.
pub async fn follow(files: Vec<TokenFile>, access: Arc<Access>, stop: CancellationToken) {
    let new = |file| Followed { file, fresh: None, settled: None };
    let mut followed: Vec<Followed> = files.into_iter().map(new).collect();
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        for file in &mut followed {
            file.look(&access).await;
        }
    }
}

impl Followed {
    /// Takes what was found twice in the same form, and is not what is in force.
    async fn look(&mut self, access: &Access) {
        let (setting, path) = (self.file.setting, self.file.path.clone());
        let reading = tokio::task::spawn_blocking(move || config::read_secret(setting, &path));
        let Ok(read) = reading.await else { return };
        let found = match &read {
            Ok(text) => Ok(Digest::of(text.expose_secret())),
            Err(error) => Err(format!("{error:#}")),
        };
        let is_settled = is_same(&self.settled, &found);
        let is_whole = is_same(&self.fresh, &found);
        self.fresh = (!is_settled).then(|| found.clone());
        if is_settled || !is_whole {
            return;
        }
        self.settled = Some(found);
        match read.and_then(|text| self.tokens(&text)) {
            Ok(tokens) => self.take(access, tokens),
            Err(error) => {
                let error = format!("{error:#}");
                warn!(setting, error, "the tokens before stay valid");
            }
        }
    }

    fn tokens(&self, text: &SecretString) -> anyhow::Result<Digests> {
        let tokens = config::digests(self.file.setting, text.expose_secret())?;
        ensure!(!tokens.is_empty(), "{} {} is empty", self.file.setting, self.file.path.display());
        Ok(tokens)
    }

    fn take(&self, access: &Access, tokens: Digests) {
        let (role, setting) = (self.file.role, self.file.setting);
        let is_new = access.settings().digests(role).is_none_or(|known| !known.are(&tokens));
        if is_new {
            let count = tokens.len();
            access.replace(role, tokens);
            info!(setting, count, "other tokens are valid from now on, and those before no more");
        }
    }
}
