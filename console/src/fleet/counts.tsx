/** How many satellites are how: in all and by region. Each number is a filter. */

import { useState } from "preact/hooks";
import type { Counts, FleetCounts } from "../api/types.ts";
import { change } from "../place/router.ts";
import type { Filters, Place } from "../place/place.ts";
import { count, share } from "../parts/format.ts";
import { Glyph } from "../parts/glyph.tsx";

const REGIONS_AT_FIRST = 8;

/** The filters that the numbers stand for. */
const NUMBERS = ["status", "lastEvent", "flapping", "neverConnected"] as const;

export function Numbers({ counts, place }: { counts: FleetCounts | undefined; place: Place }) {
  const region = place.filters.region;
  const shown: Counts | undefined = region === undefined ? counts : (counts?.regions.find((each) => each.region === region) ?? (counts && nobody));
  const is = (filters: Filters, name: (typeof NUMBERS)[number], value: string) => filters[name] === value;
  const number = (label: string, n: number | undefined, glyph: Parameters<typeof Glyph>[0]["of"] | undefined, name?: (typeof NUMBERS)[number], value?: string) => {
    const isSet = name === undefined ? NUMBERS.every((each) => place.filters[each] === undefined) : is(place.filters, name, value ?? "");
    const toggle = () => {
      const filters = { ...place.filters };
      for (const each of NUMBERS) delete filters[each];
      if (name !== undefined && !isSet) filters[name] = value ?? "";
      change({ filters });
    };
    return (
      <button type="button" class={`number ${glyph ? `is-${glyph}` : ""}`} aria-pressed={isSet} onClick={toggle}>
        <span class="number-value tabular">{n === undefined ? <span class="muted">–</span> : count(n)}</span>
        <span class="number-label">
          {glyph ? <Glyph of={glyph} /> : null}
          {label}
        </span>
      </button>
    );
  };
  const isOfPast = place.at !== undefined || place.position !== undefined;
  return (
    <div class="numbers" role="group" aria-label="Counts">
      {number(region === undefined ? "satellites" : `in ${region}`, shown?.total, undefined)}
      {number("online", shown?.online, "online", "status", "online")}
      {number("offline", shown?.offline, "lost", "status", "offline")}
      {number("flapping", shown?.flapping, undefined, "flapping", "true")}
      {isOfPast ? null : number("never connected", shown?.neverConnected, "never", "neverConnected", "true")}
      {shown && shown.inMaintenance > 0 ? <p class="number is-plain"><span class="number-value tabular">{count(shown.inMaintenance)}</span><span class="number-label"><Glyph of="maintenance" />in maintenance</span></p> : null}
    </div>
  );
}

/** How many are offline that were there before: of those that never connected nothing went wrong. */
function gone(counts: Counts): number {
  return Math.max(0, counts.offline - counts.neverConnected);
}

function percent(part: number, whole: number): string {
  return `${whole > 0 ? (100 * part) / whole : 0}%`;
}

const nobody: Counts = { total: 0, online: 0, offline: 0, neverConnected: 0, flapping: 0, inMaintenance: 0 };

export function Regions({ counts, place }: { counts: FleetCounts | undefined; place: Place }) {
  const [isAll, showAll] = useState(false);
  const regions = counts?.regions ?? [];
  const chosen = place.filters.region;
  // Those with most offline first: that is where one looks.
  const ordered = [...regions].sort((a, b) => gone(b) - gone(a) || b.total - a.total || a.region.localeCompare(b.region));
  let shown = isAll ? ordered : ordered.slice(0, REGIONS_AT_FIRST);
  const selected = ordered.find((each) => each.region === chosen);
  if (selected && !shown.includes(selected)) shown = [...shown, selected];
  const toggle = (region: string) => {
    const filters = { ...place.filters };
    if (chosen === region) delete filters.region;
    else filters.region = region;
    change({ filters });
  };
  return (
    <section class="panel regions" aria-labelledby="regions-title">
      <header class="panel-head">
        <h2 id="regions-title">Regions</h2>
        {ordered.length > REGIONS_AT_FIRST ? (
          <button type="button" class="small" aria-expanded={isAll} onClick={() => showAll(!isAll)}>
            {isAll ? "Fewer" : `All ${count(ordered.length)}`}
          </button>
        ) : null}
      </header>
      <ul class={isAll ? "region-list is-all" : "region-list"} tabIndex={isAll ? 0 : undefined}>
        {shown.map((each) => (
          <li key={each.region}>
            <button type="button" class="region" aria-pressed={each.region === chosen} onClick={() => toggle(each.region)} title={`${each.region}: ${share(each.online, each.total)} online`}>
              <span class="region-name">{each.region}</span>
              <span class="region-bar" aria-hidden="true">
                <span class="region-up" style={{ width: percent(each.online, each.total) }} />
                <span class="region-down" style={{ width: percent(gone(each), each.total) }} />
              </span>
              <span class="region-count tabular">
                {count(each.online)}
                <span class="muted">/{count(each.total)}</span>
                <span class="sr"> online</span>
              </span>
              <span class={gone(each) > 0 ? "region-off tabular is-lost" : "region-off tabular muted"}>
                {gone(each) > 0 ? (
                  <>
                    <Glyph of="lost" />
                    {count(gone(each))}
                    <span class="sr"> offline that were connected before</span>
                  </>
                ) : (
                  <span class="sr">none offline</span>
                )}
              </span>
            </button>
          </li>
        ))}
      </ul>
      {counts && regions.length === 0 ? <p class="empty muted">No region has a satellite.</p> : null}
      {counts?.regionsLeftOut ? <p class="muted small-text">{count(counts.regionsLeftOut)} smaller regions are left out; the counts above have them.</p> : null}
    </section>
  );
}
