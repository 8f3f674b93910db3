/** What another threshold would have done. Shown where the server can tell. */

import { useState } from "preact/hooks";
import { get } from "../api/client.ts";
import { useResource } from "../api/resource.ts";
import type { Json } from "../api/types.ts";
import type { Place } from "../place/place.ts";
import { ProblemNote } from "../parts/problem_note.tsx";
import { Spans } from "../time/timeline.tsx";
import { bounds, useWindow } from "../time/window.ts";

export function WhatIfPage({ place }: { place: Place }) {
  const [threshold, setThreshold] = useState("90s");
  const window = useWindow(place);
  const query = bounds(window);
  query.set("threshold", threshold);
  if (place.filters.region !== undefined) query.set("region", place.filters.region);
  const found = useResource(`${threshold} ${place.span} ${place.until ?? "now"} ${place.filters.region ?? ""}`, (signal) => get<Record<string, Json>>(`/v1/what-if?${query}`, signal), { settleMs: 300 });
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
      {found.data ? (
        <dl class="facts panel">
          {Object.entries(found.data).map(([name, value]) => (
            <div key={name}>
              <dt>{words(name)}</dt>
              <dd class="tabular">{typeof value === "object" ? JSON.stringify(value) : String(value)}</dd>
            </div>
          ))}
        </dl>
      ) : null}
    </div>
  );
}

function words(name: string): string {
  return name.replace(/([A-Z])/g, " $1").toLowerCase();
}
