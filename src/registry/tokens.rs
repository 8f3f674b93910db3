//! Named tokens of the administration API: which there are, and who made or revoked them.
//!
//! Owns the tables `tokens` and `token_changes`. A token is never changed, but that its uses become fewer ([`uses`]): one
//! that is revoked has no row any more, and the history says who did it. All changes are made one after another under a
//! lock, so their numbers grow in commit order, the limit holds, and a name is free or not. Only a digest of a token is
//! stored, and it leaves the database only to be compared.

use std::collections::BTreeMap;

use deadpool_postgres::{GenericClient, Object};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use strum::IntoEnumIterator;
use time::OffsetDateTime;
use tokio_postgres::types::{Json, ToSql};
use tokio_postgres::{Error, Row, Transaction};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::contract::audit::AuditAction;
use crate::contract::tokens::{SelectorJson, TokenJson};
use crate::contract::wire::{ADMIN, Actor, READER, Timestamp};
use crate::contract::word::Word;
use crate::domain::access::{Role, Selector};
use crate::log::audit::{self, Author, Entry};
use crate::platform::token::{self, Digest};
use crate::registry::satellites::{Invalid, NewSatellite, invalid};
use crate::registry::selector;

pub(crate) mod uses;

/// The most tokens there are, those that have expired included: every pod compares all of them.
pub const MAX_TOKENS: i64 = 1_000;

/// The most satellites for which a token can be made.
const MAX_USES: i64 = 1_000_000;

/// A token to be made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewToken {
    /// 1 to 200 characters; no other token may be called so, nor may it be `admin`.
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// `admin`: everything. `operator`: satellites and what they check, but no tokens. `read`: only GET, and no tokens.
    /// `enrol`: only `POST /v1/enrol`, by which satellites register themselves.
    #[schema(value_type = String, pattern = "^(admin|operator|read|enrol)$")]
    role: Word<Role>,
    /// The part of the fleet that it reaches, and no other; without it the whole fleet.
    #[serde(default)]
    #[schema(value_type = Option<SelectorJson>)]
    selector: Option<Map<String, Value>>,
    /// From when on it opens nothing; without it, it is valid until it is revoked.
    #[serde(default)]
    expires_at: Option<Timestamp>,
    /// How many satellites it registers, for the role `enrol` only; without it, nobody counts.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1_000_000)]
    uses: Option<i64>,
}

/// What has passed [`NewToken::check`].
#[derive(Debug, PartialEq, Eq)]
pub struct Checked {
    name: String,
    role: Role,
    selector: Selector,
    expires_at: Option<Timestamp>,
    uses: Option<i64>,
}

impl NewToken {
    /// Checks every limit; the error names the field.
    pub fn check(self) -> Result<Checked, Invalid> {
        // It is a word like a satellite's name, so it has the limits of that.
        let alike = NewSatellite {
            name: self.name,
            region: "any".to_owned(),
            tags: BTreeMap::new(),
            offline_threshold_ms: None,
        };
        alike.check()?;
        let selector = selector::check(self.selector)?;
        let name = alike.name;
        if [ADMIN, READER].contains(&name.as_str()) {
            let rule = format!("must not be {name}: one of the tokens of the settings is");
            return Err(invalid("name", rule));
        }
        let role = self.role.known().ok_or_else(|| {
            let words: Vec<&str> = Role::iter().map(Role::as_str).collect();
            invalid("role", format!("must be one of {}", words.join(", ")))
        })?;
        match self.uses {
            Some(_) if role != Role::Enrol => {
                let rule = format!("is for the role enrol only, not for {}", role.as_str());
                return Err(invalid("uses", rule));
            }
            Some(uses) if !(1..=MAX_USES).contains(&uses) => {
                return Err(invalid("uses", format!("must be from 1 to {MAX_USES}")));
            }
            _ => {}
        }
        Ok(Checked { name, role, selector, expires_at: self.expires_at, uses: self.uses })
    }
}

