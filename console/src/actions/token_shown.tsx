/** A new token, shown this once, with the lines that start an agent with it. */

import { useState } from "preact/hooks";
import { Snippet } from "../parts/copy.tsx";
import { startAgent } from "./start_agent.ts";

const WAYS = { environment: "Environment", docker: "Docker", systemd: "systemd" } as const;

export function TokenShown({ id, token, onDone }: { id: string; token: string; onDone: () => void }) {
  const [way, setWay] = useState<keyof typeof WAYS>("environment");
  const lines = startAgent(location.origin, id, token);
  return (
    <div class="token-shown">
      <p class="note is-passing">
        <strong>This token is shown once.</strong> Only its digest is kept. Whoever loses it takes a new one: rotate the token.
      </p>
      <h3>Token</h3>
      <Snippet text={token} what="the token" />
      <h3>Start its agent</h3>
      <div class="segments" role="group" aria-label="How to start the agent">
        {(Object.keys(WAYS) as (keyof typeof WAYS)[]).map((each) => (
          <button key={each} type="button" aria-pressed={each === way} onClick={() => setWay(each)}>
            {WAYS[each]}
          </button>
        ))}
      </div>
      <p class="muted small-text">
        {way === "environment"
          ? "Keep it in a file that others cannot read, such as satellite.env. The address is the one of this page: it must be one the agent can reach."
          : way === "docker"
            ? "With the environment in satellite.env."
            : "As /etc/systemd/system/satellite.service, with the environment in /etc/satellite.env."}
      </p>
      <Snippet text={lines[way]} what={`the lines for ${WAYS[way]}`} />
      <div class="form-actions">
        <button type="button" class="primary" onClick={onDone}>
          I have kept the token
        </button>
      </div>
    </div>
  );
}
