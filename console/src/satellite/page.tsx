/** One satellite: how it is, how it was, its log, what it is to check, and what an administrator can do. */

import { useEffect, useMemo, useState } from "preact/hooks";
import { ask, get } from "../api/client.ts";
import { mayChange, session } from "../api/session.ts";
import { useResource, type Resource } from "../api/resource.ts";
import type { Intervals, Satellite, Stats } from "../api/types.ts";
import { onEdges } from "../feed/feed.ts";
import { changed } from "../place/router.ts";
import { SPANS, write, type Place } from "../place/place.ts";
import { Ago, At } from "../parts/moment.tsx";
import { CopyButton } from "../parts/copy.tsx";
import { condition, reasonWords } from "../parts/condition.ts";
import { ConditionWord } from "../parts/glyph.tsx";
import { count, duration, length, seen, share } from "../parts/format.ts";
import { ProblemNote } from "../parts/problem_note.tsx";
import { useStore } from "../parts/store.ts";
import { Link } from "../shell/link.tsx";
import { Spans } from "../time/timeline.tsx";
import { bounds, useWindow, type Window } from "../time/window.ts";
import { runs, spoken, type Run } from "../fleet/runs.ts";
import { PlainStrip } from "../fleet/strip.tsx";
import { useRegistryChange } from "../fleet/use_list.ts";
import { SatelliteActions } from "../actions/satellite_actions.tsx";
import { Assignments } from "./assignments.tsx";
import type { Described } from "./described.ts";
import { History } from "./history.tsx";

export function SatellitePage({ id, place }: { id: string; place: Place }) {
  const who = useStore(session);
  const found = useResource(
    `/v1/satellites/${id}`,
    async (signal): Promise<Described> => {
      const { body, etag } = await ask<Satellite>(`/v1/satellites/${id}`, { signal });
      return { satellite: body, etag };
    },
    { everyMs: 10_000, paceMs: 400 },
  );
  const window = useWindow(place);
  const query = bounds(window);
  query.set("ids", id);
  const intervals = useResource(`${id} ${place.span} ${place.until ?? "now"}`, (signal) => get<Intervals>(`/v1/intervals?${query}`, signal), {
    everyMs: window.isLive ? Math.max(5000, window.stepMs) : undefined,
    paceMs: 400,
  });
  const stats = useResource(`${id} ${place.span}`, (signal) => get<Stats>(`/v1/satellites/${id}/stats?window=${duration(SPANS[place.span])}`, signal), { everyMs: 15_000, paceMs: 400 });
  const { reload } = found;
  const [reloadIntervals, reloadStats] = [intervals.reload, stats.reload];
  useEffect(
    () =>
      onEdges((edges) => {
        if (!edges.some((edge) => edge.id === id)) return;
        reload();
        reloadIntervals();
        reloadStats();
      }),
    [id, reload, reloadIntervals, reloadStats],
  );
  useRegistryChange(reload);
  const described = found.data;
  const isGone = found.problem?.status === 404;
  const list = useMemo(() => {
    const all = intervals.data?.intervals[id];
    return all && runs(all, window.from, window.to, window.isLive);
  }, [intervals.data, window.from, window.to, id]);
  return (
    <div class="satellite-page">
      <p class="crumbs">
        <Link to={write(changed(place, { route: { page: "fleet" } }))}>Fleet</Link>
      </p>
      {isGone ? (
        <>
          <h1>Satellite</h1>
          <p class="mono muted">{id}</p>
          <div class="note is-passing" role="status">
            <p class="note-title">There is no such satellite now</p>
            <p>It was removed, or never was. What the log still has of it is below.</p>
          </div>
        </>
      ) : (
        <>
          {found.problem ? <ProblemNote problem={found.problem} of="Satellite" onRetry={found.reload} /> : null}
          <Head described={described} id={id} />
        </>
      )}
      <div class="satellite-columns">
        <div class="satellite-main">
          <States {...{ place, window, list, stats, intervals }} name={described?.satellite.name ?? id} />
          <History id={id} place={place} />
          {isGone ? null : <Assignments id={id} mayChange={mayChange(who)} />}
        </div>
        {described && !isGone ? (
          <div class="satellite-side">
            <Facts satellite={described.satellite} />
            {mayChange(who) ? <SatelliteActions described={described} onChanged={found.reload} /> : null}
          </div>
        ) : null}
      </div>
    </div>
  );
}

function Head({ described, id }: { described: Described | undefined; id: string }) {
  const satellite = described?.satellite;
  return (
    <header class="satellite-head">
      <h1>{satellite?.name ?? " "}</h1>
      <div class="satellite-sub">
        {satellite ? <ConditionWord of={condition(satellite)} flapping={satellite.flapping} /> : <span class="muted">reading …</span>}
        {satellite ? <span class="muted">in {satellite.region}</span> : null}
        {satellite?.maintenance ? (
          <span class="muted">
            in maintenance until <At at={satellite.maintenance.until} />: {satellite.maintenance.reason}
          </span>
        ) : null}
        <span class="mono muted satellite-id">{id}</span>
        <CopyButton text={id} what="the id" />
      </div>
    </header>
  );
}

interface StatesProps {
  place: Place;
  window: Window;
  list: Run[] | undefined;
  stats: Resource<Stats>;
  intervals: Resource<Intervals>;
  name: string;
}

