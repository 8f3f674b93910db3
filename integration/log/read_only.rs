//! A database that has become read-only, as after a failed failover: no edge is acknowledged falsely, and the pod
//! goes on by itself when it can write again.

use crate::harness::refusal::Refused;
use crate::harness::{CALM, Fleet};

/// Ends every session of the database except the caller's: a setting of the database holds only for sessions that
/// begin later.
const END_SESSIONS: &str = "
    select pg_terminate_backend(pid) from pg_stat_activity
     where datname = current_database() and pid <> pg_backend_pid()";

async fn set(fleet: &Fleet, read_only: &str) {
    let sql = fleet.sql().await;
    let name: String =
        sql.query_one("select current_database()", &[]).await.expect("a name").get(0);
    let alter = format!(
        "set transaction read write; alter database {name} set default_transaction_read_only = {read_only}"
    );
    sql.batch_execute(&alter).await.expect("set");
}

#[tokio::test]
async fn while_the_database_is_read_only_nothing_is_acknowledged_and_then_it_goes_on() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let mut refused = Refused::prepare(&fleet, &pod).await;
    set(&fleet, "on").await;
    fleet.sql().await.batch_execute(END_SESSIONS).await.expect("ended");
    refused.nothing_is_acknowledged().await;
    // Readers at the same time: as many sessions as the pod may have. Sessions that began meanwhile are not ended and
    // stay read-only, so the pod must not go on with them.
    futures_util::future::join_all((0..24).map(|_| pod.get("/v1/satellites"))).await;
    set(&fleet, "off").await;
    refused.everything_is_made_up_for().await;
}
