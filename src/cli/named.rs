//! The satellite that a command is about, named by its id or by a name that no other has.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use deadpool_postgres::Object;
use thiserror::Error;
use uuid::Uuid;

use crate::clients::client::Client;
use crate::platform::database::Database;
use crate::registry::named::ids_of_name;

/// As it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// By its id; it may have been removed.
    Id(Uuid),
    /// By its name; it is registered.
    Name(String),
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Named::Id(id) => id.fmt(f),
            Named::Name(name) => name.fmt(f),
        }
    }
}

impl FromStr for Named {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Named, Infallible> {
        Ok(Uuid::try_parse(text).map_or_else(|_| Named::Name(text.to_owned()), Named::Id))
    }
}

/// A name that names no satellite, or several.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum Unnamed {
    /// No satellite is called so.
    #[error("there is no satellite {0:?}: it is neither an id nor a name")]
    NotThere(String),
    /// Several are.
    #[error("{} satellites are called {name:?}: name one by its id, which is {}", .ids.len(), list(.ids))]
    Ambiguous {
        /// How they are called.
        name: String,
        /// All of them.
        ids: Vec<Uuid>,
    },
}

/// Neither an id nor the name of a token of the HTTP API.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("there is no token {0:?}: it is neither an id nor a name")]
pub struct NoToken(pub String);

/// Ids that an error lists.
const MAX_LISTED: usize = 10;

fn list(ids: &[Uuid]) -> String {
    let listed = ids.iter().take(MAX_LISTED).map(Uuid::to_string);
    let more = (ids.len() > MAX_LISTED).then(|| "another".to_owned());
    listed.chain(more).collect::<Vec<_>>().join(" or ")
}

impl Named {
    /// Its id, as a pod knows it.
    pub fn id(&self, client: &Client) -> anyhow::Result<Uuid> {
        let name = match self {
            Named::Id(id) => return Ok(*id),
            Named::Name(name) => name,
        };
        // The filter takes names that contain it, whatever the case.
        let found = match name.is_empty() {
            true => Vec::new(),
            false => client.list(&[("q", name.clone())])?,
        };
        let found = found.iter().filter(|satellite| satellite.name == *name);
        Ok(only(name, found.map(|satellite| satellite.id).collect())?)
    }

    /// Its id, as the database knows it: for commands that have no pod.
    pub async fn id_in(&self, database: &Database) -> anyhow::Result<Uuid> {
        match self {
            Named::Id(id) => Ok(*id),
            Named::Name(name) => {
                let found = async |client: &mut Object| ids_of_name(client, name).await;
                Ok(only(name, database.run(found).await?)?)
            }
        }
    }
}

fn only(name: &str, mut ids: Vec<Uuid>) -> Result<Uuid, Unnamed> {
    match ids[..] {
        [] => Err(Unnamed::NotThere(name.to_owned())),
        [id] => Ok(id),
        _ => {
            ids.sort_unstable();
            Err(Unnamed::Ambiguous { name: name.to_owned(), ids })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_several_have_is_refused_with_their_ids() {
        let ids: Vec<Uuid> = (0..12).map(Uuid::from_u128).collect();
        assert_eq!(only("edge", ids[7..8].to_vec()), Ok(ids[7]));
        let none = only("edge", Vec::new()).expect_err("none is called so").to_string();
        assert_eq!(none, "there is no satellite \"edge\": it is neither an id nor a name");
        let two = only("edge", ids[..2].to_vec()).expect_err("two are").to_string();
        let either = format!("{} or {}", ids[0], ids[1]);
        assert_eq!(
            two,
            format!("2 satellites are called \"edge\": name one by its id, which is {either}")
        );
        let many = only("edge", ids).expect_err("twelve are").to_string();
        assert!(many.starts_with("12 satellites") && many.ends_with("or another"), "{many}");
    }
}
