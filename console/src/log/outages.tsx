/** Outages: many losses with one cause, the newest first. Shown where the server has them. */

import { useEffect } from "preact/hooks";
import { get } from "../api/client.ts";
import { useResource } from "../api/resource.ts";
import type { OutagePage, Scope } from "../api/types.ts";
import { onEdges } from "../feed/feed.ts";
import type { Place } from "../place/place.ts";
import { At } from "../parts/moment.tsx";
import { count, length } from "../parts/format.ts";
import { ProblemNote } from "../parts/problem_note.tsx";

export function OutagesPage(_: { place: Place }) {
  const found = useResource("/v1/outages", (signal) => get<OutagePage>("/v1/outages", signal), { everyMs: 10_000 });
  const { reload } = found;
  useEffect(() => onEdges(reload), [reload]);
  const outages = found.data?.outages ?? [];
  return (
    <div class="log-page">
      <header class="page-head">
        <h1>Outages</h1>
        <p class="muted">Many satellites that fell silent together: one cause, told once.</p>
      </header>
      {found.problem ? <ProblemNote problem={found.problem} of="Outages" onRetry={reload} /> : null}
      {found.data && outages.length === 0 ? <p class="muted empty">There was none.</p> : null}
      {outages.length > 0 ? (
        <div class="table-scroll" tabIndex={0} role="region" aria-label="Outages, the newest first">
          <table class="plain">
            <thead>
              <tr>
                <th scope="col">Scope</th>
                <th scope="col">Began</th>
                <th scope="col">Lasted</th>
                <th scope="col">Late</th>
                <th scope="col">Lost</th>
              </tr>
            </thead>
            <tbody>
              {outages.map((outage) => (
                <tr key={outage.outageId}>
                  <td>{scopeWords(outage.scope)}</td>
                  <td class="tabular">
                    <At at={outage.startedAt} />
                  </td>
                  <td class="tabular">{outage.endedAt ? length(Date.parse(outage.endedAt) - Date.parse(outage.startedAt)) : <strong class="is-lost">goes on</strong>}</td>
                  <td class="tabular">{outage.late === undefined ? "–" : `${count(outage.late)}${outage.sessions === undefined ? "" : ` of ${count(outage.sessions)}`}`}</td>
                  <td class="tabular">{outage.lost === undefined ? "–" : count(outage.lost)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      ) : null}
    </div>
  );
}

function scopeWords(scope: Scope): string {
  if (scope.fleet) return "the whole fleet";
  if (scope.region !== undefined) return `region ${scope.region}`;
  return scope.pod === undefined ? "unknown" : `pod ${scope.pod}`;
}
