/** Registers a satellite, and shows its token this once. */

import { useState } from "preact/hooks";
import { ask, asProblem } from "../api/client.ts";
import type { Problem } from "../api/problem.ts";
import { mayChange, session } from "../api/session.ts";
import type { Registered } from "../api/types.ts";
import { Dialog } from "../parts/dialog.tsx";
import { Store, useStore } from "../parts/store.ts";
import { registryChanged } from "../fleet/use_list.ts";
import { uniqueWord } from "./random.ts";
import { DescribeForm, type Description } from "./describe_form.tsx";
import { TokenShown } from "./token_shown.tsx";

const isOpen = new Store(false);

export function openRegister(): void {
  isOpen.set(true);
}

export function RegisterButton({ isPrimary }: { isPrimary?: boolean }) {
  if (!mayChange(useStore(session))) return null;
  return (
    <button type="button" class={isPrimary ? "primary" : ""} onClick={openRegister}>
      Register a satellite
    </button>
  );
}

/** The dialog, while it is open: one for the whole page, whatever opened it. */
export function RegisterDialog() {
  return useStore(isOpen) ? <Register onClose={() => isOpen.set(false)} /> : null;
}

function Register({ onClose }: { onClose: () => void }) {
  // The same key for every try of this dialog: an answer that got lost makes no second satellite.
  const [key, setKey] = useState(uniqueWord);
  const [tried, setTried] = useState("");
  const [problem, setProblem] = useState<Problem>();
  const [isBusy, setBusy] = useState(false);
  const [made, setMade] = useState<Registered>();
  const register = async ({ name, region, tags, offlineThresholdMs }: Description) => {
    const body = { name, region, tags, ...(offlineThresholdMs === null ? {} : { offlineThresholdMs }) };
    const text = JSON.stringify(body);
    // Another body is another registration.
    const use = tried === "" || tried === text ? key : uniqueWord();
    setKey(use);
    setTried(text);
    setBusy(true);
    try {
      const { body: registered } = await ask<Registered>("/v1/satellites", { method: "POST", body, headers: { "idempotency-key": use } });
      setMade(registered);
      setProblem(undefined);
      registryChanged();
    } catch (error) {
      setProblem(asProblem(error));
    }
    setBusy(false);
  };
  if (made) {
    return (
      <Dialog title={`${made.satellite.name} is registered`} onClose={onClose} isHeld wide>
        {made.token === undefined ? (
          <div class="form">
            <p>It was registered by an earlier try, whose answer got lost with its token. Rotate its token to have a new one.</p>
            <div class="form-actions">
              <button type="button" class="primary" onClick={onClose}>
                Close
              </button>
            </div>
          </div>
        ) : (
          <TokenShown id={made.satellite.id} token={made.token} onDone={onClose} />
        )}
      </Dialog>
    );
  }
  return (
    <Dialog title="Register a satellite" onClose={onClose}>
      <DescribeForm begun={{ name: "", region: "", tags: {}, offlineThresholdMs: null }} action="Register" problem={problem} isBusy={isBusy} onSave={(description) => void register(description)} onCancel={onClose} />
    </Dialog>
  );
}
