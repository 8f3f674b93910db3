/** Why a single sign-on led back to the sign-in page, by the word in the address. Pure. */

import { Problem } from "../api/problem.ts";

const REFUSALS: Record<string, readonly [title: string, detail: string]> = {
  "not-begun-here": ["The sign-in was not begun here", "It was begun in another browser, took longer than 10 minutes, or was finished already. Begin again."],
  "declined": ["The provider did not sign you in", "It refused, or you did. Begin again, or ask whoever runs the provider."],
  "provider-away": ["The provider does not answer", "Try again in a moment, or sign in with a token. The pod's log has the reason."],
  "provider-wrong": ["The provider's answer does not hold", "Nobody was signed in. Begin again; if this stays, the pod's log has the reason."],
  "no-group": ["You may not use this page", "The provider knows you, and none of your groups is let in here. Ask an administrator to put you into one, or sign in with a token."],
  "foreign-page": ["The page of another site began the sign-in", "Begin it here."],
};

/** What to tell whoever was led back, if the address says that somebody was. */
export function refusal(search: string): Problem | undefined {
  const word = new URLSearchParams(search).get("refused");
  if (word === null) return undefined;
  const [title, detail] = (Object.hasOwn(REFUSALS, word) ? REFUSALS[word] : undefined) ?? ["Nobody was signed in", "Begin again."];
  return new Problem({ type: "about:blank", status: 403, title, detail });
}

/** Where single sign-on begins, for somebody who wants to go on at this place. */
export function begin(path: string, search: string): string {
  const isSignIn = path.endsWith("/sign-in");
  return `/console/session/oidc${isSignIn ? "" : `?${new URLSearchParams({ to: path + search })}`}`;
}
