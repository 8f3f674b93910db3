/** The fleet as a table: windowed, sortable, each row with its strip. */

import { useEffect, useRef, useState } from "preact/hooks";
import type { Satellite } from "../api/types.ts";
import { change, changed } from "../place/router.ts";
import { write, type Place } from "../place/place.ts";
import { Ago } from "../parts/moment.tsx";
import { condition } from "../parts/condition.ts";
import { ConditionWord } from "../parts/glyph.tsx";
import { count, seen } from "../parts/format.ts";
import { memo } from "../parts/memo.ts";
import { useRowsInView } from "../parts/windowed.ts";
import { Link } from "../shell/link.tsx";
import type { IntervalsInView } from "./intervals.ts";
import type { SatelliteList } from "./list.ts";
import { Strip } from "./strip.tsx";

export const ROW_HEIGHT = 36;

interface Props {
  place: Place;
  list: SatelliteList;
  view: IntervalsInView;
  order: string;
  at: number | undefined;
}

export function Rows({ place, list, view, order, at }: Props) {
  const body = useRef<HTMLTableSectionElement>(null);
  const rows = useRowsInView(body, list.length, ROW_HEIGHT);
  const [active, setActive] = useState(0);
  /** The row that gets the focus as soon as it is drawn. */
  const wanted = useRef<number | undefined>(undefined);
  useEffect(() => list.want(rows.from, rows.to), [list, rows.from, rows.to]);
  const focusWanted = () => {
    if (wanted.current === undefined) return;
    const link = body.current?.querySelector<HTMLElement>(`[data-row="${wanted.current}"] a`);
    if (!link) {
      // The row that had the focus may go: a key that is held down goes on moving.
      if (body.current?.contains(document.activeElement)) body.current.focus({ preventScroll: true });
      return;
    }
    wanted.current = undefined;
    link.focus({ preventScroll: true });
  };
  useEffect(focusWanted);
  const moveTo = (index: number) => {
    const next = Math.max(0, Math.min(list.length - 1, index));
    setActive(next);
    wanted.current = next;
    const top = (body.current?.getBoundingClientRect().top ?? 0) + next * ROW_HEIGHT;
    if (top < 140) scrollBy(0, top - 140);
    else if (top + ROW_HEIGHT > innerHeight - 20) scrollBy(0, top + ROW_HEIGHT - innerHeight + 20);
    focusWanted();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const page = Math.max(1, Math.floor(innerHeight / ROW_HEIGHT) - 6);
    const steps: Record<string, number> = {
      ArrowDown: active + 1,
      ArrowUp: active - 1,
      j: active + 1,
      k: active - 1,
      PageDown: active + page,
      PageUp: active - page,
      Home: 0,
      End: list.length - 1,
    };
    const next = steps[event.key];
    if (next === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    moveTo(next);
  };
  const indices = Array.from({ length: rows.to - rows.from }, (_, i) => rows.from + i);
  return (
    <table class="rows" aria-rowcount={list.length + 1} aria-label="Satellites">
      <colgroup>
        <col class="col-condition" />
        <col class="col-name" />
        <col class="col-region" />
        <col class="col-strip" />
        <col class="col-seen" />
        <col class="col-version" />
      </colgroup>
      <thead>
        <tr aria-rowindex={1}>
          <th scope="col" class="col-condition">
            Status
          </th>
          <Head place={place} order={order} by="name" class="col-name" text="Name" />
          <Head place={place} order={order} by="region" class="col-region" text="Region" />
          <th scope="col" class="col-strip">
            Last {place.span}
          </th>
          <Head place={place} order={order} by="lastSeenAt" class="col-seen" text="Last heard" />
          <th scope="col" class="col-version">
            Version
          </th>
        </tr>
      </thead>
      <tbody ref={body} tabIndex={-1} onKeyDown={onKeyDown}>
        {rows.from > 0 ? <Space height={rows.from * ROW_HEIGHT} /> : null}
        {indices.map((index) => {
          const satellite = list.get(index);
          return satellite ? (
            <Row key={satellite.id} {...{ place, satellite, index, view, at }} isActive={index === active} isRemoved={list.removed.has(satellite.id)} onFocus={setActive} />
          ) : (
            <tr key={`row ${index}`} class="is-missing" aria-rowindex={index + 2} data-row={index}>
              <td colSpan={6}>
                <span class="sr">Row {count(index + 1)} is being read</span>
                <span class="bone" aria-hidden="true" />
              </td>
            </tr>
          );
        })}
        {rows.to < list.length ? <Space height={(list.length - rows.to) * ROW_HEIGHT} /> : null}
      </tbody>
    </table>
  );
}

/** The place of rows that are not drawn. */
function Space({ height }: { height: number }) {
  return (
    <tr aria-hidden="true" class="space">
      <td colSpan={6} style={{ height: `${height}px` }} />
    </tr>
  );
}

function Head({ place, order, by, text, class: className }: { place: Place; order: string; by: string; text: string; class: string }) {
  const isThis = order === by || order === `-${by}`;
  const isDown = order === `-${by}`;
  return (
    <th scope="col" class={className} aria-sort={isThis ? (isDown ? "descending" : "ascending") : undefined}>
      <button type="button" class="sort" onClick={() => change({ sort: isThis && !isDown ? `-${by}` : by })} title={`Sort by ${text.toLowerCase()}`}>
        {text}
        <span aria-hidden="true" class="sort-mark">
          {isThis ? (isDown ? "↓" : "↑") : ""}
        </span>
      </button>
      <span class="sr">{place.sort === by ? "sorted" : ""}</span>
    </th>
  );
}

interface RowProps {
  place: Place;
  satellite: Satellite;
  index: number;
  view: IntervalsInView;
  at: number | undefined;
  isActive: boolean;
  isRemoved: boolean;
  onFocus: (index: number) => void;
}

/** Drawn again only when something of its own changes: while one scrolls, rows come and go and the others stay. */
const Row = memo(function Row({ place, satellite, index, view, at, isActive, isRemoved, onFocus }: RowProps) {
  const of = condition(satellite);
  return (
    <tr aria-rowindex={index + 2} data-row={index} class={isRemoved ? "is-removed" : undefined} onFocus={() => onFocus(index)}>
      <td class="col-condition">{isRemoved ? <span class="muted">removed</span> : <ConditionWord of={of} flapping={satellite.flapping} />}</td>
      <td class="col-name">
        <Link to={satellitePlace(place, satellite.id)} tabIndex={isActive ? 0 : -1} class="row-link">
          {satellite.name}
        </Link>
        <Tags tags={satellite.tags} />
      </td>
      <td class="col-region">{satellite.region}</td>
      <td class="col-strip">
        <Strip id={satellite.id} name={satellite.name} view={view} playhead={at} />
      </td>
      <td class="col-seen tabular muted">{satellite.lastSeenAt ? <Ago at={satellite.lastSeenAt} least={of === "online"} /> : "–"}</td>
      <td class="col-version tabular muted">{satellite.version ? seen(satellite.version) : "–"}</td>
    </tr>
  );
});

export function satellitePlace(place: Place, id: string): string {
  return write(changed(place, { route: { page: "satellite", id }, filters: { tag: [] }, sort: undefined, view: undefined, event: undefined }));
}

/** A few of a satellite's tags. */
export function Tags({ tags }: { tags: Record<string, string> }) {
  const all = Object.entries(tags);
  if (all.length === 0) return null;
  const text = all.map(([name, value]) => `${name}:${value}`);
  return (
    <span class="tags" title={text.join("\n")}>
      {text.slice(0, 2).map((tag) => (
        <span key={tag} class="tag">
          {tag}
        </span>
      ))}
      {text.length > 2 ? <span class="tag">+{text.length - 2}</span> : null}
    </span>
  );
}