/// What the making of a token came to.
pub enum Created {
    /// A new token.
    New {
        /// As it is told.
        token: Box<TokenJson>,
        /// Itself, shown this once: only its digest is kept.
        secret: SecretString,
    },
    /// Another one is called so.
    NameTaken,
    /// There are as many as there may be.
    TooMany,
    /// It would have expired by now, by the database's clock.
    Expired,
}

/// Held past the commit.
const LOCK: &str = "select pg_advisory_xact_lock(hashtextextended('groundstation: tokens', 0))";

/// In a statement after the one that waited for the lock.
const LOOK: &str = "
    select count(*) >= $3 as is_full, coalesce(bool_or(name = $1), false) as is_taken,
           coalesce($2 <= clock_timestamp(), false) as is_over
      from tokens";

const CREATE: &str = "
    with created as (
        insert into tokens (id, name, role, region, tags, token_digest, expires_at, created_at, created_by_type,
                            created_by_id, uses_left)
        values ($1, $2, $3, $4, $5, $6, $7, date_trunc('milliseconds', clock_timestamp()), $8, $9, $11)
        returning id, name, role, region, tags, created_at, created_by_type, created_by_id, expires_at, last_used_at,
                  uses_left
    ), noted as (
        insert into token_changes (changed_at, token_id, action, actor_type, actor_id, token)
        select created_at, $1, 'created', $8, $9, $10 from created
    )
    select * from created";

/// Makes a token.
pub async fn create(
    client: &mut Object,
    new: &Checked,
    author: &Author,
) -> anyhow::Result<Created> {
    let secret = token::generate_named()?;
    let digest = Digest::of(secret.expose_secret()).to_stored();
    let transaction = client.transaction().await?;
    lock(&transaction).await?;
    let expires_at = new.expires_at.map(Timestamp::moment);
    let found = transaction.query_one(LOOK, &[&new.name, &expires_at, &MAX_TOKENS]).await?;
    if found.try_get("is_over")? {
        return Ok(Created::Expired);
    }
    if found.try_get("is_taken")? {
        return Ok(Created::NameTaken);
    }
    if found.try_get("is_full")? {
        return Ok(Created::TooMany);
    }
    let told = told(&new.name, new.role.as_str(), &new.selector, new.expires_at, new.uses);
    let (tags, kind) = (Json(&new.selector.tags), author.actor.kind.as_str());
    let parameters: [&(dyn ToSql + Sync); 11] = [
        &Uuid::new_v4(),
        &new.name,
        &new.role.as_str(),
        &new.selector.region,
        &tags,
        &digest,
        &expires_at,
        &kind,
        &author.actor.id,
        &Json(&told),
        &new.uses,
    ];
    let token = from_row(&transaction.query_one(CREATE, &parameters).await?)?;
    let entry = entry(author, AuditAction::TokenCreated, token.id, None, Some(told));
    audit::append(&transaction, &[entry]).await?;
    transaction.commit().await?;
    Ok(Created::New { token: Box::new(token), secret })
}

pub(super) async fn lock(transaction: &Transaction<'_>) -> Result<(), Error> {
    transaction.execute(LOCK, &[]).await.map(drop)
}

fn entry(
    author: &Author,
    action: AuditAction,
    id: Uuid,
    before: Option<Value>,
    after: Option<Value>,
) -> Entry {
    let target = audit::target("token", id.to_string());
    Entry { author: author.clone(), action, target, before, after }
}

/// What the histories keep of a token.
pub(super) fn told(
    name: &str,
    role: &str,
    selector: &Selector,
    expires_at: Option<Timestamp>,
    uses_left: Option<i64>,
) -> Value {
    let selector = SelectorJson::told(selector.clone());
    let told = json!({"name": name, "role": role, "selector": selector, "expiresAt": expires_at});
    match (told, uses_left) {
        (Value::Object(mut told), Some(uses_left)) => {
            told.insert("usesLeft".to_owned(), uses_left.into());
            Value::Object(told)
        }
        (told, _) => told,
    }
}

