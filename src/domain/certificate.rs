//! Whom a client's certificate names.

use uuid::Uuid;

use crate::domain::lifecycle::SatelliteId;

/// A UUID among the URIs of a certificate is written so (RFC 9562, 4).
const UUID_URI: &str = "urn:uuid:";

/// Whether one of the names in a verified certificate (the common names of its subject, its DNS names and its URIs) is
/// the satellite's id or its name. A name that is a UUID is an id and nothing else, so that nobody takes another's id
/// for a name.
pub fn names(given: &[String], satellite: SatelliteId, name: &str) -> bool {
    given.iter().any(|given| match Uuid::try_parse(given.strip_prefix(UUID_URI).unwrap_or(given)) {
        Ok(id) => id == satellite.0,
        Err(_) => given == name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Uuid = Uuid::from_u128(0x0191_0000_0000_7000_8000_0000_0000_0001);
    const OTHER: &str = "01910000-0000-7000-8000-000000000002";

    fn is_named(given: &[&str], name: &str) -> bool {
        let given: Vec<String> = given.iter().map(|name| (*name).to_owned()).collect();
        names(&given, SatelliteId(ID), name)
    }

    #[test]
    fn a_certificate_names_a_satellite_by_its_id_or_its_name() {
        let id = ID.to_string();
        let cases: [(&[&str], bool); 9] = [
            (&[], false),
            (&["edge-eu"], true),
            (&["other", "edge-eu"], true),
            (&["EDGE-EU"], false),
            (&["edge-eu.example"], false),
            (&[""], false),
            (&[&id], true),
            (&[&id.to_uppercase()], true),
            (&[&format!("urn:uuid:{id}")], true),
        ];
        for (given, expected) in cases {
            assert_eq!(is_named(given, "edge-eu"), expected, "{given:?}");
        }
        assert!(
            !is_named(&[OTHER], "edge-eu") && !is_named(&[&format!("urn:uuid:{OTHER}")], "edge-eu")
        );
    }

    #[test]
    fn another_satellites_id_is_nobodys_name() {
        assert!(!is_named(&[OTHER], OTHER));
    }
}
