/** Who is signed in, by the cookie that the server gave; the page never sees the cookie and keeps no token. */

import { Store } from "../parts/store.ts";
import { ask, asProblem, get, signedOut } from "./client.ts";
import { away, Problem } from "./problem.ts";
import type { SessionAnswer, Ways } from "./types.ts";

export type Session =
  | { is: "unknown"; problem?: Problem }
  | { is: "nobody"; why?: "ended" }
  | ({ is: "somebody" } & SessionAnswer);

export const session = new Store<Session>({ is: "unknown" });

signedOut.follow(() => {
  if (session.value.is === "somebody") session.set({ is: "nobody", why: "ended" });
});

/** The server gave a cookie, and the next request came without it. */
const NO_COOKIE = {
  type: "about:blank",
  status: -1,
  title: "Your browser keeps no cookie of this page",
  detail: "The token is right, and a session needs a cookie. Allow cookies for this address, then sign in again.",
};

/** Asks the server who this browser is. */
export async function findSession(): Promise<void> {
  try {
    const answer = await get<SessionAnswer>("/console/session");
    session.set({ is: "somebody", ...answer });
  } catch (error) {
    const problem = asProblem(error);
    if (problem.status === 401) session.set(session.value.is === "somebody" ? { is: "nobody", why: "ended" } : { is: "nobody" });
    // Whoever is signed in stays so while nobody can say.
    else if (session.value.is !== "somebody") session.set({ is: "unknown", problem });
  }
}

/** Signs in with a token, or with the code of a sign-in link. */
export async function signIn(with_: { token: string } | { code: string }): Promise<void> {
  await ask("/console/session", { method: "POST", body: with_ });
  await findSession();
  if (session.value.is === "unknown") throw session.value.problem ?? away();
  if (session.value.is === "nobody") throw new Problem(NO_COOKIE);
}

/** How people can sign in, beside with a token. */
export async function findWays(signal: AbortSignal): Promise<Ways> {
  return await get<Ways>("/console/session/ways", signal);
}

/** Ends the session of this browser. */
export async function signOut(): Promise<void> {
  await ask("/console/session", { method: "DELETE" });
  session.set({ is: "nobody" });
}

/** Whether the signed-in role may change satellites. */
export function mayChange(session: Session): boolean {
  return session.is === "somebody" && (session.role === "admin" || session.role === "operator");
}

/** Whether the signed-in role may read the audit. */
export function mayAudit(session: Session): boolean {
  return session.is === "somebody" && session.role === "admin" && !session.isBounded;
}
