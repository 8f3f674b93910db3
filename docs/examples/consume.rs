//! A durable consumer of the stream, by the crate `groundstation-consumer`: it handles each transition once, in order,
//! whatever happens to the consumer, the stream or NATS. `consume.py` and `consume.ts` do the same by hand.
//!
//! Settings: `NATS_URL`, `STATE` (a file), `DURABLE` (the consumer's name), `COUNT` (end after so many).

use std::{env, fs};

use groundstation_consumer::{Consumer, Place, connect};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let setting = |name, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let (file, durable) = (setting("STATE", "consume.state"), setting("DURABLE", "automation"));
    let count: usize = setting("COUNT", "0").parse()?;
    let client = connect(&setting("NATS_URL", "nats://127.0.0.1:4222")).await?;
    // Without a place it would begin with the whole fleet as it is now.
    let stored = fs::read_to_string(&file).ok().map(|text| serde_json::from_str(&text));
    let place: Place = stored.transpose()?.unwrap_or(Place::BEGINNING);
    let mut consumer = Consumer::open(client, &durable, Some(place)).await?;
    for handled in 1.. {
        let taken = consumer.next().await?;
        println!("{}", serde_json::to_string(&taken.step)?);
        // In one transaction with what follows from the step, each effect is there exactly once. In a file of its own,
        // as here, a crash between the two handles one step again.
        fs::write(format!("{file}.new"), serde_json::to_string(&taken.place)?)?;
        fs::rename(format!("{file}.new"), &file)?;
        if handled == count {
            eprintln!("epoch {}", taken.place.epoch);
            break;
        }
    }
    Ok(())
}
