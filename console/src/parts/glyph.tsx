/** The shapes of conditions and edges: each is told apart without its colour. */

import { EDGE_WORDS, WORDS, conditionAfter, type Condition } from "./condition.ts";
import type { Transition } from "../api/types.ts";

/** A shape alone, for where its word stands beside it. */
export function Glyph({ of }: { of: Condition }) {
  return (
    <svg class={`glyph is-${of}`} viewBox="0 0 16 16" width="12" height="12" aria-hidden="true" focusable="false">
      {shape(of)}
    </svg>
  );
}

function shape(of: Condition) {
  switch (of) {
    case "online":
      return <circle cx="8" cy="8" r="5.5" fill="currentColor" />;
    case "lost":
      return <path d="M8 1.500 15 14H1z" fill="currentColor" />;
    case "gone":
      return <rect x="2.750" y="2.750" width="10.500" height="10.500" rx="1.500" fill="none" stroke="currentColor" stroke-width="2" />;
    case "never":
      return <circle cx="8" cy="8" r="5.500" fill="none" stroke="currentColor" stroke-width="2" stroke-dasharray="2.600 2.700" />;
    case "disabled":
      return (
        <g fill="none" stroke="currentColor" stroke-width="2">
          <circle cx="8" cy="8" r="5.800" />
          <path d="m4 12 8-8" />
        </g>
      );
    case "maintenance":
      return <path d="M8 1.500 14.500 8 8 14.500 1.500 8z" fill="none" stroke="currentColor" stroke-width="2" />;
    case "unknown":
      return <path d="M2 13 13 2M2 7.500 7.500 2M8.500 14 14 8.500" stroke="currentColor" stroke-width="2" />;
  }
}

/** A shape with its word. */
export function ConditionWord({ of, flapping }: { of: Condition; flapping?: boolean | undefined }) {
  return (
    <span class={`condition is-${of}`}>
      <Glyph of={of} />
      <span class="word">{WORDS[of]}</span>
      {flapping ? <Flapping /> : null}
    </span>
  );
}

/** The mark of a satellite that comes and goes too often. */
export function Flapping() {
  return (
    <span class="flapping" title="More than ten edges in five minutes">
      <svg viewBox="0 0 16 16" width="12" height="12" aria-hidden="true" focusable="false">
        <path d="M1 11 4 5l3 6 3-6 3 6 2-4" fill="none" stroke="currentColor" stroke-width="1.800" stroke-linejoin="round" />
      </svg>
      <span>flapping</span>
    </span>
  );
}

/** The shape and word of an edge. */
export function EdgeWord({ edge }: { edge: Pick<Transition, "event" | "next"> }) {
  const of = conditionAfter(edge);
  return (
    <span class={`condition is-${of}`}>
      <Glyph of={of} />
      <span class="word">{EDGE_WORDS[edge.event] ?? edge.event.replaceAll("_", " ")}</span>
    </span>
  );
}
