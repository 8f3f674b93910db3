//! Satellites by their names, of which several may have the same.

use deadpool_postgres::GenericClient;
use tokio_postgres::Error;
use uuid::Uuid;

const IDS: &str = "select id from satellites where name = $1 order by id";

/// The ids of the satellites that are called so.
pub async fn ids_of_name(client: &impl GenericClient, name: &str) -> Result<Vec<Uuid>, Error> {
    client.query(IDS, &[&name]).await?.iter().map(|row| row.try_get(0)).collect()
}