const DELETE: &str =
    "delete from tokens where id = $1 returning name, role, region, tags, expires_at, uses_left";

pub(super) const NOTE: &str = "
    insert into token_changes (changed_at, token_id, action, actor_type, actor_id, token)
    values (date_trunc('milliseconds', clock_timestamp()), $1, 'revoked', $2, $3, $4)";

/// Revokes a token: from the commit on it opens nothing on any pod that hears of it. Its name, or none where there is no
/// such token.
pub async fn revoke(
    client: &mut Object,
    id: Uuid,
    author: &Author,
) -> Result<Option<String>, Error> {
    let transaction = client.transaction().await?;
    lock(&transaction).await?;
    let Some(row) = transaction.query_opt(DELETE, &[&id]).await? else { return Ok(None) };
    let (name, role): (String, String) = (row.try_get("name")?, row.try_get("role")?);
    let expires_at: Option<OffsetDateTime> = row.try_get("expires_at")?;
    let (selector, uses_left) = (selector_of(&row)?, row.try_get("uses_left")?);
    let told = told(&name, &role, &selector, expires_at.map(Timestamp::new), uses_left);
    let kind = author.actor.kind.as_str();
    transaction.execute(NOTE, &[&id, &kind, &author.actor.id, &Json(&told)]).await?;
    let entry = entry(author, AuditAction::TokenRevoked, id, Some(told), None);
    audit::append(&transaction, &[entry]).await?;
    transaction.commit().await?;
    Ok(Some(name))
}

const LIST: &str = "
    select id, name, role, region, tags, created_at, created_by_type, created_by_id, expires_at, last_used_at, uses_left
      from tokens order by name limit $1";

/// All tokens, by name.
pub async fn list(client: &impl GenericClient) -> Result<Vec<TokenJson>, Error> {
    client.query(LIST, &[&MAX_TOKENS]).await?.iter().map(from_row).collect()
}

fn from_row(row: &Row) -> Result<TokenJson, Error> {
    let moment =
        |name: &str| Ok::<_, Error>(row.try_get::<_, Option<_>>(name)?.map(Timestamp::new));
    Ok(TokenJson {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        role: row.try_get("role")?,
        selector: SelectorJson::told(selector_of(row)?),
        created_at: Timestamp::new(row.try_get("created_at")?),
        created_by: Actor {
            kind: row.try_get("created_by_type")?,
            id: row.try_get("created_by_id")?,
        },
        expires_at: moment("expires_at")?,
        last_used_at: moment("last_used_at")?,
        uses_left: row.try_get("uses_left")?,
    })
}

fn selector_of(row: &Row) -> Result<Selector, Error> {
    let Json(tags): Json<BTreeMap<String, String>> = row.try_get("tags")?;
    Ok(Selector { region: row.try_get("region")?, tags })
}

/// A token, as a pod has to know it.
pub struct Known {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// What it reaches.
    pub selector: Selector,
    /// To compare it with.
    pub digest: Digest,
    /// When it ends.
    pub expires_at: Option<OffsetDateTime>,
}

/// Which tokens there were at a moment of the database's clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Version {
    /// The newest change.
    change: i64,
    /// How many there are: whoever takes one away by hand, past the history, is noticed too.
    count: i64,
}

/// Whether there are others than before is told by the history's newest number, which costs one look at an index.
const VERSION: &str = "
    select (select coalesce(max(change), 0) from token_changes) as change,
           (select count(*) from tokens) as count, clock_timestamp() as now";

/// The present version, and the database's time.
pub async fn version(client: &impl GenericClient) -> Result<(Version, OffsetDateTime), Error> {
    let statement = client.prepare_cached(VERSION).await?;
    let row = client.query_one(&statement, &[]).await?;
    let version = Version { change: row.try_get("change")?, count: row.try_get("count")? };
    Ok((version, row.try_get("now")?))
}

