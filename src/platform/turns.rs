//! Which nats-server a pod connects to next: all that it knows take turns.
//!
//! By itself the client prefers those that failed it least, which is the one it is leaving: one that is
//! cut off from its cluster has failed nobody. See `docs/adr/0048-…`.

use std::sync::{Arc, Mutex, PoisonError};

use async_nats::{ReconnectToServer, Server, ServerAddr};

/// The servers that were chosen, the newest last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turns(Arc<Mutex<Vec<ServerAddr>>>);

impl Turns {
    /// One that was not chosen yet, any of them, so that pods spread over all; or the one that was
    /// chosen longest ago.
    pub fn next(&self, servers: &[Server]) -> Option<ReconnectToServer> {
        let mut chosen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = |addr: &ServerAddr| servers.iter().any(|server| server.addr == *addr);
        chosen.retain(is_known);
        let new: Vec<&Server> =
            servers.iter().filter(|server| !chosen.contains(&server.addr)).collect();
        let addr = match fastrand::choice(&new) {
            Some(server) => server.addr.clone(),
            None if chosen.is_empty() => return None,
            None => chosen.remove(0),
        };
        chosen.push(addr.clone());
        // The pause is the client's own.
        Some(ReconnectToServer { addr, delay: None })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn servers(names: &[&str]) -> Vec<Server> {
        let server = |name: &&str| Server {
            addr: name.parse().expect("an address"),
            failed_attempts: 0,
            did_connect: false,
            is_discovered: false,
            last_error: None,
        };
        names.iter().map(server).collect()
    }

    fn names(turns: &Turns, servers: &[Server], count: usize) -> Vec<String> {
        let next = || turns.next(servers).expect("a server").addr.host().to_owned();
        std::iter::repeat_with(next).take(count).collect()
    }

    #[test]
    fn every_server_has_its_turn_before_any_has_another() {
        let (turns, three) = (Turns::default(), servers(&["a", "b", "c"]));
        let first = names(&turns, &three, 3);
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 3);
        assert_eq!(names(&turns, &three, 6), [first.clone(), first].concat());
    }

    #[test]
    fn a_server_that_comes_is_next_and_one_that_went_is_none() {
        let turns = Turns::default();
        names(&turns, &servers(&["a", "b"]), 2);
        assert_eq!(names(&turns, &servers(&["a", "b", "c"]), 1), ["c"]);
        assert_eq!(names(&turns, &servers(&["c"]), 2), ["c", "c"]);
        assert!(turns.next(&[]).is_none());
    }
}
