/** A larger fleet: a cell each, by region; the one under the pointer or the focus is told above. */

import { useEffect, useMemo, useState } from "preact/hooks";
import { memo } from "../parts/memo.ts";
import type { Satellite } from "../api/types.ts";
import type { Place } from "../place/place.ts";
import { Ago } from "../parts/moment.tsx";
import { MEANINGS, WORDS, condition, type Condition } from "../parts/condition.ts";
import { ConditionWord, Glyph } from "../parts/glyph.tsx";
import { count } from "../parts/format.ts";
import { go } from "../place/router.ts";
import { read } from "../place/place.ts";
import type { IntervalsInView } from "./intervals.ts";
import type { SatelliteList } from "./list.ts";
import { satellitePlace } from "./rows.tsx";
import { Strip } from "./strip.tsx";
import { arrowKeys } from "./arrow_keys.ts";

interface Props {
  place: Place;
  list: SatelliteList;
  view: IntervalsInView;
  at: number | undefined;
}

export function Cells({ place, list, view, at }: Props) {
  useEffect(() => list.want(0, list.length), [list, list.length]);
  const [told, tell] = useState<string>();
  const regions = new Map<string, Satellite[]>();
  let missing = 0;
  let shown: Satellite | undefined;
  for (let i = 0; i < list.length; i += 1) {
    const satellite = list.get(i);
    if (!satellite) missing += 1;
    else {
      if (satellite.id === told) shown = satellite;
      // All of them are read, so they are grouped here: no other order is asked for than in the other views.
      const region = regions.get(satellite.region);
      if (region) region.push(satellite);
      else regions.set(satellite.region, [satellite]);
    }
  }
  const ordered = [...regions].sort(([a], [b]) => a.localeCompare(b));
  const first = ordered[0]?.[1][0]?.id;
  const idOf = (event: Event) => (event.target instanceof Element ? event.target.closest<HTMLElement>("[data-id]")?.dataset["id"] : undefined);
  const follow = (event: Event) => {
    const id = idOf(event);
    if (id !== undefined && id !== told) tell(id);
  };
  return (
    <div class="cells-view">
      <div class="peek" aria-hidden="true">
        {shown ? (
          <>
            <ConditionWord of={condition(shown)} flapping={shown.flapping} />
            <strong class="peek-name">{shown.name}</strong>
            <span class="muted peek-seen">{shown.lastSeenAt ? <>heard <Ago at={shown.lastSeenAt} /></> : null}</span>
            <Strip key={shown.id} id={shown.id} name={shown.name} view={view} playhead={at} />
          </>
        ) : (
          <span class="muted">Point at a cell, or use the arrow keys.</span>
        )}
      </div>
      <div
        class="cells"
        onKeyDown={(event) => arrowKeys(event, "a.cell")}
        onPointerOver={follow}
        onFocusCapture={follow}
      >
        {ordered.map(([region, satellites]) => (
          <Region key={region} region={region} satellites={satellites} place={place} tabStop={told ?? first} removed={list.removed} />
        ))}
        {missing > 0 ? <p class="muted">{count(missing)} more are being read.</p> : null}
      </div>
      <Legend />
    </div>
  );
}

function Region({ region, satellites, place, tabStop, removed }: { region: string; satellites: Satellite[]; place: Place; tabStop: string | undefined; removed: ReadonlySet<string> }) {
  const off = satellites.filter((satellite) => satellite.status !== "online").length;
  const titleId = useMemo(() => `region-${hashOf(region)}`, [region]);
  const hasStop = satellites.some((satellite) => satellite.id === tabStop);
  return (
    <section class="cell-region" aria-labelledby={titleId}>
      <h3 id={titleId}>
        {region}
        <span class="muted tabular">
          {" "}
          {count(satellites.length)}
          {off > 0 ? `, ${count(off)} offline` : ""}
        </span>
      </h3>
      <CellList satellites={satellites} place={place} tabStop={hasStop ? tabStop : undefined} removed={removed} />
    </section>
  );
}

interface CellListProps {
  satellites: Satellite[];
  place: Place;
  tabStop: string | undefined;
  removed: ReadonlySet<string>;
}

function CellList({ satellites, place, tabStop, removed }: CellListProps) {
  return (
    <ul class="cell-list">
      {satellites.map((satellite) => (
        <Cell key={satellite.id} satellite={satellite} to={satellitePlace(place, satellite.id)} isStop={satellite.id === tabStop} isRemoved={removed.has(satellite.id)} />
      ))}
    </ul>
  );
}

interface CellProps {
  satellite: Satellite;
  to: string;
  isStop: boolean;
  isRemoved: boolean;
}

const Cell = memo(function Cell({ satellite, to, isStop, isRemoved }: CellProps) {
  const of: Condition = isRemoved ? "disabled" : condition(satellite);
  return (
    <li>
      <a
        href={to}
        class={`cell is-${of}${satellite.flapping ? " is-flapping" : ""}`}
        data-id={satellite.id}
        tabIndex={isStop ? 0 : -1}
        aria-label={`${satellite.name}, ${isRemoved ? "removed" : WORDS[of]}${satellite.flapping ? ", flapping" : ""}`}
        onClick={(event) => {
          if (event.metaKey || event.ctrlKey || event.shiftKey) return;
          event.preventDefault();
          const url = new URL(to, location.origin);
          go(read(url.pathname, url.search));
        }}
      />
    </li>
  );
});

/** What the shapes mean. */
export function Legend() {
  return (
    <ul class="legend" aria-label="What the shapes mean">
      {(["online", "lost", "gone", "never"] as const).map((of) => (
        <li key={of} title={MEANINGS[of]}>
          <span class={`condition is-${of}`}>
            <Glyph of={of} />
            {of === "lost" ? "heartbeat lost" : WORDS[of]}
          </span>
        </li>
      ))}
    </ul>
  );
}

function hashOf(text: string): string {
  let hash = 7;
  for (let i = 0; i < text.length; i += 1) hash = (hash * 31 + text.charCodeAt(i)) | 0;
  return (hash >>> 0).toString(36);
}
