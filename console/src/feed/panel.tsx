/** The newest edges as they happen, beside the fleet. */

import { useState } from "preact/hooks";
import { Clock } from "../parts/moment.tsx";
import { EDGE_WORDS, reasonWords } from "../parts/condition.ts";
import { EdgeWord } from "../parts/glyph.tsx";
import { count } from "../parts/format.ts";
import { ProblemNote } from "../parts/problem_note.tsx";
import { useStore } from "../parts/store.ts";
import { change, changed } from "../place/router.ts";
import { write, type Place } from "../place/place.ts";
import type { Transition } from "../api/types.ts";
import { satellitePlace } from "../fleet/rows.tsx";
import { Link } from "../shell/link.tsx";
import { feed } from "./feed.ts";

/** How many are drawn. */
const SHOWN = 50;

export function FeedPanel({ place }: { place: Place }) {
  const { edges, state, liveFrom, problem, isRead } = useStore(feed);
  const [event, setEvent] = useState("");
  const region = place.filters.region;
  const wanted = edges.filter((edge) => (event === "" || edge.event === event) && (region === undefined || regionOf(edge) === region)).slice(0, SHOWN);
  return (
    <aside class="feed" aria-labelledby="feed-title">
      <header class="feed-head">
        <h2 id="feed-title">Feed</h2>
        <span class="muted">{region === undefined ? "" : `in ${region}`}</span>
        <span class="filler" />
        <select aria-label="Edges shown" value={event} onChange={(e) => setEvent(e.currentTarget.value)}>
          <option value="">all edges</option>
          {Object.entries(EDGE_WORDS).map(([word, text]) => (
            <option key={word} value={word}>
              {text}
            </option>
          ))}
        </select>
      </header>
      {state.is === "reconnecting" ? <p class="feed-broken">What happens now is shown when the feed is back; nothing is missing then.</p> : null}
      {problem && edges.length === 0 ? <ProblemNote problem={problem} of="Feed" /> : null}
      {wanted.length === 0 && isRead ? <p class="muted empty">{edges.length === 0 ? "Nothing has happened yet." : "None of the newest edges is of this kind."}</p> : null}
      <ol class="feed-list" aria-label="Newest edges" tabIndex={0}>
        {wanted.map((edge) => (
          <FeedEdge key={edge.position} edge={edge} isNew={edge.position >= liveFrom} place={place} />
        ))}
      </ol>
      <footer class="feed-foot">
        <Link to={write(changed(place, { route: { page: "log" } }))}>The whole log</Link>
      </footer>
    </aside>
  );
}

function FeedEdge({ edge, isNew, place }: { edge: Transition; isNew: boolean; place: Place }) {
  const state = edge.next ?? edge.prev;
  return (
    <li class={isNew ? "feed-edge is-new" : "feed-edge"} data-position={edge.position}>
      <span class="feed-line">
        <Link to={satellitePlace(place, edge.id)} class={edge.next ? "feed-name" : "feed-name is-removed"}>
          {state?.name ?? edge.id}
        </Link>
        <span class="muted feed-region">{state?.region}</span>
        <span class="filler" />
        <span class="tabular muted">
          <Clock at={edge.recordedAt} />
        </span>
      </span>
      <span class="feed-line">
        <EdgeWord edge={edge} />
        {reasonSays(edge) ? <span class="feed-reason muted">{reasonWords(edge.reason)}</span> : null}
        <span class="filler" />
        <button
          type="button"
          class="position tabular"
          title="Show the fleet right after this edge"
          aria-label={`Show the fleet as of position ${count(edge.position)}`}
          onClick={() => change({ route: { page: "fleet" }, position: edge.position, at: undefined })}
        >
          {count(edge.position)}
        </button>
      </span>
    </li>
  );
}

/** Whether the reason says more than the edge. */
function reasonSays(edge: Transition): boolean {
  return !["connect", "heartbeat_timeout", "removed"].includes(edge.reason);
}

export function regionOf(edge: Transition): string | undefined {
  return (edge.next ?? edge.prev)?.region;
}
