//! Tags as the command line gives them: all of them, or single ones that come or go.

use std::collections::BTreeMap;

use anyhow::{anyhow, bail};
use clap::Args;
use uuid::Uuid;

use super::exit::wrong_usage;
use crate::clients::client::{Client, Refused, Update};
use crate::contract::wire::SatelliteJson;

/// How often a change is tried that others get in the way of.
const TRIES: usize = 5;

/// The changes to a satellite's tags.
#[derive(Args)]
pub struct TagArgs {
    /// All of its tags from now on; may be given several times
    #[arg(long = "tag", value_name = "NAME:VALUE", conflicts_with = "no_tags")]
    tags: Vec<String>,
    /// Take all of its tags away
    #[arg(long)]
    no_tags: bool,
    /// Add this tag, or give it another value; may be given several times
    #[arg(long, value_name = "NAME:VALUE", conflicts_with_all = ["tags", "no_tags"])]
    add_tag: Vec<String>,
    /// Take this tag away, whatever its value; may be given several times
    #[arg(long, value_name = "NAME", conflicts_with_all = ["tags", "no_tags"])]
    remove_tag: Vec<String>,
}

impl TagArgs {
    /// Changes a satellite: these of its tags, and whatever else the update says.
    ///
    /// Single tags are read and written back with If-Match, so that a tag that another command adds meanwhile stays.
    pub fn change(
        &self,
        client: &Client,
        id: Uuid,
        mut update: Update,
    ) -> anyhow::Result<SatelliteJson> {
        if !self.has_single_ones() {
            update.tags = self.all()?;
            return client.update(id, &update, None);
        }
        let added = parse("--add-tag", &self.add_tag)?;
        for _ in 0..TRIES {
            let (satellite, version) = client.get_versioned(id)?;
            let mut tags = satellite.tags;
            tags.retain(|name, _| !self.remove_tag.contains(name));
            tags.extend(added.clone());
            update.tags = Some(tags);
            match client.update(id, &update, Some(&version)) {
                Err(error) if is_stale(&error) => {}
                changed => return changed,
            }
        }
        bail!("others changed the satellite {TRIES} times meanwhile: nothing was changed")
    }

    /// Whether they change nothing.
    pub fn is_empty(&self) -> bool {
        !self.no_tags && self.tags.is_empty() && !self.has_single_ones()
    }

    fn has_single_ones(&self) -> bool {
        !self.add_tag.is_empty() || !self.remove_tag.is_empty()
    }

    fn all(&self) -> anyhow::Result<Option<BTreeMap<String, String>>> {
        let is_given = self.no_tags || !self.tags.is_empty();
        is_given.then(|| parse("--tag", &self.tags)).transpose()
    }
}

/// Another writer came in between.
fn is_stale(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.status == 412)
}

/// Tags by their names.
pub fn parse(option: &str, tags: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    tags.iter()
        .map(|tag| match tag.split_once(':') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(wrong_usage(anyhow!("{option} is {tag:?}, it must be written NAME:VALUE"))),
        })
        .collect()
}
