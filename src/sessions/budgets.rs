//! What each satellite may spend at this pod, however often it reconnects: accounts that refill with time.
//!
//! Only authenticated satellites have an account, and a full account is forgotten. There are never more than
//! [`MAX_ACCOUNTS`]. If all of those are in use at once, all are reset to full, which is generous for one
//! burst.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tokio::time::Instant;

use crate::domain::lifecycle::{SatelliteId, Session};
use crate::platform::bucket::Rate;

/// Accounts of one kind: more than a pod has sessions, at some 60 bytes each.
const MAX_ACCOUNTS: usize = 262_144;

/// Accounts by satellite, all of the same rate.
pub struct Budgets {
    rate: Rate,
    accounts: HashMap<SatelliteId, Account>,
}

/// What a satellite has left; negative if it owes.
#[derive(Debug, Clone, Copy)]
struct Account {
    left: f32,
    at: Instant,
    /// The newest session whose connect is paid for.
    paid: Session,
}

impl Account {
    /// Its balance at `now`, without the upper limit.
    fn flown(&self, rate: Rate, now: Instant) -> f32 {
        let passed = now.saturating_duration_since(self.at).as_secs_f32();
        self.left + passed * rate.per_second
    }
}

impl Budgets {
    /// Accounts of this rate, all full.
    pub fn new(rate: Rate) -> Budgets {
        Budgets { rate, accounts: HashMap::new() }
    }

    /// Pays for a connect; false if too little is left. `newest` is the satellite's newest session in the
    /// database, which counts its connects at all pods: connects at other pods are paid for first. A
    /// satellite that this pod does not know yet has a full account.
    pub fn connect(&mut self, satellite: SatelliteId, newest: Session, now: Instant) -> bool {
        let rate = self.rate;
        let account = self.account(satellite, newest, now);
        let elsewhere = (newest.0 - account.paid.0).max(0);
        // Connects elsewhere were allowed there, so they never make the account negative.
        account.left = (account.flown(rate, now) - elsewhere as f32).clamp(0.0, rate.burst);
        account.at = now;
        account.paid = account.paid.max(newest);
        if account.left < 1.0 {
            return false;
        }
        account.left -= 1.0;
        // The session that this connect begins.
        account.paid.0 += 1;
        true
    }

    /// Spends `amount` and returns what is owed then. If more than `credit` is owed already, nothing is
    /// spent.
    pub fn spend(
        &mut self,
        satellite: SatelliteId,
        amount: usize,
        credit: f32,
        now: Instant,
    ) -> Result<f32, Broke> {
        let rate = self.rate;
        let account = self.account(satellite, Session(0), now);
        account.left = account.flown(rate, now).min(rate.burst);
        account.at = now;
        if account.left < -credit {
            return Err(Broke);
        }
        account.left -= amount as f32;
        Ok((-account.left).max(0.0))
    }

    fn account(&mut self, satellite: SatelliteId, paid: Session, now: Instant) -> &mut Account {
        let rate = self.rate;
        if self.accounts.len() >= MAX_ACCOUNTS && !self.accounts.contains_key(&satellite) {
            self.accounts.retain(|_, account| account.flown(rate, now) < rate.burst);
            if self.accounts.len() >= MAX_ACCOUNTS {
                self.accounts.clear();
            }
        }
        match self.accounts.entry(satellite) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Account { left: rate.burst, at: now, paid }),
        }
    }
}

/// The account is exhausted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broke;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use uuid::Uuid;

    const RATE: Rate = Rate { burst: 5.0, per_second: 0.1 };
    const ID: SatelliteId = SatelliteId(Uuid::from_u128(1));

    #[test]
    fn a_burst_of_connects_is_let_through_and_then_one_at_a_time() {
        let (mut budgets, start) = (Budgets::new(RATE), Instant::now());
        for session in 0..5 {
            assert!(budgets.connect(ID, Session(session), start));
        }
        assert!(!budgets.connect(ID, Session(5), start));
        assert!(!budgets.connect(ID, Session(5), start + Duration::from_secs(9)));
        assert!(budgets.connect(ID, Session(5), start + Duration::from_secs(11)));
        assert!(!budgets.connect(ID, Session(6), start + Duration::from_secs(12)));
    }

    #[test]
    fn what_it_connected_elsewhere_is_paid_for_and_nothing_is_owed_for_it() {
        let (mut budgets, start) = (Budgets::new(RATE), Instant::now());
        assert!(budgets.connect(ID, Session(100), start), "a satellite it has not seen before");
        assert!(budgets.connect(ID, Session(104), start), "its own, and three elsewhere");
        assert!(!budgets.connect(ID, Session(140), start));
        assert!(budgets.connect(ID, Session(140), start + Duration::from_secs(11)));
        // After an hour without more than a few connects elsewhere, it is full again.
        let later = start + Duration::from_secs(3_600);
        for session in 150..155 {
            assert!(budgets.connect(ID, Session(session), later));
        }
        assert!(!budgets.connect(ID, Session(155), later));
    }

    #[test]
    fn what_is_read_of_its_own_connects_late_is_not_paid_for_twice() {
        let (mut budgets, start) = (Budgets::new(RATE), Instant::now());
        for _ in 0..5 {
            assert!(budgets.connect(ID, Session(7), start));
        }
        assert!(!budgets.connect(ID, Session(7), start));
        assert!(budgets.connect(ID, Session(12), start + Duration::from_secs(11)));
    }

    #[test]
    fn what_is_owed_is_told_and_beyond_its_credit_nothing_is_spent() {
        let rate = Rate { burst: 100.0, per_second: 10.0 };
        let (mut budgets, start) = (Budgets::new(rate), Instant::now());
        assert_eq!(budgets.spend(ID, 90, 50.0, start), Ok(0.0));
        assert_eq!(budgets.spend(ID, 50, 50.0, start), Ok(40.0));
        assert_eq!(budgets.spend(ID, 50, 50.0, start), Ok(90.0));
        assert_eq!(budgets.spend(ID, 1, 50.0, start), Err(Broke));
        assert_eq!(budgets.spend(ID, 1, 50.0, start + Duration::from_secs(5)), Ok(41.0));
        let other = SatelliteId(Uuid::from_u128(2));
        assert_eq!(budgets.spend(other, 100, 50.0, start), Ok(0.0));
    }
}
