/**
 * Asks the server.
 *
 * Every request goes through here: it has the session's cookie, a time limit, and an error that is a `Problem`. A 401
 * ends the session on this page, whoever asked.
 */

import { heardTime } from "../parts/clock.ts";
import { Store } from "../parts/store.ts";
import { Problem, away, problemOf, retryAfter } from "./problem.ts";

/** How long an answer may take. */
const TIME_LIMIT_MS = 20_000;

/** Since when the server has not answered at all; undefined while it does. */
export const awaySince = new Store<number | undefined>(undefined);

/** The newest 401 of a request that had a session before. */
export const signedOut = new Store(0);

export interface Answer<T> {
  body: T;
  etag: string | undefined;
  status: number;
}

export interface Ask {
  method?: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

/** Sends a request; rejects with a `Problem`, or with an `AbortError` where the caller gave up. */
export async function ask<T>(path: string, { method = "GET", body, headers = {}, signal }: Ask = {}): Promise<Answer<T>> {
  const limit = AbortSignal.timeout(TIME_LIMIT_MS);
  const init: RequestInit = {
    method,
    credentials: "same-origin",
    cache: "no-store",
    headers: { accept: "application/json", ...headers },
    signal: signal ? AbortSignal.any([signal, limit]) : limit,
  };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { ...init.headers, "content-type": "application/json" };
  }
  const sentAt = Date.now();
  let response: Response;
  let text: string;
  try {
    response = await fetch(path, init);
    heardTime(response.headers.get("date"), sentAt);
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    if (awaySince.value === undefined) awaySince.set(Date.now());
    throw away();
  }
  awaySince.set(undefined);
  const value = parse(text);
  if (!response.ok) {
    const problem = problemOf(response.status, value, retryAfter(response.headers.get("retry-after"), Date.now()));
    if (problem.status === 401 && path.startsWith("/v1/")) signedOut.set(signedOut.value + 1);
    throw problem;
  }
  return { body: value as T, etag: response.headers.get("etag") ?? undefined, status: response.status };
}

/** Reads something. */
export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const answer = await ask<T>(path, signal ? { signal } : {});
  return answer.body;
}

function parse(text: string): unknown {
  if (text === "") return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Whether an error only says that the caller gave up. */
export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

/** An error as a problem; what is none is a fault of the page, and is shown too. */
export function asProblem(error: unknown): Problem {
  if (error instanceof Problem) return error;
  const detail = error instanceof Error ? error.message : String(error);
  return new Problem({ type: "about:blank", status: -1, title: "The page failed", detail: `${detail}. Reload the page.` });
}
