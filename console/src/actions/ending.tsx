/** Ends a satellite's session, has it refused, or lets it in again. */

import { useState } from "preact/hooks";
import { ask, asProblem } from "../api/client.ts";
import type { Problem } from "../api/problem.ts";
import type { Satellite } from "../api/types.ts";
import { Dialog } from "../parts/dialog.tsx";
import { ProblemNote } from "../parts/problem_note.tsx";
import { registryChanged } from "../fleet/use_list.ts";

export type Order = "kick" | "disable" | "enable";

interface Words {
  title: (name: string) => string;
  text: string;
  action: string;
  endsSomething: boolean;
}

const WORDS: Record<Order, Words> = {
  kick: {
    title: (name) => `End the session of ${name}?`,
    text: "Its agent is told, and connects again within seconds.",
    action: "End the session",
    endsSomething: true,
  },
  disable: {
    title: (name) => `Disable ${name}?`,
    text: "Its session ends and it is not let in until it is enabled. Its history, assignments and token stay.",
    action: "Disable it",
    endsSomething: true,
  },
  enable: {
    title: (name) => `Enable ${name}?`,
    text: "It is let in again when its agent next tries, within half a minute or so.",
    action: "Enable it",
    endsSomething: false,
  },
};

interface Props {
  order: Order;
  satellite: Satellite;
  onClose: () => void;
  onChanged: () => void;
}

export function EndingDialog({ order, satellite, onClose, onChanged }: Props) {
  const [problem, setProblem] = useState<Problem>();
  const [isBusy, setBusy] = useState(false);
  const { title, text, action, endsSomething } = WORDS[order];
  const go = async () => {
    setBusy(true);
    try {
      await ask(`/v1/satellites/${satellite.id}/${order}`, { method: "POST" });
      onChanged();
      registryChanged();
      onClose();
    } catch (error) {
      setProblem(asProblem(error));
      setBusy(false);
    }
  };
  return (
    <Dialog title={title(satellite.name)} onClose={onClose}>
      <div class="form">
        <p>{text}</p>
        {problem ? <ProblemNote problem={problem} /> : null}
        <div class="form-actions">
          <button type="button" class={endsSomething ? "danger" : "primary"} disabled={isBusy} onClick={() => void go()}>
            {action}
          </button>
          <button type="button" onClick={onClose}>
            Cancel
          </button>
        </div>
      </div>
    </Dialog>
  );
}
