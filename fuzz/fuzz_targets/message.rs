//! Any frame of a satellite: the parser gives a message or says what is wrong with it, and never
//! shows a token.

#![no_main]

use groundstation::gateway::protocol::FromSatellite;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let outcome = FromSatellite::parse(text);
    if let Ok(FromSatellite::Authenticate { token, .. }) = &outcome {
        assert!(!format!("{token:?}").contains("csat_"));
    }
    // A second look says the same.
    let again = FromSatellite::parse(text);
    assert_eq!(outcome.err(), again.err());
});