function States({ place, window, list, stats, intervals, name }: StatesProps) {
  const [isAll, showAll] = useState(false);
  const newest = list ? [...list].reverse() : [];
  const shown = isAll ? newest : newest.slice(0, 8);
  return (
    <section class="panel" aria-labelledby="states-title">
      <header class="panel-head">
        <h2 id="states-title">States</h2>
        <span class="filler" />
        <Spans place={place} window={window} />
      </header>
      {intervals.problem && !intervals.isCurrent ? <ProblemNote problem={intervals.problem} of="States" onRetry={intervals.reload} /> : null}
      <div class="big-strip">
        <PlainStrip list={list} from={window.from} to={window.to} label={`${name}: ${list ? spoken(list) : "states not read yet"}`} />
        <div class="big-strip-ends tabular muted">
          <At at={new Date(window.from).toISOString()} />
          {window.isLive ? <span>now</span> : <At at={new Date(window.to).toISOString()} />}
        </div>
      </div>
      <StatsLine stats={stats} place={place} />
      {shown.length > 0 ? (
        <div class="table-scroll" tabIndex={0} role="region" aria-label="States, the newest first">
        <table class="plain">
          <thead>
            <tr>
              <th scope="col">State</th>
              <th scope="col">From</th>
              <th scope="col">For</th>
              <th scope="col">Because of</th>
            </tr>
          </thead>
          <tbody>
            {shown.map((run, i) => (
              <tr key={run.from}>
                <td>
                  <RunWord state={run.state} />
                </td>
                <td class="tabular">
                  <At at={new Date(run.from).toISOString()} />
                </td>
                <td class="tabular">
                  {length(run.to - run.from)}
                  {i === 0 && window.isLive ? <span class="muted"> until now</span> : null}
                </td>
                <td class="muted">{because(run)}</td>
              </tr>
            ))}
          </tbody>
        </table>
        </div>
      ) : null}
      {newest.length > 8 ? (
        <button type="button" class="small" aria-expanded={isAll} onClick={() => showAll(!isAll)}>
          {isAll ? "Fewer" : `All ${count(newest.length)} states`}
        </button>
      ) : null}
    </section>
  );
}

function because(run: Run): string {
  if (run.event === undefined) return run.state === "unknown" ? "nothing is known" : run.state === "down" ? "silent, not declared yet" : "–";
  const why = run.reason === undefined ? "" : reasonWords(run.reason);
  return `${run.event.replaceAll("_", " ")}${why ? `: ${why}` : ""}`;
}

/** A state of a run, with its pattern. */
function RunWord({ state }: { state: Run["state"] }) {
  return (
    <span class="run-word">
      <span class="run-sample">
        <PlainStrip list={[{ from: 0, to: 1, state }]} from={0} to={1} label="" />
      </span>
      {state}
    </span>
  );
}

function StatsLine({ stats, place }: { stats: Resource<Stats>; place: Place }) {
  const { data, problem } = stats;
  if (problem && problem.type.endsWith(":no-history")) return <p class="muted no-stats">It has never connected: there is nothing to sum up yet.</p>;
  if (problem && !stats.isCurrent) return <ProblemNote problem={problem} of="Stats" onRetry={stats.reload} />;
  const all = data ? data.upMs + data.downMs + data.unknownMs : 0;
  const known = data ? data.upMs + data.downMs : 0;
  const number = (label: string, value: string, title?: string) => (
    <div class="stat" title={title}>
      <dt>{label}</dt>
      <dd class="tabular">{value}</dd>
    </div>
  );
  return (
    <dl class="stats">
      {number("up", data ? share(data.upMs, known) : " ", "Of the time of which something is known")}
      {number("down", data ? length(data.downMs) : " ")}
      {number("unknown", data ? (data.unknownMs === 0 ? "none" : `${length(data.unknownMs)} (${share(data.unknownMs, all).replace(" ", "\u00a0")})`) : " ")}
      {number("changes", data ? count(data.transitionCount) : " ", `How often its status changed in the last ${place.span}`)}
      {number(data?.value ? `${data.value} for` : "so for", data?.inStateForMs == null ? "–" : length(data.inStateForMs))}
    </dl>
  );
}

function Facts({ satellite }: { satellite: Satellite }) {
  const isOnline = satellite.status === "online";
  const fact = (label: string, value: preact.ComponentChildren) => (
    <div>
      <dt>{label}</dt>
      <dd>{value}</dd>
    </div>
  );
  const tags = Object.entries(satellite.tags);
  return (
    <section class="panel" aria-labelledby="facts-title">
      <header class="panel-head">
        <h2 id="facts-title">Facts</h2>
      </header>
      <dl class="facts">
        {fact("Region", satellite.region)}
        {fact(
          "Tags",
          tags.length === 0 ? (
            <span class="muted">none</span>
          ) : (
            <span class="tags is-all">
              {tags.map(([name, value]) => (
                <span key={name} class="tag">
                  {name}:{value}
                </span>
              ))}
            </span>
          ),
        )}
        {fact("Last heard", satellite.lastSeenAt ? <><Ago at={satellite.lastSeenAt} least={isOnline} />{isOnline ? <span class="muted"> or later</span> : null}</> : <span class="muted">{satellite.lastEvent ? "it said goodbye" : "never"}</span>)}
        {satellite.connectedSince ? fact("Connected since", <At at={satellite.connectedSince} />) : null}
        {fact("Threshold", satellite.offlineThresholdMs ? length(satellite.offlineThresholdMs) : <span class="muted">the pods' own</span>)}
        {fact("Version", satellite.version ? seen(satellite.version) : <span class="muted">not said</span>)}
        {fact("Can do", satellite.capabilities.length > 0 ? seen(satellite.capabilities.join(", ")) : <span class="muted">not said</span>)}
        {satellite.pod ? fact("Pod", <span class="mono">{satellite.pod}</span>) : null}
        {satellite.address ? fact("Address", <span class="mono">{satellite.address}</span>) : null}
        {fact("Registered", <At at={satellite.createdAt} />)}
        {satellite.imported ? fact("Imported", <At at={satellite.imported.importedAt} />) : null}
      </dl>
    </section>
  );
}
