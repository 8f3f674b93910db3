/** What an administrator can do with one satellite: change it, rotate its token, end its session, disable and remove it. */

import { useState } from "preact/hooks";
import { ask, asProblem } from "../api/client.ts";
import type { Problem } from "../api/problem.ts";
import type { NewToken, Satellite } from "../api/types.ts";
import { Dialog } from "../parts/dialog.tsx";
import { ProblemNote } from "../parts/problem_note.tsx";
import { change } from "../place/router.ts";
import type { Described } from "../satellite/described.ts";
import { registryChanged } from "../fleet/use_list.ts";
import { DescribeForm, type Description } from "./describe_form.tsx";
import { EndingDialog, type Order } from "./ending.tsx";
import { TokenShown } from "./token_shown.tsx";

interface Props {
  described: Described;
  onChanged: () => void;
}

export function SatelliteActions({ described, onChanged }: Props) {
  const [open, setOpen] = useState<"change" | "rotate" | "remove" | Order>();
  const close = () => setOpen(undefined);
  const { satellite } = described;
  return (
    <section class="panel" aria-labelledby="actions-title">
      <header class="panel-head">
        <h2 id="actions-title">Actions</h2>
      </header>
      <div class="action-list">
        <button type="button" onClick={() => setOpen("change")}>
          Change name, region, tags, threshold
        </button>
        <button type="button" onClick={() => setOpen("rotate")}>
          Rotate its token
        </button>
        {satellite.disabled ? (
          <button type="button" onClick={() => setOpen("enable")}>
            Enable it
          </button>
        ) : (
          <>
            <button type="button" onClick={() => setOpen("kick")}>
              End its session
            </button>
            <button type="button" class="danger" onClick={() => setOpen("disable")}>
              Disable it
            </button>
          </>
        )}
        <button type="button" class="danger" onClick={() => setOpen("remove")}>
          Remove it
        </button>
      </div>
      {open === "change" ? <Change described={described} onClose={close} onChanged={onChanged} /> : null}
      {open === "rotate" ? <Rotate satellite={satellite} onClose={close} /> : null}
      {open === "remove" ? <Remove satellite={satellite} onClose={close} /> : null}
      {open === "kick" || open === "disable" || open === "enable" ? <EndingDialog order={open} satellite={satellite} onClose={close} onChanged={onChanged} /> : null}
    </section>
  );
}

function Change({ described, onClose, onChanged }: Props & { onClose: () => void }) {
  // What was read when the dialog was opened: If-Match says that this is what the change is made to.
  const [begun] = useState(described);
  const [problem, setProblem] = useState<Problem>();
  const [isBusy, setBusy] = useState(false);
  const { satellite } = begun;
  const before: Description = { name: satellite.name, region: satellite.region, tags: satellite.tags, offlineThresholdMs: satellite.offlineThresholdMs ?? null };
  const save = async (after: Description) => {
    const body: Partial<Description> = {};
    if (after.name !== before.name) body.name = after.name;
    if (after.region !== before.region) body.region = after.region;
    if (JSON.stringify(after.tags) !== JSON.stringify(before.tags)) body.tags = after.tags;
    if (after.offlineThresholdMs !== before.offlineThresholdMs) body.offlineThresholdMs = after.offlineThresholdMs;
    if (Object.keys(body).length === 0) {
      onClose();
      return;
    }
    setBusy(true);
    try {
      await ask<Satellite>(`/v1/satellites/${satellite.id}`, { method: "PATCH", body, headers: begun.etag === undefined ? {} : { "if-match": begun.etag } });
      onChanged();
      registryChanged();
      onClose();
    } catch (error) {
      setProblem(asProblem(error));
      setBusy(false);
    }
  };
  return (
    <Dialog title={`Change ${satellite.name}`} onClose={onClose}>
      <DescribeForm begun={before} action="Save" problem={problem} isBusy={isBusy} onSave={(description) => void save(description)} onCancel={onClose}>
        {problem?.status === 412 ? (
          <button
            type="button"
            class="small"
            onClick={() => {
              onChanged();
              onClose();
            }}
          >
            Show what is there now
          </button>
        ) : null}
      </DescribeForm>
    </Dialog>
  );
}

