/** How the live feed stands, in the bar of every page. */

import { length } from "../parts/format.ts";
import { useOwnNow } from "../parts/clock.ts";
import { useStore } from "../parts/store.ts";
import { awaySince } from "../api/client.ts";
import { feed, hurryFeed } from "./feed.ts";

export function StatePill() {
  const { state } = useStore(feed);
  const away = useStore(awaySince);
  const now = useOwnNow();
  const is = state.is === "live" && away !== undefined ? "reconnecting" : state.is;
  const words = is === "live" ? "live" : is === "connecting" ? "connecting" : is === "signed-out" ? "signed out" : "reconnecting";
  const since = state.is === "reconnecting" ? state.sinceMs : away;
  return (
    <span class={`pill is-${is}`} role="status" data-feed={is}>
      <svg viewBox="0 0 16 16" width="12" height="12" aria-hidden="true">
        {is === "live" ? (
          <g fill="none" stroke="currentColor" stroke-width="1.800">
            <circle cx="8" cy="8" r="2" fill="currentColor" />
            <path d="M4.500 4.500a5 5 0 0 0 0 7M11.500 4.500a5 5 0 0 1 0 7" />
          </g>
        ) : (
          <path d="M13 8a5 5 0 1 1-1.500-3.500M13 2v3h-3" fill="none" stroke="currentColor" stroke-width="1.800" />
        )}
      </svg>
      <span>{words}</span>
      {is === "reconnecting" && since !== undefined ? (
        <>
          <span class="tabular pill-since" aria-hidden="true">
            {length(Math.max(0, Math.floor((now - since) / 1000) * 1000))}
          </span>
          <button type="button" class="pill-now" onClick={hurryFeed} title={state.is === "reconnecting" ? state.why : undefined}>
            now
          </button>
        </>
      ) : null}
    </span>
  );
}
