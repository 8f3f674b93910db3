// A durable consumer of the stream: it handles each transition once, in order, whatever happens to the
// consumer, the stream or NATS. It is the same as consume.py, whose first lines say what it does and why.
//
// Needs Node.js 22.18 or newer, which runs TypeScript as it is, @nats-io/transport-node and
// @nats-io/jetstream. Settings: NATS_URL, STATE (a file), DURABLE (the consumer's name), COUNT (end after
// so many).

import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { AckPolicy, jetstream, jetstreamManager, type JsMsg } from "@nats-io/jetstream";
import { connect, type NatsConnection } from "@nats-io/transport-node";

const STREAM = "SATELLITE_TRANSITIONS";
const PAGE = 1000;

const durable = process.env.DURABLE ?? "automation";
const count = Number(process.env.COUNT ?? "0");
const file = process.env.STATE ?? "consume.state";

type Transition = { position: number; changeId: string; event: string; id: string };

// What survives a restart. Stored in one transaction with the effects of `handle`, each effect is
// there exactly once. In a file of its own, as here, a crash between the two handles one again.
let state = { position: 0, change: "", epoch: 1 };
if (existsSync(file)) state = JSON.parse(readFileSync(file, "utf8"));

// The work itself.
function handle({ position, event, id }: Transition): void {
  console.log(JSON.stringify({ position, event, satelliteId: id }));
}

// Handles a transition and remembers it.
function take(transition: Transition): void {
  handle(transition);
  state = { ...state, position: transition.position, change: transition.changeId };
  writeFileSync(`${file}.new`, JSON.stringify(state));
  renameSync(`${file}.new`, file);
}

// Asks the log for the missing transitions before a position; returns how many it handled.
async function fill(client: NatsConnection, position: number): Promise<number> {
  let filled = 0;
  while (state.position + 1 < position) {
    const until = Math.min(position - 1, state.position + PAGE);
    const asked = JSON.stringify({ after: state.position, limit: until - state.position });
    const reply = await client.request("groundstation.v1.transitions.list", asked, {
      timeout: 10_000,
    });
    const error = reply.headers?.get("Nats-Service-Error");
    if (error) throw new Error(`the log does not answer: ${error}`);
    const { transitions } = reply.json<{ transitions: Transition[] }>();
    for (const transition of transitions) {
      if (transition.position >= position) continue;
      take(transition);
      filled += 1;
    }
    if (state.position < until) break; // The rest is missing: the log begins later.
  }
  if (state.position > 0 && state.position + 1 < position) {
    console.error(`positions up to ${position - 1} were dropped: read the fleet`);
  }
  return filled;
}

// Handles a message unless it was handled before; returns how many transitions were handled.
async function consume(client: NatsConnection, message: JsMsg): Promise<number> {
  const position = Number(message.headers?.get("Groundstation-Position") || "0");
  if (position === 0) return 0; // A foreign message.
  const changeId = message.headers?.get("Nats-Msg-Id") ?? "";
  const epoch = Number(message.headers?.get("Groundstation-Epoch") || "1");
  if (epoch > state.epoch) {
    console.error(`epoch ${epoch}: the stream was built anew`);
    state.epoch = epoch;
  }
  if (position === state.position && changeId !== state.change) {
    throw new Error(`position ${position} is another change now: the log was restored`);
  }
  if (position <= state.position) {
    console.error(`position ${position} was handled before`);
    return 0;
  }
  const filled = await fill(client, position);
  const id = message.json<{ satelliteId: string }>().satelliteId;
  take({ position, changeId, event: message.subject.slice("satellite.".length), id });
  return filled + 1;
}

// The client takes user and password by option only.
const url = new URL(process.env.NATS_URL ?? "nats://127.0.0.1:4222");
const client = await connect({
  servers: url.host,
  ...(url.username && { user: url.username, pass: url.password }),
});
const manager = await jetstreamManager(client);
await manager.consumers.add(STREAM, { durable_name: durable, ack_policy: AckPolicy.Explicit });
const consumer = await jetstream(client).consumers.get(STREAM, durable);
let handled = 0;
for await (const message of await consumer.consume()) {
  handled += await consume(client, message);
  // Acknowledged only now: an unhandled message comes again.
  await message.ackAck();
  if (count > 0 && handled >= count) break;
}
await client.close();
