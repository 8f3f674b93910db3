use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How far a caller has come: the last transition that it has handled, or the fleet as of a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its position in the log; 0 before the first.
    pub position: i64,
    /// Its change id; none if the place is that of a fleet.
    pub change: Option<Uuid>,
    /// How often the stream had been built by then; 1 at first.
    pub epoch: i64,
}

impl Place {
    /// Before the first transition: whoever begins here is given all that the log has.
    pub const BEGINNING: Place = Place { position: 0, change: None, epoch: 1 };

    /// How a transition with this position and change stands to this place.
    pub(crate) fn sees(&self, position: i64, change: Uuid) -> Seen {
        if position < self.position {
            return Seen::Handled;
        }
        if position == self.position {
            return match self.change {
                Some(known) if known != change => Seen::AnotherPast,
                _ => Seen::Handled,
            };
        }
        if position == self.position + 1 { Seen::Next } else { Seen::Ahead }
    }
}

/// How a transition stands to a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It was handled before.
    Handled,
    /// Another change was handled at its position.
    AnotherPast,
    /// It is the next one.
    Next,
    /// Others are missing before it.
    Ahead,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_tells_repeats_gaps_and_another_past_apart() {
        let (ours, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let place = Place { position: 7, change: Some(ours), epoch: 1 };
        assert_eq!(place.sees(6, other), Seen::Handled);
        assert_eq!(place.sees(7, ours), Seen::Handled);
        assert_eq!(place.sees(7, other), Seen::AnotherPast);
        assert_eq!(place.sees(8, other), Seen::Next);
        assert_eq!(place.sees(9, other), Seen::Ahead);
        let of_a_fleet = Place { change: None, ..place };
        assert_eq!(of_a_fleet.sees(7, other), Seen::Handled, "its change is not known");
        assert_eq!(Place::BEGINNING.sees(1, ours), Seen::Next);
    }

    #[test]
    fn a_place_is_kept_as_json() {
        let place = Place { position: 7, change: Some(Uuid::from_u128(1)), epoch: 2 };
        let text = serde_json::to_string(&place).expect("JSON");
        assert_eq!(serde_json::from_str::<Place>(&text).expect("a place"), place);
        let of_another: Place =
            serde_json::from_str(r#"{"position": 1, "change": null, "epoch": 1}"#)
                .expect("a place");
        assert_eq!(of_another.change, None);
    }
}
