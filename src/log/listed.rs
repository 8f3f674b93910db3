//! What lists of the fleet, as it is and as it was, have in common in SQL: their order, the place at which a page
//! ends, and the tags that are asked for.

use std::collections::BTreeMap;

use tokio_postgres::types::{Json, ToSql};
use uuid::Uuid;

use crate::domain::selection::{Order, Place, Selection, Sort};

/// What the columns are called, or computed from, in one statement. Moments are to the millisecond: places are told
/// in that.
pub struct Columns {
    /// The name.
    pub name: &'static str,
    /// The id.
    pub id: &'static str,
    /// The region.
    pub region: &'static str,
    /// When it was registered.
    pub created_at: &'static str,
    /// When it was heard last; never null. Those that are online are heard now, all alike: `infinity`.
    pub last_seen_at: &'static str,
}

/// Fills `{behind}` and `{order}` in a statement. Its parameters from `$first` on are those of [`Behind::parameters`].
pub fn in_order(statement: &str, order: Order, columns: &Columns, first: usize) -> String {
    let (name, id, key) = (first, first + 1, first + 2);
    let by = match order.by {
        Sort::Name => None,
        Sort::Region => Some((columns.region, format!("${key}::text"))),
        Sort::CreatedAt => Some((columns.created_at, format!("${key}::text::timestamptz"))),
        Sort::LastSeenAt => Some((columns.last_seen_at, format!("${key}::text::timestamptz"))),
    };
    let (key_column, key_value) = by.unzip();
    let (beyond, direction) = if order.descending { ("<", " desc") } else { (">", "") };
    let ordered: Vec<&str> = key_column.into_iter().chain([columns.name, columns.id]).collect();
    let values = key_value.into_iter().chain([format!("${name}::text"), format!("${id}::uuid")]);
    let behind = format!(
        "(${name}::text is null or ({}) {beyond} ({}))",
        ordered.join(", "),
        values.collect::<Vec<_>>().join(", ")
    );
    let ordered: Vec<String> =
        ordered.iter().map(|column| format!("{column}{direction}")).collect();
    statement.replace("{behind}", &behind).replace("{order}", &ordered.join(", "))
}

/// A place as parameters.
#[derive(Debug, Default)]
pub struct Behind {
    name: Option<String>,
    id: Option<Uuid>,
    key: Option<String>,
    /// By the name alone there is no key.
    has_key: bool,
}

impl Behind {
    /// Behind this place in this order, or from the beginning.
    pub fn new(place: Option<&Place>, order: Order) -> Behind {
        Behind {
            name: place.map(|place| place.name.clone()),
            id: place.map(|place| place.id),
            key: place.and_then(|place| place.key.clone()),
            has_key: order.by != Sort::Name,
        }
    }

    /// In the order of their numbers; the last statement's parameters, as there may be two or three.
    pub fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&self.name, &self.id];
        if self.has_key {
            parameters.push(&self.key);
        }
        parameters
    }
}

/// An object for each tag: one for all of them would hold one value of a name.
pub fn tags(selection: &Selection) -> Vec<Json<BTreeMap<&str, &str>>> {
    let tags = selection.tags.iter();
    tags.map(|(name, value)| Json(BTreeMap::from([(name.as_str(), value.as_str())]))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use strum::IntoEnumIterator;

    const COLUMNS: Columns =
        Columns { name: "n", id: "i", region: "r", created_at: "c", last_seen_at: "l" };

    #[test]
    fn a_page_begins_behind_its_place_in_the_order_it_is_in() {
        let said = |word: &str| {
            let order = word.parse().expect("an order");
            in_order("{behind} | {order}", order, &COLUMNS, 3)
        };
        assert_eq!(said("name"), "($3::text is null or (n, i) > ($3::text, $4::uuid)) | n, i");
        assert_eq!(
            said("-region"),
            "($3::text is null or (r, n, i) < ($5::text, $3::text, $4::uuid)) | r desc, n desc, i desc"
        );
        assert_eq!(
            said("lastSeenAt"),
            "($3::text is null or (l, n, i) > ($5::text::timestamptz, $3::text, $4::uuid)) | l, n, i"
        );
    }

    #[test]
    fn a_statement_has_as_many_parameters_as_it_names() {
        for by in Sort::iter() {
            let order = Order { by, descending: false };
            let statement = in_order("{behind}", order, &COLUMNS, 1);
            let named = (1..=3).filter(|n| statement.contains(&format!("${n}:"))).count();
            assert_eq!(Behind::new(None, order).parameters().len(), named, "{statement}");
        }
    }
}
