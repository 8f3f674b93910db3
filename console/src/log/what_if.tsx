/** What another threshold would have done. Shown where the server can tell. */

import { useState } from "preact/hooks";
import { get } from "../api/client.ts";
import { useResource } from "../api/resource.ts";
import type { Losses, WhatIf } from "../api/types.ts";
import type { Place } from "../place/place.ts";
import { count, length, seen } from "../parts/format.ts";
import { ProblemNote } from "../parts/problem_note.tsx";
import { Spans } from "../time/timeline.tsx";
import { bounds, useWindow } from "../time/window.ts";

export function WhatIfPage({ place }: { place: Place }) {
  const [threshold, setThreshold] = useState("90s");
  const window = useWindow(place);
  const query = bounds(window);
  query.set("threshold", threshold);
  if (place.filters.region !== undefined) query.set("region", place.filters.region);
  const found = useResource(`${threshold} ${place.span} ${place.until ?? "now"} ${place.filters.region ?? ""}`, (signal) => get<WhatIf>(`/v1/what-if?${query}`, signal), { settleMs: 300 });
  return (
    <div class="log-page">
      <header class="page-head">
        <h1>What if</h1>
        <p class="muted">Losses that another threshold would have spared or added, as far as the log can tell.</p>
      </header>
      <div class="filters">
        <div class="filter-line">
          <label class="with-label">
            <span class="muted">threshold</span>
            <input value={threshold} onInput={(event) => setThreshold(event.currentTarget.value)} />
          </label>
          <span class="filler" />
          <Spans place={place} window={window} />
        </div>
      </div>
      {found.problem ? <ProblemNote problem={found.problem} of="What if" onRetry={found.reload} /> : null}
      {found.data ? <Answer answer={found.data} /> : null}
    </div>
  );
}

function Answer({ answer }: { answer: WhatIf }) {
  const { delay, regions, satellites } = answer;
  return (
    <>
      <Table title="Region" rows={[...regions.map((of) => ({ name: of.region, of })), { name: "all", of: answer }]} />
      {delay ? (
        <p>
          Those kept would have been told {later(delay.p50Ms)} (half of them), {later(delay.p99Ms)} (99 of 100), {later(delay.maxMs)} (the latest).
        </p>
      ) : null}
      {satellites.length > 0 ? <Table title="Satellite" rows={satellites.map((of) => ({ name: seen(of.name), of }))} /> : null}
      <section class="panel">
        <h2>Not known</h2>
        <ul class="muted">
          {answer.unknown.map((what) => (
            <li key={what}>{what}</li>
          ))}
        </ul>
      </section>
    </>
  );
}

function Table({ title, rows }: { title: string; rows: { name: string; of: Losses }[] }) {
  return (
    <div class="table-scroll" tabIndex={0} role="region" aria-label={`Losses by ${title.toLowerCase()}`}>
      <table class="plain">
        <thead>
          <tr>
            {[title, "Losses", "Spared", "Kept", "Undecided", "Added at least"].map((name) => (
              <th key={name} scope="col">
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map(({ name, of }, n) => (
            <tr key={n}>
              <th scope="row">{name}</th>
              {[of.losses, of.spared, of.kept, of.undecided, of.addedAtLeast].map((number, column) => (
                <td key={column} class="tabular">
                  {count(number)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function later(ms: number): string {
  return ms < 0 ? `${length(-ms)} earlier` : `${length(ms)} later`;
}
