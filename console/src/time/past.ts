/** The moment the fleet is shown at: the one of a position has to be asked for. */

import { get } from "../api/client.ts";
import { useResource } from "../api/resource.ts";
import type { TransitionPage } from "../api/types.ts";
import type { Place } from "../place/place.ts";

/** When a position was recorded; undefined for the present, and until it is known. */
export function usePastMoment(place: Pick<Place, "at" | "position">): number | undefined {
  const { position, at } = place;
  const key = position !== undefined && position > 0 ? String(position) : undefined;
  const found = useResource(key, (signal) => get<TransitionPage>(`/v1/transitions?after=${(position ?? 1) - 1}&limit=1`, signal));
  if (at !== undefined) return Date.parse(at);
  if (position === undefined || !found.isCurrent) return undefined;
  const first = found.data?.transitions[0];
  return first && first.position === position ? Date.parse(first.recordedAt) : undefined;
}