const KNOWN: &str = "
    select id, name, role, region, tags, token_digest, expires_at from tokens limit $1";

/// All tokens there are. One that this program does not understand opens nothing.
pub async fn known(client: &impl GenericClient) -> Result<Vec<Known>, Error> {
    let rows = client.query(KNOWN, &[&MAX_TOKENS]).await?;
    let mut tokens = Vec::with_capacity(rows.len());
    for row in &rows {
        let role: Word<Role> = row.try_get("role")?;
        let digest = Digest::from_stored(row.try_get("token_digest")?);
        let Some((role, digest)) = role.known().zip(digest) else { continue };
        tokens.push(Known {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            role,
            selector: selector_of(row)?,
            digest,
            expires_at: row.try_get("expires_at")?,
        });
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: Value) -> Result<Checked, String> {
        let new: NewToken = serde_json::from_value(json).expect("a token");
        new.check().map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn a_token_names_its_role_and_a_selector_that_bounds_something() {
        let some = check(json!({
            "name": "deploy", "role": "operator", "selector": {"region": "eu", "tags": {"tier": "gold"}}
        }));
        let some = some.expect("a token");
        assert_eq!((some.name.as_str(), some.role), ("deploy", Role::Operator));
        assert_eq!(some.selector.region.as_deref(), Some("eu"));
        assert_eq!(some.selector.tags["tier"], "gold");
        for unbounded in [
            json!({"name": "a", "role": "read"}),
            json!({"name": "system", "role": "read", "selector": null}),
        ] {
            assert!(!check(unbounded).expect("a token").selector.is_bounded());
        }
    }

    #[test]
    fn uses_are_counted_of_tokens_for_enrolment_and_of_no_others() {
        let of = |role: &str, uses: i64| json!({"name": "a", "role": role, "uses": uses});
        assert_eq!(check(of("enrol", 1)).expect("a token").uses, Some(1));
        assert_eq!(check(of("enrol", MAX_USES)).expect("a token").uses, Some(MAX_USES));
        for uses in [0, -1, MAX_USES + 1] {
            let said = check(of("enrol", uses)).expect_err("refused");
            assert_eq!(said, "uses must be from 1 to 1000000");
        }
        for role in ["admin", "operator", "read"] {
            let said = check(of(role, 1)).expect_err("refused");
            assert_eq!(said, format!("uses is for the role enrol only, not for {role}"));
        }
    }

    #[test]
    fn what_is_wrong_is_named_and_a_bound_that_nobody_knows_is_refused() {
        let long = "x".repeat(201);
        let of = |selector: Value| json!({"name": "a", "role": "read", "selector": selector});
        for (json, words) in [
            (json!({"name": "", "role": "read"}), "name must have 1 to 200"),
            (json!({"name": long, "role": "read"}), "name must have 1 to 200"),
            (json!({"name": "a\u{202e}b", "role": "read"}), "name must not contain"),
            (json!({"name": "admin", "role": "read"}), "name must not be admin"),
            (
                json!({"name": "a", "role": "root"}),
                "role must be one of admin, operator, read, enrol",
            ),
            (of(json!({})), "selector must name a region or tags"),
            (of(json!({"tags": {}})), "selector must name a region or tags"),
            (of(json!({"region": null})), "selector must name a region or tags"),
            (
                of(json!({"region": "eu", "tag": {"tier": "gold"}})),
                "selector.tag must be region or tags",
            ),
            (of(json!({"region": 7})), "selector must be"),
            (of(json!({"tags": {"tier": 7}})), "selector must be"),
            (of(json!({"region": long})), "selector.region must have 1 to 200"),
            (of(json!({"region": ""})), "selector.region must have 1 to 200"),
            (of(json!({"tags": {"a:b": "c"}})), "selector.tags.a:b must have a name"),
        ] {
            let said = check(json.clone()).expect_err("refused");
            assert!(said.starts_with(words), "{json}: {said}");
        }
    }
}
