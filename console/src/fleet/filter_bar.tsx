/** Which satellites are shown: search, the common filters, the rest behind a button; those in force as chips. */

import { useEffect, useRef, useState } from "preact/hooks";
import { change } from "../place/router.ts";
import { focusSatellites } from "./focus.ts";
import { FILTER_NAMES, filterCount, isPast, type FilterName, type Filters, type Place, type View } from "../place/place.ts";

/** A pause in typing after which the list follows. */
const SETTLE_MS = 180;

const LABELS: Record<FilterName, string> = {
  status: "status",
  region: "region",
  q: "name contains",
  lastEvent: "last edge",
  flapping: "flapping",
  version: "version",
  neverConnected: "never connected",
  inactiveFor: "inactive for",
};

const VIEWS: Record<View, string> = { cards: "Cards", cells: "Cells", table: "Table" };

interface Props {
  place: Place;
  regions: readonly string[];
  view: View;
  /** Views that the fleet is small enough for. */
  views: readonly View[];
}

export function FilterBar({ place, regions, view, views }: Props) {
  const [isMore, showMore] = useState(false);
  const { filters } = place;
  const set = (name: FilterName, value: string, how: "push" | "replace" = "push") => {
    const next: Filters = { ...filters };
    if (value === "") delete next[name];
    else next[name] = value;
    change({ filters: next }, how);
  };
  return (
    <div class="filters" role="search" aria-label="Filters">
      <div class="filter-line">
        <Search value={filters.q ?? ""} onChange={(value) => set("q", value, "replace")} />
        <Choice label="Status" value={filters.status ?? ""} options={[["", "any status"], ["online", "online"], ["offline", "offline"]]} onChange={(value) => set("status", value)} />
        <Choice
          label="Region"
          value={filters.region ?? ""}
          options={[["", "any region"], ...withChosen(regions, filters.region).map((region): [string, string] => [region, region])]}
          onChange={(value) => set("region", value)}
        />
        <button type="button" aria-expanded={isMore} aria-controls="more-filters" onClick={() => showMore(!isMore)}>
          More filters
        </button>
        <span class="filler" />
        <div class="segments" role="group" aria-label="View">
          {(Object.keys(VIEWS) as View[]).map((name) => (
            <button
              key={name}
              type="button"
              aria-pressed={name === view}
              disabled={!views.includes(name)}
              title={views.includes(name) ? undefined : "Too many satellites for this view: filter them"}
              onClick={() => change({ view: name })}
            >
              {VIEWS[name]}
            </button>
          ))}
        </div>
      </div>
      {isMore ? <More place={place} set={set} /> : null}
      <Chips place={place} />
    </div>
  );
}

function More({ place, set }: { place: Place; set: (name: FilterName, value: string) => void }) {
  const { filters } = place;
  const past = isPast(place) ? "Not known of the past" : undefined;
  return (
    <div class="filter-line" id="more-filters">
      <Choice
        label="Last edge"
        value={filters.lastEvent ?? ""}
        options={[["", "any last edge"], ["connected", "connected"], ["disconnected", "disconnected"], ["heartbeat_lost", "heartbeat lost"]]}
        onChange={(value) => set("lastEvent", value)}
      />
      <Choice label="Flapping" value={filters.flapping ?? ""} options={[["", "flapping or not"], ["true", "flapping"], ["false", "not flapping"]]} onChange={(value) => set("flapping", value)} />
      <Choice
        label="Inactive for"
        value={filters.inactiveFor ?? ""}
        options={withChosenPair([["", "however active"], ["1h", "inactive for 1 h"], ["24h", "inactive for 24 h"], ["7d", "inactive for 7 days"], ["30d", "inactive for 30 days"]], filters.inactiveFor)}
        onChange={(value) => set("inactiveFor", value)}
      />
      <Choice
        label="Connected ever"
        value={filters.neverConnected ?? ""}
        why={past}
        options={[["", "connected or not"], ["true", "never connected"], ["false", "connected before"]]}
        onChange={(value) => set("neverConnected", value)}
      />
      <Word label="Version" placeholder="version" value={filters.version ?? ""} why={past} onEnter={(value) => set("version", value)} />
      <Word
        label="Tag, name:value"
        placeholder="tag name:value"
        value=""
        onEnter={(value) => {
          if (!value.includes(":")) return "Write it name:value.";
          if (!filters.tag.includes(value)) change({ filters: { ...filters, tag: [...filters.tag, value] } });
          return undefined;
        }}
      />
    </div>
  );
}

