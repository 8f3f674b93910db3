/** Puts edges from the log and from the stream together, by position. Pure. */

import type { Transition } from "../api/types.ts";

export interface Merged {
  /** The newest first, each once. */
  edges: Transition[];
  /** Positions have no gap, so where one shows there are edges to read behind this position. */
  missingAfter: number | undefined;
}

/** `known` has the newest first, `come` comes in any order; at most `most` are kept. */
export function merge(known: readonly Transition[], come: readonly Transition[], most: number): Merged {
  const byPosition = new Map<number, Transition>();
  for (const edge of known) byPosition.set(edge.position, edge);
  for (const edge of come) byPosition.set(edge.position, edge);
  const edges = [...byPosition.values()].sort((a, b) => b.position - a.position).slice(0, most);
  let missingAfter: number | undefined;
  for (let i = edges.length - 1; i > 0; i -= 1) {
    const [older, newer] = [edges[i]?.position ?? 0, edges[i - 1]?.position ?? 0];
    if (newer > older + 1) {
      missingAfter = older;
      break;
    }
  }
  return { edges, missingAfter };
}
