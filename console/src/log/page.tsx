/** The whole log, the newest first, with filters; what happens is put on top. */

import type { Place } from "../place/place.ts";
import { change } from "../place/router.ts";
import { Choice } from "../fleet/filter_bar.tsx";
import { regionOf } from "../feed/panel.tsx";
import { EDGE_WORDS } from "../parts/condition.ts";
import { get } from "../api/client.ts";
import { useResource } from "../api/resource.ts";
import type { FleetCounts, Transition } from "../api/types.ts";
import { EdgeTable } from "./edge_table.tsx";
import { useEdgePages } from "./edge_pages.ts";

export function LogPage({ place }: { place: Place }) {
  const { region } = place.filters;
  const query = new URLSearchParams();
  if (place.event) query.set("event", place.event);
  if (region !== undefined) query.set("region", region);
  if (place.until) query.set("until", place.until);
  const wants = (edge: Transition) => (!place.event || edge.event === place.event) && (region === undefined || regionOf(edge) === region) && place.until === undefined;
  const pages = useEdgePages("/v1/transitions", query, wants);
  const counts = useResource("/v1/fleet", (signal) => get<FleetCounts>("/v1/fleet", signal));
  const regions = counts.data?.regions.map((each) => each.region) ?? [];
  const all = region === undefined || regions.includes(region) ? regions : [region, ...regions];
  return (
    <div class="log-page">
      <header class="page-head">
        <h1>Log</h1>
        <p class="muted">Every edge once, in order. A position opens the fleet as it was right after it.</p>
      </header>
      <div class="filters" role="search" aria-label="Filters">
        <div class="filter-line">
          <Choice label="Edges" value={place.event ?? ""} options={[["", "all edges"], ...Object.entries(EDGE_WORDS)]} onChange={(event) => change({ event: event === "" ? undefined : event })} />
          <Choice
            label="Region"
            value={region ?? ""}
            options={[["", "any region"], ...all.map((name): [string, string] => [name, name])]}
            onChange={(name) => {
              const filters = { ...place.filters };
              if (name === "") delete filters.region;
              else filters.region = name;
              change({ filters });
            }}
          />
          <label class="with-label">
            <span class="muted">before</span>
            <input
              type="datetime-local"
              aria-label="Only before this time, UTC"
              step="1"
              value={place.until ? place.until.slice(0, 19) : ""}
              onChange={(event) => {
                const at = Date.parse(`${event.currentTarget.value}Z`);
                change({ until: Number.isNaN(at) ? undefined : new Date(at).toISOString() });
              }}
            />
            <span class="muted">UTC</span>
          </label>
        </div>
      </div>
      <EdgeTable pages={pages} place={place} />
    </div>
  );
}
