/** Says which moment is looked at, and steps through the log edge by edge. */

import { change, place as here } from "../place/router.ts";
import { feed } from "../feed/feed.ts";
import { isPast, type Place } from "../place/place.ts";
import { ago, count, moment } from "../parts/format.ts";
import { useNow } from "../parts/clock.ts";
import { Store, useStore } from "../parts/store.ts";

interface Props {
  place: Place;
  /** The position that the answers are as of. */
  position: number | undefined;
  at: number | undefined;
}

/** The position that the answers on the page are as of; the fleet page says it. */
export const shownPosition = new Store<number | undefined>(undefined);

export function AsOf({ place, position, at }: Props) {
  const now = useNow();
  const head = useStore(feed).position;
  const known = isPast(place) ? position : (position ?? head);
  return (
    <div class={isPast(place) ? "as-of is-past" : "as-of"}>
      <p class="as-of-words" aria-live="polite">
        {isPast(place) ? (
          <>
            <strong>As of position {known === undefined ? "…" : count(known)}</strong>
            {at === undefined ? null : (
              <span class="as-of-when">
                {moment(at)} UTC <span class="muted">({ago(at, now)})</span>
              </span>
            )}
          </>
        ) : (
          <>
            <strong>Now</strong>
            <span class="as-of-when muted">position {known === undefined ? "…" : count(known)}</span>
          </>
        )}
      </p>
      <div class="as-of-steps" role="group" aria-label="Steps through the log">
        <button type="button" class="small" title="One edge earlier (,)" disabled={known === undefined || known <= 0} onClick={() => stepBy(-1, known)}>
          <span aria-hidden="true">‹</span> Earlier edge
        </button>
        <button
          type="button"
          class="small"
          title="One edge later (.)"
          disabled={!isPast(place) || known === undefined || (head !== undefined && known >= head)}
          onClick={() => stepBy(1, known)}
        >
          Later edge <span aria-hidden="true">›</span>
        </button>
        <button type="button" class="small" title="Back to the present (n)" disabled={!isPast(place)} onClick={toNow}>
          Now
        </button>
      </div>
    </div>
  );
}

/** Goes to the position that many edges from this one. */
export function stepBy(edges: number, from: number | undefined): void {
  if (from === undefined) return;
  const next = Math.max(0, from + edges);
  const head = feed.value.position;
  if (head !== undefined && next > head) toNow();
  else change({ position: next, at: undefined });
}

/** Goes back to the present. */
export function toNow(): void {
  if (isPast(here.value)) change({ position: undefined, at: undefined });
}
