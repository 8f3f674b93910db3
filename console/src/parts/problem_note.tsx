/** An error where its answer would stand: what is wrong, why, and what to do. */

import type { ComponentChildren } from "preact";
import type { Problem } from "../api/problem.ts";
import { length } from "./format.ts";

interface Props {
  problem: Problem;
  /** What the page was about to show. */
  of?: string;
  onRetry?: (() => void) | undefined;
  children?: ComponentChildren;
}

export function ProblemNote({ problem, of, onRetry, children }: Props) {
  const retry = problem.isPassing && problem.status !== 0
    ? problem.retryAfterMs !== undefined && problem.retryAfterMs > 0
      ? `Asked again in ${length(problem.retryAfterMs)}.`
      : "Asked again by itself."
    : undefined;
  return (
    <div class={problem.isPassing ? "note is-passing" : "note is-wrong"} role="status">
      <p class="note-title">
        <svg viewBox="0 0 16 16" width="14" height="14" aria-hidden="true" focusable="false">
          <path d="M8 1.500 15 14H1z" fill="none" stroke="currentColor" stroke-width="1.500" stroke-linejoin="round" />
          <path d="M8 6v4M8 11.500v1.200" stroke="currentColor" stroke-width="1.500" />
        </svg>
        {of ? `${of}: ` : ""}
        {problem.title}
      </p>
      <p>
        {problem.detail} {retry}
      </p>
      <div class="note-actions">
        {onRetry && problem.isPassing ? (
          <button type="button" class="small" onClick={onRetry}>
            Try now
          </button>
        ) : null}
        {children}
      </div>
    </div>
  );
}
