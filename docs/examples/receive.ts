// A receiver of Groundstation's webhooks. It is the same as receive.py, whose first lines say what it does and why.
//
// Needs Node.js 22.18 or newer, which runs TypeScript as it is, and nothing else. Settings: WEBHOOK_SECRET (whsec_…;
// while it is rotated several, with spaces), PORT.

import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer, type IncomingHttpHeaders, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";

const TOLERANCE = 5 * 60;
const LARGEST = 1 << 20;
const REMEMBERED = 10_000;

const keys = (process.env.WEBHOOK_SECRET ?? "")
  .split(/\s+/)
  .filter((word) => word.startsWith("whsec_"))
  .map((word) => Buffer.from(word.slice("whsec_".length), "base64"));
if (keys.length === 0) throw new Error("WEBHOOK_SECRET is missing");

const text = (headers: IncomingHttpHeaders, name: string): string => String(headers[name] ?? "");

// Whether one of our secrets signed this, lately.
function isGenuine(headers: IncomingHttpHeaders, body: Buffer, now: number): boolean {
  const id = text(headers, "webhook-id");
  const at = text(headers, "webhook-timestamp");
  if (id === "" || !/^\d+$/.test(at) || Math.abs(now - Number(at)) > TOLERANCE) return false;
  const signed = Buffer.concat([Buffer.from(`${id}.${at}.`), body]);
  const theirs = text(headers, "webhook-signature").split(" ").map((word) => Buffer.from(word));
  return keys.some((key) => {
    const ours = Buffer.from(`v1,${createHmac("sha256", key).update(signed).digest("base64")}`);
    return theirs.some((one) => one.length === ours.length && timingSafeEqual(one, ours));
  });
}

async function read(request: IncomingMessage): Promise<Buffer | undefined> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of request) {
    length += part.length;
    if (length > LARGEST) return undefined;
    parts.push(part);
  }
  return Buffer.concat(parts);
}

// The work itself. Webhooks of one satellite come one after the other, in order.
async function handle(headers: IncomingHttpHeaders, body: { satelliteId: string }): Promise<void> {
  const position = Number(text(headers, "ce-sequence"));
  console.log(JSON.stringify({ type: text(headers, "ce-type"), position, satelliteId: body.satelliteId }));
}

// In a service of yours this is a table, written in the transaction of `handle`.
const handled = new Set<string>();

// Only what was done is answered 204.
async function answer(request: IncomingMessage): Promise<number> {
  const body = await read(request);
  if (body === undefined) return 413;
  if (!isGenuine(request.headers, body, Date.now() / 1000)) return 401;
  const id = text(request.headers, "webhook-id");
  if (!handled.has(id)) {
    await handle(request.headers, JSON.parse(body.toString()));
    handled.add(id);
    const [oldest] = handled;
    if (handled.size > REMEMBERED && oldest !== undefined) handled.delete(oldest);
  }
  return 204;
}

const server = createServer((request, response) => {
  answer(request)
    .catch((error) => (console.error(`not handled: ${error}`), 503))
    .then((status) => response.writeHead(status).end());
});
server.listen(Number(process.env.PORT ?? "8000"), "127.0.0.1", () => {
  console.log(`listening on 127.0.0.1:${(server.address() as AddressInfo).port}`);
});
