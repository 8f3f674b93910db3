/** Edges as a table. */

import { useEffect, useRef } from "preact/hooks";
import type { Place } from "../place/place.ts";
import { At } from "../parts/moment.tsx";
import { EdgeWord, Flapping } from "../parts/glyph.tsx";
import { reasonWords } from "../parts/condition.ts";
import { count, length } from "../parts/format.ts";
import { ProblemNote } from "../parts/problem_note.tsx";
import { change } from "../place/router.ts";
import { satellitePlace } from "../fleet/rows.tsx";
import { Link } from "../shell/link.tsx";
import type { EdgePages } from "./edge_pages.ts";

/** A loss found so much later than it was due is worth a word. */
const LATE_MS = 2000;

export function EdgeTable({ pages, place, isOfOne }: { pages: EdgePages; place: Place; isOfOne?: boolean }) {
  const end = useRef<HTMLDivElement>(null);
  const older = useRef(pages.older);
  older.current = pages.older;
  const mayGoOn = !isOfOne && pages.hasOlder && !pages.isLoading && !pages.problem;
  useEffect(() => {
    const element = end.current;
    if (!element || !mayGoOn) return;
    const watch = new IntersectionObserver(([entry]) => {
      if (entry?.isIntersecting) older.current();
    }, { rootMargin: "600px" });
    watch.observe(element);
    return () => watch.disconnect();
  }, [mayGoOn, pages.edges.length]);
  return (
    <>
      {pages.problem ? <ProblemNote problem={pages.problem} of="Log" onRetry={pages.reload} /> : null}
      {pages.isRead && pages.edges.length === 0 ? <p class="muted empty">{isOfOne ? "Nothing has happened to it yet." : "The log has nothing of this kind."}</p> : null}
      {!pages.isRead && !pages.problem ? <div class="table-space is-loading" aria-busy="true" /> : null}
      {pages.edges.length > 0 ? (
        <div class="table-scroll" tabIndex={0} role="region" aria-label="Edges, the newest first">
        <table class="plain edges">
          <thead>
            <tr>
              <th scope="col" class="edge-position">Position</th>
              <th scope="col" class="edge-time">Happened</th>
              {isOfOne ? null : <th scope="col">Satellite</th>}
              {isOfOne ? null : <th scope="col" class="edge-region">Region</th>}
              <th scope="col" class="edge-event">Edge</th>
              <th scope="col">Reason</th>
              <th scope="col" class="edge-session">Session</th>
              <th scope="col" class="edge-by">By</th>
            </tr>
          </thead>
          <tbody>
            {pages.edges.map((edge) => {
              const state = edge.next ?? edge.prev;
              const late = Date.parse(edge.recordedAt) - Date.parse(edge.occurredAt);
              return (
                <tr key={edge.position} data-position={edge.position}>
                  <td>
                    <button
                      type="button"
                      class="position tabular"
                      title="Show the fleet right after this edge"
                      aria-label={`Show the fleet as of position ${count(edge.position)}`}
                      onClick={() => change({ route: { page: "fleet" }, position: edge.position, at: undefined, event: undefined })}
                    >
                      {count(edge.position)}
                    </button>
                  </td>
                  <td class="tabular edge-time">
                    <At at={edge.occurredAt} />
                    {late > LATE_MS ? <span class="muted late" title={`Recorded at ${edge.recordedAt}`}> found {length(late)} later</span> : null}
                  </td>
                  {isOfOne ? null : (
                    <td class="edge-name">
                      <Link to={satellitePlace(place, edge.id)}>{state?.name ?? edge.id}</Link>
                    </td>
                  )}
                  {isOfOne ? null : <td class="muted edge-region">{state?.region}</td>}
                  <td>
                    <EdgeWord edge={edge} />
                    {edge.next?.flapping ? <Flapping /> : null}
                  </td>
                  <td class="muted">{reasonWords(edge.reason)}</td>
                  <td class="muted tabular edge-session">{edge.session}</td>
                  <td class="muted edge-by">{edge.actor.type === "token" ? `${edge.actor.id} token` : edge.actor.id}</td>
                </tr>
              );
            })}
          </tbody>
        </table>
        </div>
      ) : null}
      <div ref={end} class="edges-end">
        {pages.hasOlder ? (
          <button type="button" class="small" disabled={pages.isLoading} onClick={pages.older}>
            {pages.isLoading ? "Reading …" : "Older"}
          </button>
        ) : pages.isRead && pages.edges.length > 0 ? (
          <p class="muted small-text">This is the oldest that the log has.</p>
        ) : null}
      </div>
    </>
  );
}
