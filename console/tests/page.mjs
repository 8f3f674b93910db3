// What the tests of the page share: a browser, people who are signed in, satellites that are real, and claims.
//
// A test is a plain script: it ends with 0, or says which claim failed and ends with 1. Nothing waits for a fixed
// time: whatever is waited for is observed.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { connect, createServer } from "node:net";
import { AxeBuilder, launch } from "../../tools/browser/launch.mjs";

const need = (name) => {
  const value = process.env[name];
  if (!value) {
    console.error(`${name} is not set: these scripts are started by the tests of the program`);
    process.exit(2);
  }
  return value;
};

/** The address of a pod. */
export const url = need("GROUNDSTATION_URL").replace(/\/$/, "");
export const tokens = { admin: need("GROUNDSTATION_ADMIN_TOKEN"), read: need("GROUNDSTATION_READ_TOKEN") };
const shots = process.env.GROUNDSTATION_SCREENSHOTS;

/** Whether every state is looked at in every way (`make test-faults`). It takes minutes. */
export const isFull = process.env.GROUNDSTATION_FAULTS === "full";

/** How long something that has to happen may take on a busy machine. */
export const PATIENCE = 30_000;

/** Sizes of screens. */
export const DESK = { width: 1440, height: 900 };
export const TABLET = { width: 1024, height: 768 };
export const PHONE = { width: 390, height: 844 };
/** The narrowest screen, and any other at a zoom of 400 %. */
export const NARROW = { width: 320, height: 640 };

const claims = [];

/** Something that has to hold. Claims run in the order they are made. */
export function claim(words, prove) {
  claims.push([words, prove]);
}

/** Proves all claims, in one browser. */
export async function prove() {
  const browser = await launch();
  let failed = 0;
  try {
    for (const [words, proof] of claims) {
      const begun = performance.now();
      const opened = [];
      try {
        await proof(new Visit(browser, opened));
        console.log(`ok   ${words} (${Math.round(performance.now() - begun)} ms)`);
      } catch (error) {
        failed += 1;
        console.error(`FAIL ${words}\n     ${error?.stack ?? error}`);
        await keepLast(opened, words);
      }
      for (const context of opened) await context.close();
    }
  } finally {
    await browser.close();
  }
  process.exit(failed === 0 ? 0 : 1);
}

async function keepLast(opened, words) {
  const page = opened.flatMap((context) => context.pages()).at(-1);
  if (!shots || !page) return;
  const name = words.replace(/[^a-z0-9]+/gi, "-").slice(0, 60);
  await page.screenshot({ path: `${shots}/failed-${name}.png` }).catch((error) => console.error(`no screenshot: ${error.message}`));
}

/** One person's visits: each context is a browser of its own. */
class Visit {
  constructor(browser, opened) {
    this.browser = browser;
    this.opened = opened;
  }

  /** A browser in which nobody is signed in. */
  async stranger({ scheme = "light", size = DESK, base = url, motion = "reduce" } = {}) {
    const context = await this.browser.newContext({ baseURL: base, viewport: size, colorScheme: scheme, locale: "en-US", reducedMotion: motion });
    context.setDefaultTimeout(PATIENCE);
    this.opened.push(context);
    return context;
  }

  /** A page at an address, seen by somebody with this role. */
  async page(address = "/console/", { role = "admin", answers = {}, ...options } = {}) {
    const context = await this.stranger(options);
    const base = options.base ?? url;
    const signedIn = await context.request.post(`${base}/console/session`, { data: { token: tokens[role] }, headers: { origin: base } });
    assert.equal(signedIn.status(), 204, `signing in: ${await signedIn.text()}`);
    const page = await context.newPage();
    page.faults = [];
    page.on("pageerror", (error) => page.faults.push(error.stack ?? error.message));
    page.on("console", (message) => {
      if (message.type() === "error" && /Content Security Policy|Refused to/.test(message.text())) page.faults.push(message.text());
    });
    for (const [path, answer] of Object.entries(answers)) await page.route((at) => at.pathname === path, answer);
    await page.goto(address);
    return page;
  }
}

