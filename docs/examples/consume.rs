//! A durable consumer of the stream, by the crate `groundstation-consumer`: it handles each transition once, in order,
//! whatever happens to the consumer, the stream or NATS. `consume.py` and `consume.ts` do the same by hand.
//!
//! Settings: `NATS_URL`, `STATE` (a file), `DURABLE` (the consumer's name), `COUNT` (end after so many).

use std::{env, fs};

use groundstation_consumer::{Consumer, Place, Step, connect};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let setting = |name, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let (file, durable) = (setting("STATE", "consume.state"), setting("DURABLE", "automation"));
    let mut left: u64 = setting("COUNT", "0").parse()?;
    let client = connect(&setting("NATS_URL", "nats://127.0.0.1:4222")).await?;
    // Without a place the consumer would begin with the whole fleet.
    let stored = fs::read_to_string(&file).ok().map(|text| serde_json::from_str(&text));
    let place: Place = stored.transpose()?.unwrap_or(Place::BEGINNING);
    let mut epoch = place.epoch;
    let mut consumer = Consumer::open(client, &durable, Some(place)).await?;
    loop {
        let taken = consumer.next().await?;
        match &taken.step {
            Step::Transition(t) => println!(
                "{}",
                serde_json::json!({"position": t.position, "satellite": t.satellite, "reason": t.reason})
            ),
            Step::Fleet(fleet) => println!("{} satellites as of {}", fleet.satellites.len(), fleet.position),
        }
        if taken.place.epoch > epoch {
            epoch = taken.place.epoch;
            eprintln!("epoch {epoch}: the stream was built anew");
        }
        // In a transaction with the effects of the step, each effect is there exactly once. In a file of its own, as
        // here, a crash between the two handles one step again.
        fs::write(format!("{file}.new"), serde_json::to_string(&taken.place)?)?;
        fs::rename(format!("{file}.new"), &file)?;
        left = left.saturating_sub(1);
        if left == 0 && setting("COUNT", "0") != "0" {
            return Ok(());
        }
    }
}