/** For how long the present token stays valid, and what that means. */
const OVERLAPS: Record<string, string> = { "": "at once", "1h": "in an hour", "1d": "in a day", "7d": "in a week" };

function Rotate({ satellite, onClose }: { satellite: Satellite; onClose: () => void }) {
  const [problem, setProblem] = useState<Problem>();
  const [isBusy, setBusy] = useState(false);
  const [token, setToken] = useState<string>();
  const [overlap, setOverlap] = useState("");
  const rotate = async () => {
    setBusy(true);
    try {
      const { body } = await ask<NewToken>(`/v1/satellites/${satellite.id}/token`, { method: "POST", ...(overlap === "" ? {} : { body: { overlap } }) });
      setToken(body.token);
    } catch (error) {
      setProblem(asProblem(error));
      setBusy(false);
    }
  };
  if (token !== undefined) {
    return (
      <Dialog title={`New token of ${satellite.name}`} onClose={onClose} isHeld wide>
        <TokenShown id={satellite.id} token={token} onDone={onClose} />
      </Dialog>
    );
  }
  return (
    <Dialog title={`Rotate the token of ${satellite.name}?`} onClose={onClose}>
      <div class="form">
        <div class="field">
          <label for="overlap">The present token is void</label>
          <select id="overlap" value={overlap} onChange={(event) => setOverlap(event.currentTarget.value)}>
            {Object.entries(OVERLAPS).map(([length, words]) => (
              <option key={length} value={length}>
                {words}
              </option>
            ))}
          </select>
        </div>
        <p>
          {overlap === ""
            ? "The live session ends. Its agent stays out until it has the new token."
            : "Both tokens are valid until then. Give its agent the new one meanwhile: a session that came in with the present one ends when that is void."}
        </p>
        {problem ? <ProblemNote problem={problem} /> : null}
        <div class="form-actions">
          <button type="button" class="primary" disabled={isBusy} onClick={() => void rotate()}>
            Rotate the token
          </button>
          <button type="button" onClick={onClose}>
            Cancel
          </button>
        </div>
      </div>
    </Dialog>
  );
}

function Remove({ satellite, onClose }: { satellite: Satellite; onClose: () => void }) {
  const [typed, type] = useState("");
  const [problem, setProblem] = useState<Problem>();
  const [isBusy, setBusy] = useState(false);
  const remove = async () => {
    setBusy(true);
    try {
      await ask(`/v1/satellites/${satellite.id}`, { method: "DELETE" });
      registryChanged();
      change({ route: { page: "fleet" } });
    } catch (error) {
      setProblem(asProblem(error));
      setBusy(false);
    }
  };
  return (
    <Dialog title={`Remove ${satellite.name}?`} onClose={onClose}>
      <form
        class="form"
        onSubmit={(event) => {
          event.preventDefault();
          if (typed === satellite.name) void remove();
        }}
      >
        <p>Its session ends, its token is void, and "removed" is its last entry in the log. This cannot be undone.</p>
        <div class="field">
          <label for="confirm">
            Type its name, <strong>{satellite.name}</strong>
          </label>
          <input id="confirm" autofocus autocomplete="off" value={typed} onInput={(event) => type(event.currentTarget.value)} />
        </div>
        {problem ? <ProblemNote problem={problem} /> : null}
        <div class="form-actions">
          <button type="submit" class="danger" disabled={isBusy || typed !== satellite.name}>
            Remove it
          </button>
          <button type="button" onClick={onClose}>
            Cancel
          </button>
        </div>
      </form>
    </Dialog>
  );
}
