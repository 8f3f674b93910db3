//! Tokens as an import brings them: their digests are slow.

use super::fleet::Fleet;
use super::pod::Pod;
use super::satellite::Credentials;

/// Stores a token's bcrypt hash, as an import does.
pub async fn imported(
    fleet: &Fleet,
    pod: &Pod,
    token: &str,
    prefix: &str,
    cost: u32,
) -> Credentials {
    let registered = pod.register("edge", "eu").await;
    let made = bcrypt::hash(token, cost).expect("a digest");
    let stored = format!("{prefix}{}", &made[4..]);
    const STORE: &str = "update satellites set token_hash = $2 where id = $1";
    let sql = fleet.sql().await;
    sql.execute(STORE, &[&registered.id, &stored]).await.expect("stored");
    Credentials { id: registered.id, token: token.to_owned() }
}

/// The digest of a satellite's present token, as it is stored.
pub async fn stored(fleet: &Fleet, credentials: &Credentials) -> String {
    const STORED: &str = "select token_hash from satellites where id = $1";
    fleet.sql().await.query_one(STORED, &[&credentials.id]).await.expect("stored").get(0)
}
