//! What a stolen database password of a pod would allow.
//!
//! A pod takes the service's role in every session, and anybody with its password can reset that role. So the role
//! that logs in counts: `deploy/postgres/roles.sql` makes one that can become the service and nothing else. Only
//! reports; nothing depends on it.

use deadpool_postgres::GenericClient;
use tokio_postgres::Error;

/// Roles this login is, or can become. CREATEROLE is as good as any role up to PostgreSQL 15.
const POWERS: &str = "
    select array_remove(array[
        case when exists (select from pg_roles r where r.rolsuper and pg_has_role(session_user, r.oid, 'member'))
             then 'a superuser' end,
        case when pg_has_role(session_user, log.relowner, 'member') then 'the owner of the log' end,
        case when exists (select from pg_roles r
                           where r.rolcreaterole and pg_has_role(session_user, r.oid, 'member'))
             then 'one that makes roles' end], null)
      from pg_class log where log.oid = to_regclass('entity_transitions')";

/// In words, what this login can become beside the service's role. An empty list is best.
pub async fn beyond_the_service(client: &impl GenericClient) -> Result<Vec<String>, Error> {
    let row = client.query_opt(POWERS, &[]).await?;
    row.map_or(Ok(Vec::new()), |row| row.try_get(0))
}
