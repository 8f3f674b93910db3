/** The fleet over time, and the slider that goes through it. */

import { useEffect, useRef, useState } from "preact/hooks";
import { asProblem, get } from "../api/client.ts";
import type { Problem } from "../api/problem.ts";
import { useResource } from "../api/resource.ts";
import type { Timeline as Answer } from "../api/types.ts";
import { change } from "../place/router.ts";
import { SPANS, isPast, type Place, type Span } from "../place/place.ts";
import { count, moment, when } from "../parts/format.ts";
import { present, useNow } from "../parts/clock.ts";
import { ProblemNote } from "../parts/problem_note.tsx";
import { useStore } from "../parts/store.ts";
import { paints } from "../theme/theme.ts";
import type { Drawn, Hover } from "./chart.ts";
import { bounds, type Window } from "./window.ts";

const HEIGHT = 132;

/** Points of a timeline. */
const POINTS = 240;

interface Props {
  place: Place;
  window: Window;
  /** The moment that is looked at, where it is not the present. */
  at: number | undefined;
}

export function Timeline({ place, window, at }: Props) {
  const query = bounds(window);
  const step = Math.max(1, Math.ceil((window.to - window.from) / POINTS / 1000));
  query.set("step", `${step}s`);
  // While the present moves on the chart is asked for again now and then, and stays while that is on its way.
  const key = `${place.span} ${place.until ?? "now"}`;
  const timeline = useResource(key, (signal) => get<Answer>(`/v1/fleet/timeline?${query}`, signal), {
    everyMs: window.isLive ? Math.max(window.stepMs, 5000) : undefined,
  });
  const [hover, setHover] = useState<Hover>();
  return (
    <section class="panel timeline" aria-labelledby="timeline-title">
      <header class="panel-head">
        <h2 id="timeline-title">Fleet over time</h2>
        <p class="hover-line tabular" aria-hidden="true">
          {hover ? (
            <>
              {when(Date.parse(hover.at), present())} · <span class="is-online">{count(hover.online)} online</span> ·{" "}
              <span class="is-lost">{count(hover.offline)} offline</span> · <span>{count(hover.unknown)} unknown</span>
            </>
          ) : (
            <span class="muted">times are UTC</span>
          )}
        </p>
        <Spans place={place} window={window} />
      </header>
      {timeline.problem && !timeline.isCurrent ? (
        <div class="chart-space">
          <ProblemNote problem={timeline.problem} of="Timeline" onRetry={timeline.reload} />
        </div>
      ) : (
        <Chart points={timeline.data?.points} window={window} at={at} onHover={setHover} isLoading={!timeline.isCurrent} />
      )}
      <Slider place={place} window={window} at={at} />
    </section>
  );
}

function Chart({
  points,
  window,
  at,
  onHover,
  isLoading,
}: {
  points: Answer["points"] | undefined;
  window: Window;
  at: number | undefined;
  onHover: (hover: Hover) => void;
  isLoading: boolean;
}) {
  const into = useRef<HTMLDivElement>(null);
  const chart = useRef<Drawn | undefined>(undefined);
  const [isDrawn, setDrawn] = useState(0);
  const [failed, setFailed] = useState<Problem>();
  const paint = useStore(paints);
  useEffect(() => {
    let isGone = false;
    import("./chart.ts").then(
      ({ draw }) => {
        if (isGone || !into.current) return;
        chart.current = draw(into.current, HEIGHT, onHover, pick);
        setFailed(undefined);
        setDrawn((n) => n + 1);
      },
      (error: unknown) => setFailed(asProblem(error)),
    );
    const resize = () => chart.current?.resize();
    addEventListener("resize", resize);
    return () => {
      isGone = true;
      removeEventListener("resize", resize);
      chart.current?.end();
      chart.current = undefined;
    };
  }, [paint]);
  useEffect(() => {
    if (points) chart.current?.set(points, window.from, window.to);
  }, [points, window.from, window.to, isDrawn]);
  const last = points?.at(-1);
  const label = last ? `Fleet over time: at its end ${count(last.online)} online, ${count(last.offline)} offline, ${count(last.unknown)} unknown` : "Fleet over time";
  const share = at === undefined ? undefined : (at - window.from) / (window.to - window.from);
  return (
    <div class={isLoading ? "chart-space is-loading" : "chart-space"}>
      <div ref={into} class="chart" role="img" aria-label={label} />
      {failed ? <ProblemNote problem={failed} of="Chart" /> : null}
      {share !== undefined && share >= 0 && share <= 1 ? <div class="playhead" style={{ "--share": String(share) }} /> : null}
    </div>
  );
}

function pick(at: number): void {
  change({ at: new Date(Math.round(at)).toISOString(), position: undefined });
}

/** Goes through the window; its right end is the present, or the window's end. */
function Slider({ place, window, at }: Props) {
  const now = useNow();
  const end = window.isLive ? now : window.to;
  const span = window.to - window.from;
  const [held, hold] = useState<number>();
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  const value = held ?? (at === undefined ? window.to : Math.min(window.to, Math.max(window.from, at)));
  const step = Math.max(1000, Math.round(span / 1000));
  const set = (next: number) => {
    hold(next);
    // The list follows the hand as fast as answers come, and no faster.
    timer.current ??= setTimeout(() => {
      timer.current = undefined;
      hold((held) => {
        if (held !== undefined) settle(held);
        return undefined;
      });
    }, 60);
  };
  const settle = (next: number) => {
    if (window.isLive && next >= now - step) change({ at: undefined, position: undefined }, "replace");
    else change({ at: new Date(Math.min(next, end)).toISOString(), position: undefined }, "replace");
  };
  const text = isPast(place) || held !== undefined ? `${moment(Math.min(value, end))} UTC` : "now";
  return (
    <div class="slider">
      <input
        type="range"
        aria-label="Moment in time"
        aria-valuetext={text}
        min={window.from}
        max={window.to}
        step={step}
        value={value}
        onInput={(event) => set(Number(event.currentTarget.value))}
      />
    </div>
  );
}

/** How long the span is, and where it ends. */
export function Spans({ place, window }: { place: Place; window: Window }) {
  const span = SPANS[place.span];
  const shift = (by: number) => {
    const until = window.to + by;
    change({ until: until >= present() ? undefined : new Date(until).toISOString() });
  };
  return (
    <div class="spans">
      <button type="button" class="small icon" aria-label="Earlier span" title="Earlier span" onClick={() => shift(-span)}>
        <span aria-hidden="true">←</span>
      </button>
      <div class="segments" role="group" aria-label="Span">
        {(Object.keys(SPANS) as Span[]).map((name) => (
          <button key={name} type="button" aria-pressed={name === place.span} onClick={() => change({ span: name })}>
            {name}
          </button>
        ))}
      </div>
      <button type="button" class="small icon" aria-label="Later span" title="Later span" disabled={window.isLive} onClick={() => shift(span)}>
        <span aria-hidden="true">→</span>
      </button>
    </div>
  );
}
