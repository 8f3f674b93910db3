/** A small fleet: a card each, with its strip. */

import { useEffect } from "preact/hooks";
import type { Place } from "../place/place.ts";
import { Ago } from "../parts/moment.tsx";
import { condition } from "../parts/condition.ts";
import { ConditionWord } from "../parts/glyph.tsx";
import { Link } from "../shell/link.tsx";
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

export function Cards({ place, list, view, at }: Props) {
  useEffect(() => list.want(0, list.length), [list, list.length]);
  const all = Array.from({ length: list.length }, (_, i) => list.get(i));
  return (
    <ul class="cards" onKeyDown={(event) => arrowKeys(event, "a")} aria-label="Satellites">
      {all.map((satellite, i) => {
        if (!satellite) return <li key={`card ${i}`} class="card is-missing" aria-hidden="true" />;
        const of = condition(satellite);
        return (
          <li key={satellite.id} class={`card is-${of}${list.removed.has(satellite.id) ? " is-removed" : ""}`}>
            <div class="card-head">
              <Link to={satellitePlace(place, satellite.id)} class="card-link">
                {satellite.name}
              </Link>
              <span class="card-region muted">{satellite.region}</span>
            </div>
            <Strip id={satellite.id} name={satellite.name} view={view} playhead={at} />
            <div class="card-foot">
              <ConditionWord of={of} flapping={satellite.flapping} />
              <span class="muted tabular card-seen">{satellite.lastSeenAt ? <Ago at={satellite.lastSeenAt} least={of === "online"} /> : ""}</span>
            </div>
          </li>
        );
      })}
    </ul>
  );
}
