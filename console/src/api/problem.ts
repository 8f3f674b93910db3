/** What went wrong with a request, in the server's words where it said any. */

import type { ProblemBody } from "./types.ts";

export class Problem extends Error {
  /** The status of the answer; 0 where there was none. */
  readonly status: number;
  /** The stable type, such as `urn:groundstation:problem:busy`. */
  readonly type: string;
  readonly title: string;
  readonly detail: string;
  /** Which field or parameter is wrong, where one is. */
  readonly path: string | undefined;
  /** After how many milliseconds the server wants to be asked again. */
  readonly retryAfterMs: number | undefined;

  constructor(body: Omit<ProblemBody, "path"> & { path?: string | undefined }, retryAfterMs?: number) {
    super(`${body.title}: ${body.detail}`);
    this.status = body.status;
    this.type = body.type;
    this.title = body.title;
    this.detail = body.detail;
    this.path = body.path;
    this.retryAfterMs = retryAfterMs;
  }

  /** Whether asking the same again later can help. */
  get isPassing(): boolean {
    return this.status === 0 || this.status === 429 || this.status === 502 || this.status === 503 || this.status === 504;
  }
}

/** No answer came at all. */
export function away(): Problem {
  return new Problem({
    type: "about:blank",
    status: 0,
    title: "No answer",
    detail: "The server cannot be reached. The page tries again by itself; check the network if this stays.",
  });
}

/** Milliseconds of a Retry-After header, which has seconds or a date. */
export function retryAfter(header: string | null, now: number): number | undefined {
  if (header === null || header.trim() === "") return undefined;
  const seconds = Number(header);
  if (Number.isFinite(seconds)) return Math.max(0, seconds * 1000);
  const date = Date.parse(header);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

/** The problem that an answer is. Something in between may have answered, so the body can be anything. */
export function problemOf(status: number, body: unknown, retryAfterMs: number | undefined): Problem {
  const said = typeof body === "object" && body !== null ? (body as Partial<Record<keyof ProblemBody, unknown>>) : {};
  const text = (value: unknown, otherwise: string) => (typeof value === "string" && value !== "" ? value : otherwise);
  return new Problem(
    {
      type: text(said.type, "about:blank"),
      status,
      title: text(said.title, `The server answered ${status}`),
      detail: text(said.detail, "It did not say why. If this stays, look at the log of the pod or of the proxy before it."),
      path: typeof said.path === "string" ? said.path : undefined,
    },
    retryAfterMs,
  );
}
