/** What the keys do, and what the shapes mean. */

import { Dialog } from "../parts/dialog.tsx";
import { MEANINGS, WORDS, type Condition } from "../parts/condition.ts";
import { Glyph } from "../parts/glyph.tsx";
import { Store, useStore } from "../parts/store.ts";
import { PlainStrip } from "../fleet/strip.tsx";
import type { Run } from "../fleet/runs.ts";
import { singleKeys } from "./single_keys.ts";

export const isHelpOpen = new Store(false);

const KEYS: [string[], string][] = [
  [["?"], "this help"],
  [["/"], "search"],
  [["g", "f"], "the fleet"],
  [["g", "l"], "the log"],
  [["g", "s"], "into the satellites; then j, k or the arrow keys, Enter opens one"],
  [["g", "e"], "into the feed"],
  [["g", "t"], "to the slider through time; then the arrow keys"],
  [[",", "."], "one edge earlier, one edge later"],
  [["n"], "back to the present"],
  [["x"], "clear the filters"],
  [["r"], "register a satellite"],
  [["t"], "theme: as the system, dark, light"],
  [["Esc"], "close a dialog"],
];

const HOUR = 3_600_000;
const SAMPLES: [Run["state"], string][] = [
  ["up", "up: it was online"],
  ["down", "down: it was offline"],
  ["unknown", "unknown: nobody could observe it, or it was not there yet"],
  ["maintenance", "maintenance: a planned window"],
];

export function Help() {
  const on = useStore(singleKeys);
  return (
    <Dialog title="Keys and signs" onClose={() => isHelpOpen.set(false)} wide>
      <div class="help">
        <section>
          <h3>Keys</h3>
          <dl class="keys">
            {KEYS.map(([keys, what]) => (
              <div key={what}>
                <dt>
                  {keys.map((key) => (
                    <kbd key={key}>{key}</kbd>
                  ))}
                </dt>
                <dd>{what}</dd>
              </div>
            ))}
          </dl>
          <label class="check">
            <input type="checkbox" checked={on} onChange={(event) => singleKeys.set(event.currentTarget.checked)} />
            Single letters work as keys
          </label>
        </section>
        <section>
          <h3>Signs</h3>
          <dl class="signs">
            {(Object.keys(WORDS) as Condition[]).map((of) => (
              <div key={of}>
                <dt class={`condition is-${of}`}>
                  <Glyph of={of} />
                  {WORDS[of]}
                </dt>
                <dd class="muted">{MEANINGS[of]}</dd>
              </div>
            ))}
          </dl>
          <h3>Strips</h3>
          <dl class="signs">
            {SAMPLES.map(([state, what]) => (
              <div key={state}>
                <dt>
                  <PlainStrip list={[{ from: 0, to: HOUR, state }]} from={0} to={HOUR} label="" />
                </dt>
                <dd class="muted">{what}</dd>
              </div>
            ))}
          </dl>
          <p class="muted">All times are UTC. A position is a place in the log: 1, 2, 3 … without a gap.</p>
        </section>
      </div>
    </Dialog>
  );
}
