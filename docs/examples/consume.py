#!/usr/bin/env python3
"""A durable consumer of the stream: it handles each transition once, in order, whatever happens to the
consumer, the stream or NATS. consume.ts is the same in another language; in Rust the crate
groundstation-consumer does it, and consume.rs shows how.

It remembers the last position it has handled, and its change id:

- A position up to that one was handled before (redelivered, or the stream was built anew and says so in
  Groundstation-Epoch): the consumer skips it.
- The same position with another change id: the log was restored to an earlier time and went another way. The
  consumer stops: only a person can decide about the transitions it handled.
- A gap: the consumer asks the log for the missing positions, by groundstation.v1.transitions.list. Retention
  has dropped those that are not there either: read the fleet as it is now (groundstation.v1.satellites.list).

Needs Python 3.9 and nats-py. Settings: NATS_URL, STATE (a file), DURABLE (the consumer's name), COUNT
(end after so many).
"""

import asyncio
import json
import os
import sys

import nats
from nats.errors import TimeoutError
from nats.js.api import ConsumerConfig

PAGE = 1000


class State:
    """What survives a restart. Stored in one transaction with the effects of `handle`, each effect is
    there exactly once. In a file of its own, as here, a crash between the two handles one again."""

    def __init__(self, file):
        self.file, self.position, self.change, self.epoch = file, 0, "", 1
        if os.path.exists(file):
            with open(file) as known:
                self.__dict__.update(json.load(known))

    def take(self, position, change, event, satellite):
        """Handles a transition and remembers it."""
        handle(position, event, satellite)
        self.position, self.change = position, change
        with open(self.file + ".new", "w") as new:
            json.dump({"position": position, "change": change, "epoch": self.epoch}, new)
        os.replace(self.file + ".new", self.file)

    async def fill(self, client, position):
        """Asks the log for the missing transitions before a position; returns how many it handled."""
        filled = 0
        while self.position + 1 < position:
            until = min(position - 1, self.position + PAGE)
            asked = json.dumps({"after": self.position, "limit": until - self.position})
            reply = await client.request(
                "groundstation.v1.transitions.list", asked.encode(), timeout=10
            )
            if reply.headers and "Nats-Service-Error" in reply.headers:
                sys.exit(f"the log does not answer: {reply.headers['Nats-Service-Error']}")
            page = json.loads(reply.data)["transitions"]
            for entry in page:
                if entry["position"] < position:
                    self.take(entry["position"], entry["changeId"], entry["event"], entry["id"])
                    filled += 1
            if self.position < until:
                break  # The rest is missing: the log begins later.
        if 0 < self.position < position - 1:
            print(f"positions up to {position - 1} were dropped: read the fleet", file=sys.stderr)
        return filled


def handle(position, event, satellite):
    """The work itself."""
    told = {"position": position, "event": event, "satelliteId": satellite}
    print(json.dumps(told), flush=True)


async def main():
    client = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))
    durable = os.environ.get("DURABLE", "automation")
    count = int(os.environ.get("COUNT", "0"))
    state = State(os.environ.get("STATE", "consume.state"))
    stream = client.jetstream()
    await stream.add_consumer("SATELLITE_TRANSITIONS", ConsumerConfig(durable_name=durable))
    consumer = await stream.pull_subscribe_bind(durable=durable, stream="SATELLITE_TRANSITIONS")
    handled = 0
    while count == 0 or handled < count:
        try:
            messages = await consumer.fetch(1 if count else 100, timeout=5)
        except TimeoutError:
            continue
        for message in messages:
            handled += await take(client, state, message)
            # Acknowledged only now: an unhandled message comes again.
            await message.ack_sync()
    await client.close()


async def take(client, state, message):
    """Handles a message unless it was handled before; returns how many transitions were handled."""
    headers = message.headers or {}
    if "Groundstation-Position" not in headers:
        return 0  # A foreign message.
    position, change = int(headers["Groundstation-Position"]), headers["Nats-Msg-Id"]
    epoch = int(headers.get("Groundstation-Epoch", "1"))
    if epoch > state.epoch:
        print(f"epoch {epoch}: the stream was built anew", file=sys.stderr)
        state.epoch = epoch
    if position == state.position and change != state.change:
        sys.exit(f"position {position} is another change now: the log was restored")
    if position <= state.position:
        print(f"position {position} was handled before", file=sys.stderr)
        return 0
    filled = await state.fill(client, position)
    satellite = json.loads(message.data)["satelliteId"]
    state.take(position, change, message.subject.split(".", 1)[1], satellite)
    return filled + 1


asyncio.run(main())