function Chips({ place }: { place: Place }) {
  const { filters } = place;
  if (filterCount(filters) === 0) return null;
  const without = (name: FilterName) => {
    const next = { ...filters };
    delete next[name];
    change({ filters: next });
  };
  return (
    <ul class="chips" aria-label="Filters in force">
      {FILTER_NAMES.map((name) =>
        filters[name] === undefined ? null : (
          <li key={name}>
            <button type="button" class="chip" onClick={() => without(name)} aria-label={`Remove the filter ${LABELS[name]} ${filters[name]?.replaceAll("_", " ")}`}>
              <span class="muted">{LABELS[name]}</span> {filters[name]?.replaceAll("_", " ")} <Cross />
            </button>
          </li>
        ),
      )}
      {filters.tag.map((tag) => (
        <li key={`tag ${tag}`}>
          <button type="button" class="chip" onClick={() => change({ filters: { ...filters, tag: filters.tag.filter((each) => each !== tag) } })} aria-label={`Remove the filter tag ${tag}`}>
            <span class="muted">tag</span> {tag} <Cross />
          </button>
        </li>
      ))}
      <li>
        <button type="button" class="chip is-plain" onClick={() => change({ filters: { tag: [] } })}>
          Clear all
        </button>
      </li>
    </ul>
  );
}

function Cross() {
  return (
    <svg viewBox="0 0 16 16" width="10" height="10" aria-hidden="true">
      <path d="m3 3 10 10M13 3 3 13" stroke="currentColor" stroke-width="2" />
    </svg>
  );
}

function Search({ value, onChange }: { value: string; onChange: (value: string) => void }) {
  const [typed, type] = useState(value);
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  const sent = useRef(value);
  useEffect(() => {
    // The address changed by something else than typing here.
    if (value !== sent.current) type((sent.current = value));
  }, [value]);
  return (
    <input
      type="search"
      id="search"
      class="search"
      placeholder="Search by name"
      aria-label="Search by name"
      aria-keyshortcuts="/"
      value={typed}
      onKeyDown={(event) => {
        if (event.key !== "Escape" && event.key !== "ArrowDown") return;
        // Escape would empty the field; it leads out of it, and down leads to what was found.
        event.preventDefault();
        event.currentTarget.blur();
        if (event.key === "ArrowDown") focusSatellites();
      }}
      onInput={(event) => {
        const text = event.currentTarget.value;
        type(text);
        clearTimeout(timer.current);
        timer.current = setTimeout(() => {
          sent.current = text;
          onChange(text);
        }, SETTLE_MS);
      }}
    />
  );
}

interface ChoiceProps {
  label: string;
  value: string;
  options: [string, string][];
  onChange: (value: string) => void;
  /** Why it cannot be chosen now. */
  why?: string | undefined;
}

export function Choice({ label, value, options, onChange, why }: ChoiceProps) {
  return (
    <select aria-label={label} value={value} class={value === "" ? "" : "is-set"} disabled={why !== undefined && value === ""} title={why} onChange={(event) => onChange(event.currentTarget.value)}>
      {options.map(([word, text]) => (
        <option key={word} value={word} selected={word === value}>
          {text}
        </option>
      ))}
    </select>
  );
}

/** A text that counts when Enter is pressed. `onEnter` can say what is wrong with it. */
function Word({ label, placeholder, value, why, onEnter }: { label: string; placeholder: string; value: string; why?: string | undefined; onEnter: (value: string) => string | undefined | void }) {
  return (
    <form
      class="word-form"
      onSubmit={(event) => {
        event.preventDefault();
        const input = event.currentTarget.querySelector("input");
        if (!input) return;
        const wrong = onEnter(input.value.trim());
        input.setCustomValidity(wrong ?? "");
        if (wrong) input.reportValidity();
        else if (value === "") input.value = "";
      }}
    >
      <input type="text" aria-label={label} placeholder={placeholder} defaultValue={value} disabled={why !== undefined} title={why} onInput={(event) => event.currentTarget.setCustomValidity("")} />
    </form>
  );
}

function withChosen(words: readonly string[], chosen: string | undefined): string[] {
  return chosen === undefined || words.includes(chosen) ? [...words] : [chosen, ...words];
}

function withChosenPair(pairs: [string, string][], chosen: string | undefined): [string, string][] {
  if (chosen === undefined || pairs.some(([word]) => word === chosen)) return pairs;
  return [...pairs, [chosen, `inactive for ${chosen}`]];
}