/** Waits until something holds; says what was last seen if it never does. */
export async function until(words, look, patience = PATIENCE) {
  const end = performance.now() + patience;
  let seen;
  for (;;) {
    try {
      seen = await look();
      if (seen) return seen;
    } catch (error) {
      seen = error.message;
    }
    if (performance.now() > end) throw new Error(`never: ${words}; last: ${JSON.stringify(seen)}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/** Asks the API directly, as the admin. */
export async function api(path, { method = "GET", body } = {}) {
  const headers = { authorization: `Bearer ${tokens.admin}`, ...(body === undefined ? {} : { "content-type": "application/json" }) };
  const answer = await fetch(url + path, { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
  const text = await answer.text();
  const value = text === "" ? undefined : JSON.parse(text);
  assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${text}`);
  return value;
}

let made = 0;

/** A name that no other test has. */
export function uniqueName(prefix) {
  made += 1;
  return `${prefix}-${process.pid}-${made}`;
}

/** A registered satellite whose agent is this process. */
export class Satellite {
  /** Registers one; it is lost after `threshold` milliseconds of silence. */
  static async register(prefix, { region = "eu-west", tags = {}, threshold = 2000 } = {}) {
    const { satellite, token } = await api("/v1/satellites", { method: "POST", body: { name: uniqueName(prefix), region, tags, offlineThresholdMs: threshold } });
    return new Satellite(satellite.id, satellite.name, token);
  }

  constructor(id, name, token) {
    Object.assign(this, { id, name, token });
  }

  /** Connects, and beats until it is told otherwise. */
  async connect() {
    const socket = new WebSocket(`${url.replace(/^http/, "ws")}/api/ws/satellite`);
    this.socket = socket;
    const welcome = new Promise((resolve, reject) => {
      socket.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        if (message.type === "authenticated") resolve();
        if (message.type === "auth_failed") reject(new Error(message.reason));
        if (message.type === "shutdown") this.shutDown = message.reason;
      };
      socket.onerror = () => reject(new Error("the socket failed"));
      socket.onclose = ({ code }) => {
        this.closed = code;
        reject(new Error(`the socket closed with ${code}`));
      };
    });
    welcome.catch(() => {});
    socket.onopen = () => socket.send(JSON.stringify({ type: "authenticate", clientId: this.id, token: this.token }));
    await welcome;
    this.beats = setInterval(() => this.beat(), 400);
    this.beat();
  }

  beat() {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ type: "heartbeat", version: "9.9.9", uptimeSeconds: 1 }));
  }

  /** Stays connected and says nothing any more. */
  fallSilent() {
    clearInterval(this.beats);
  }

  /** Closes its connection on purpose. */
  disconnect() {
    clearInterval(this.beats);
    this.socket?.close(1000);
  }

  async remove() {
    this.disconnect();
    await api(`/v1/satellites/${this.id}`, { method: "DELETE" });
  }
}

/** Stands between a browser and the pod, and can cut all connections. */
export async function wire() {
  const target = new URL(url);
  const sockets = new Set();
  let isCut = false;
  const server = createServer((near) => {
    if (isCut) {
      near.destroy();
      return;
    }
    const far = connect(Number(target.port || 80), target.hostname);
    for (const [one, other] of [[near, far], [far, near]]) {
      sockets.add(one);
      one.pipe(other);
      one.on("error", () => other.destroy());
      one.on("close", () => {
        sockets.delete(one);
        other.destroy();
      });
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    base: `http://127.0.0.1:${server.address().port}`,
    cut() {
      isCut = true;
      for (const socket of sockets) socket.destroy();
    },
    mend() {
      isCut = false;
    },
    end() {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}

/** A PNG of the page, where somebody wants them. */
export async function shoot(page, name) {
  if (!shots) return;
  mkdirSync(shots, { recursive: true });
  await page.screenshot({ path: `${shots}/${name}.png` });
}

/** Nothing failed on the page, and nothing on it keeps anybody out. Axe takes seconds: of most states only a full run asks it. */
export async function holds(page, where) {
  nothingFailed(page, where);
  if (isFull) await keepsNobodyOut(page, where);
}

export function nothingFailed(page, where) {
  assert.deepEqual(page.faults ?? [], [], `faults on ${where}`);
}

/** Nothing on the page keeps anybody out, as far as axe can tell. */
export async function keepsNobodyOut(page, where) {
  const { violations } = await new AxeBuilder({ page }).analyze();
  const words = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ target, failureSummary }) => `${target} (${failureSummary?.replaceAll("\n", " ")})`).slice(0, 3).join("; ")}`);
  assert.deepEqual(words, [], `axe on ${where}`);
}

/** The fleet page with its first answer on it. */
export async function ready(page) {
  await page.locator("h2#satellites-title .tabular:not(:empty)").waitFor();
  await page.locator("[data-feed=live]").waitFor();
}

/** Answers a request with this instead of the pod. */
export const instead = (body, status = 200, headers = {}) => (route) =>
  route.fulfill({ status, headers: { "content-type": status < 400 ? "application/json" : "application/problem+json", ...headers }, body: JSON.stringify(typeof body === "function" ? body(new URL(route.request().url())) : body) });

export const problem = (status, title, detail, headers = {}) => instead({ type: "urn:groundstation:problem:test", title, status, detail }, status, headers);

export { assert };
