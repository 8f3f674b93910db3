/** Maintenance: windows that were planned. Shown where the server has them. */

import { useState } from "preact/hooks";
import { ask, asProblem, get } from "../api/client.ts";
import type { Problem } from "../api/problem.ts";
import { mayChange, session } from "../api/session.ts";
import { useResource } from "../api/resource.ts";
import type { Maintenance, MaintenancePage as Answer, Selector } from "../api/types.ts";
import type { Place } from "../place/place.ts";
import { At } from "../parts/moment.tsx";
import { length, parseDuration } from "../parts/format.ts";
import { ProblemNote } from "../parts/problem_note.tsx";
import { present } from "../parts/clock.ts";
import { useStore } from "../parts/store.ts";

const STATES: Record<Maintenance["state"], string> = { planned: "planned", open: "now", over: "over" };

export function MaintenancePage(_: { place: Place }) {
  const may = mayChange(useStore(session));
  const found = useResource("/v1/maintenance", (signal) => get<Answer>("/v1/maintenance", signal), { everyMs: 15_000 });
  const [problem, setProblem] = useState<Problem>();
  const windows = found.data?.windows ?? [];
  const endNow = async (id: string) => {
    try {
      await ask(`/v1/maintenance/${encodeURIComponent(id)}`, { method: "DELETE" });
      setProblem(undefined);
    } catch (error) {
      setProblem(asProblem(error));
    }
    found.reload();
  };
  return (
    <div class="log-page">
      <header class="page-head">
        <h1>Maintenance</h1>
        <p class="muted">Planned windows. Edges are told all the same, and marked; the time counts apart.</p>
      </header>
      {(problem ?? found.problem) ? <ProblemNote problem={(problem ?? found.problem) as Problem} of="Maintenance" onRetry={found.reload} /> : null}
      {may ? <Plan onPlanned={found.reload} /> : null}
      {found.data && windows.length === 0 ? <p class="muted empty">None is planned.</p> : null}
      {windows.length > 0 ? (
        <div class="table-scroll" tabIndex={0} role="region" aria-label="Maintenance windows">
          <table class="plain">
            <thead>
              <tr>
                <th scope="col">Of</th>
                <th scope="col">From</th>
                <th scope="col">For</th>
                <th scope="col">Reason</th>
                <th scope="col">
                  <span class="sr">What can be done</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {windows.map((window) => {
                const end = Date.parse(window.endedAt ?? window.to);
                // The server's now is some milliseconds after the page's.
                const span = Math.round(Math.max(0, end - Date.parse(window.from)) / 1000) * 1000;
                return (
                  <tr key={window.id}>
                    <td>{selectorWords(window.selector)}</td>
                    <td class="tabular">
                      <At at={window.from} />
                    </td>
                    <td class="tabular">
                      {length(span)} <span class="muted">{STATES[window.state]}</span>
                    </td>
                    <td>{window.reason}</td>
                    <td>
                      {may && window.state !== "over" ? (
                        <button type="button" class="small" onClick={() => void endNow(window.id)}>
                          End it now
                        </button>
                      ) : null}
                    </td>
                  </tr>
                );
              })}
            </tbody>
          </table>
        </div>
      ) : null}
    </div>
  );
}

function Plan({ onPlanned }: { onPlanned: () => void }) {
  const [problem, setProblem] = useState<Problem>();
  return (
    <form
      class="panel form is-line"
      aria-label="Plan maintenance"
      onSubmit={async (event) => {
        event.preventDefault();
        const form = event.currentTarget;
        const given = new FormData(form);
        const text = (name: string) => String(given.get(name) ?? "").trim();
        const span = parseDuration(text("span"));
        if (span === undefined) return;
        const body = { selector: { region: text("region") }, to: new Date(present() + span).toISOString(), reason: text("reason") };
        try {
          await ask("/v1/maintenance", { method: "POST", body });
          setProblem(undefined);
          form.reset();
          onPlanned();
        } catch (error) {
          setProblem(asProblem(error));
        }
      }}
    >
      <label>
        Region <input name="region" required />
      </label>
      <label>
        For, from now on <input name="span" required placeholder="2h" pattern="\s*[0-9]+(\.[0-9]+)?\s*(s|m|min|h|d)\s*" />
      </label>
      <label>
        Reason <input name="reason" required />
      </label>
      <button type="submit">Plan</button>
      {problem ? <ProblemNote problem={problem} /> : null}
    </form>
  );
}

function selectorWords(selector: Selector = {}): string {
  const parts = [
    selector.region === undefined ? undefined : `region ${selector.region}`,
    selector.tags && Object.keys(selector.tags).length > 0 ? Object.entries(selector.tags).map(([name, value]) => `${name}:${value}`).join(", ") : undefined,
    selector.ids ? `${selector.ids.length} satellites` : undefined,
  ];
  return parts.filter((part) => part !== undefined && part !== "").join(", ") || "the whole fleet";
}
