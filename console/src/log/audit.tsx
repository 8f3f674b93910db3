/** The audit: who changed what, who signed in and who was refused, the newest first. Only for those who may read it. */

import { useEffect, useState } from "preact/hooks";
import { asProblem, get, isAbort } from "../api/client.ts";
import type { Problem } from "../api/problem.ts";
import { useResource } from "../api/resource.ts";
import type { AuditEntry, AuditPage as Page } from "../api/types.ts";
import { Choice } from "../fleet/filter_bar.tsx";
import { satellitePlace } from "../fleet/rows.tsx";
import { count } from "../parts/format.ts";
import { At } from "../parts/moment.tsx";
import { ProblemNote } from "../parts/problem_note.tsx";
import type { Place } from "../place/place.ts";
import { change } from "../place/router.ts";
import { Link } from "../shell/link.tsx";
import { behind, type Known, onTop } from "./audit_pages.ts";

const PAGE = 50;

/** How often it is looked for what is new. */
const LOOK_MS = 5_000;

/** What the filter offers: the rest is found by the command line. */
const ACTIONS: [string, string][] = [
  ["", "everything"],
  ["satellite.created", "satellites registered"],
  ["satellite.updated", "satellites changed"],
  ["satellite.removed", "satellites removed"],
  ["satellite.assigned", "assignments replaced"],
  ["token.created", "tokens made"],
  ["token.revoked", "tokens revoked"],
  ["page.signed_in", "sign-ins"],
  ["page.sign_in_refused", "refused sign-ins"],
  ["api.refused", "refused requests"],
];

export function AuditPage({ place }: { place: Place }) {
  const action = place.event ?? "";
  const path = (before?: number) => {
    const query = new URLSearchParams({ order: "desc", limit: String(PAGE) });
    if (action !== "") query.set("action", action);
    if (before !== undefined) query.set("before", String(before));
    return `/v1/audit?${query}`;
  };
  const newest = useResource(path(), (signal) => get<Page>(path(), signal), { everyMs: LOOK_MS });
  const [known, setKnown] = useState<Known>();
  const [asked, setAsked] = useState<number>();
  const [problem, setProblem] = useState<Problem>();
  useEffect(() => {
    setKnown(undefined);
    setAsked(undefined);
  }, [action]);
  useEffect(() => {
    if (newest.data && newest.isCurrent) setKnown((there) => onTop(there, newest.data!));
  }, [newest.data, newest.isCurrent]);
  useEffect(() => {
    if (asked === undefined) return;
    const gone = new AbortController();
    get<Page>(path(asked), gone.signal).then(
      (older) => {
        setProblem(undefined);
        setAsked(undefined);
        setKnown((there) => (there ? behind(there, older) : there));
      },
      (error) => {
        if (isAbort(error)) return;
        setAsked(undefined);
        setProblem(asProblem(error));
      },
    );
    return () => gone.abort();
  }, [asked]);
  const before = known?.before;
  return (
    <div class="log-page">
      <header class="page-head">
        <h1>Audit</h1>
        <p class="muted">Who changed what, who signed in and who was refused.</p>
      </header>
      <div class="filters" role="search" aria-label="Filters">
        <div class="filter-line">
          <Choice label="Actions" value={action} options={ACTIONS} onChange={(word) => change({ event: word === "" ? undefined : word })} />
        </div>
      </div>
      {newest.problem ? <ProblemNote problem={newest.problem} of="Audit" onRetry={newest.reload} /> : null}
      {problem ? <ProblemNote problem={problem} of="Audit" onRetry={() => setAsked(before)} /> : null}
      {known && known.entries.length === 0 ? <p class="muted empty">There is nothing of this kind.</p> : null}
      {known && known.entries.length > 0 ? <Entries entries={known.entries} place={place} /> : null}
      {before === undefined ? null : (
        <div class="edges-end">
          <button type="button" class="small" disabled={asked !== undefined} onClick={() => setAsked(before)}>
            {asked === undefined ? "Older" : "Reading …"}
          </button>
        </div>
      )}
    </div>
  );
}

function Entries({ entries, place }: { entries: readonly AuditEntry[]; place: Place }) {
  return (
    <div class="table-scroll" tabIndex={0} role="region" aria-label="Entries, the newest first">
      <table class="plain audit">
        <thead>
          <tr>
            <th scope="col">Position</th>
            <th scope="col">Recorded</th>
            <th scope="col">By</th>
            <th scope="col">From</th>
            <th scope="col">Action</th>
            <th scope="col">To</th>
            <th scope="col">Before and after</th>
          </tr>
        </thead>
        <tbody>
          {entries.map((entry) => (
            <tr key={entry.position} data-position={entry.position}>
              <td class="tabular">{count(entry.position)}</td>
              <td class="tabular">
                <At at={entry.recordedAt} />
              </td>
              <td>{entry.actor.type === "token" ? `${entry.actor.id} token` : entry.actor.id}</td>
              <td class="muted tabular">{entry.address ?? "–"}</td>
              <td>{entry.action}</td>
              <td>{entry.target.kind === "satellite" ? <Link to={satellitePlace(place, entry.target.id)}>{entry.target.id}</Link> : `${entry.target.kind} ${entry.target.id}`}</td>
              <td class="muted">
                <Values entry={entry} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Values({ entry: { before, after } }: { entry: AuditEntry }) {
  if (!before && !after) return null;
  return (
    <details>
      <summary>{Object.keys({ ...before, ...after }).slice(0, 3).join(", ")}</summary>
      {before ? <pre>{`before ${JSON.stringify(before, null, 1)}`}</pre> : null}
      {after ? <pre>{`after ${JSON.stringify(after, null, 1)}`}</pre> : null}
    </details>
  );
}
