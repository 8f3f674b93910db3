/** Signing in: at the identity provider where there is one, with a token, or with the code of a sign-in link. */

import { useEffect, useState } from "preact/hooks";
import { asProblem } from "../api/client.ts";
import { Problem } from "../api/problem.ts";
import { findSession, findWays, session, signIn } from "../api/session.ts";
import { length } from "../parts/format.ts";
import { go, place } from "../place/router.ts";
import { read } from "../place/place.ts";
import { Brand } from "./brand.tsx";
import { begin, refusal } from "./refusals.ts";

/** A link that does not count, or no longer. */
const OLD_LINK = {
  type: "about:blank",
  status: 401,
  title: "Not signed in",
  detail: "This link was used before, or is older than 15 minutes. Sign in with a token, or start `groundstation dev` again for a new link.",
};

interface Props {
  /** Whether somebody was signed in until now. */
  hasEnded: boolean;
}

export function SignIn({ hasEnded }: Props) {
  const [token, setToken] = useState("");
  const [problem, setProblem] = useState<Problem | undefined>(() => refusal(location.search));
  const [provider, setProvider] = useState<string>();
  const [isBusy, setBusy] = useState(false);
  const [isShown, show] = useState(false);
  const enter = async (with_: { token: string } | { code: string }) => {
    setBusy(true);
    setProblem(undefined);
    try {
      await signIn(with_);
      enterFleet();
    } catch (error) {
      const problem = asProblem(error);
      const isOldLink = "code" in with_ && problem.status === 401;
      // A link that is clicked a second time leads to the session that the first time began.
      if (isOldLink) await findSession();
      if (isOldLink && session.value.is === "somebody") return enterFleet();
      setProblem(isOldLink ? new Problem(OLD_LINK) : problem);
      setBusy(false);
    }
  };
  useEffect(() => {
    // Why the last sign-on came to nothing is told once.
    if (refusal(location.search)) history.replaceState(null, "", location.pathname);
    const asking = new AbortController();
    // Without an answer there is the way with a token.
    findWays(asking.signal).then((ways) => setProvider(ways.oidc), () => undefined);
    return () => asking.abort();
  }, []);
  useEffect(() => {
    const follow = () => {
      const code = location.pathname.endsWith("/sign-in") ? location.hash.slice(1) : "";
      if (code === "") return;
      // The code counts once: it does not stay in the address.
      history.replaceState(null, "", location.pathname);
      void enter({ code });
    };
    follow();
    // A link that is pasted into this very page changes the hash and loads nothing.
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return (
    <div class="sign-in">
      <main class="sign-in-box">
        <Brand />
        <h1>Sign in</h1>
        {hasEnded && !problem ? <p class="note is-passing">Your session has ended. Sign in again; the page goes on where it was.</p> : null}
        {provider === undefined ? null : (
          <div class="single-sign-on">
            <button type="button" class="primary" onClick={() => location.assign(begin(location.pathname, location.search))}>
              Sign in with {provider}
            </button>
            {problem && problem.status === 403 ? <SignInProblem problem={problem} /> : null}
            <p class="muted small-text">Or with a token:</p>
          </div>
        )}
        <form
          onSubmit={(event) => {
            event.preventDefault();
            if (token.trim() !== "") void enter({ token: token.trim() });
          }}
        >
          <label for="token">Token</label>
          <div class="with-button">
            <input
              id="token"
              name="token"
              {...(isShown ? { type: "text" as const } : { type: "password" as const })}
              autocomplete="current-password"
              spellcheck={false}
              required
              value={token}
              aria-describedby="token-help"
              aria-invalid={problem?.status === 401}
              onInput={(event) => setToken(event.currentTarget.value)}
              ref={(input) => {
                if (input && document.activeElement === document.body) input.focus();
              }}
            />
            <button type="button" class="ghost" aria-pressed={isShown} onClick={() => show(!isShown)}>
              {isShown ? "Hide" : "Show"}
            </button>
          </div>
          <p id="token-help" class="muted small-text">
            One of <code>GROUNDSTATION_ADMIN_TOKEN</code> or, to read, <code>GROUNDSTATION_READ_TOKEN</code> of the pod, or a token that <code>groundstation token create</code> has made. The page keeps no token: it gets a cookie that it cannot read.
          </p>
          {problem && !(problem.status === 403 && provider !== undefined) ? <SignInProblem problem={problem} /> : null}
          <button type="submit" class="primary" disabled={isBusy}>
            {isBusy ? "Signing in…" : "Sign in"}
          </button>
        </form>
      </main>
    </div>
  );
}

function enterFleet(): void {
  if (place.value.route.page === "sign-in") go(read("/console/", ""), "replace");
}

function SignInProblem({ problem }: { problem: Problem }) {
  const wait = problem.retryAfterMs === undefined ? "" : ` Try again in ${length(problem.retryAfterMs)}.`;
  return (
    <div class="note is-wrong" role="alert">
      <p class="note-title">{problem.status === 401 ? "Not signed in" : problem.title}</p>
      <p>
        {problem.detail}
        {wait}
      </p>
    </div>
  );
}
