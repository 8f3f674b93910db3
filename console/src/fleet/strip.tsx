/**
 * The states of a satellite over the window, as a strip.
 *
 * Up is a full bar, down a low one in another colour, unknown is hatched, maintenance dotted: shape tells as much as
 * colour. However short a loss was, it is a pixel wide.
 */

import { useEffect, useRef, useState } from "preact/hooks";
import { colours, dots, hatch } from "../parts/colours.ts";
import { paints } from "../theme/theme.ts";
import { useStore } from "../parts/store.ts";
import type { IntervalsInView } from "./intervals.ts";
import { runs, spoken, type Run } from "./runs.ts";

interface Props {
  id: string;
  name: string;
  view: IntervalsInView;
  /** The moment the fleet is shown at, where it is not the present. */
  playhead?: number | undefined;
}

export function Strip({ id, name, view, playhead }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [drawn, draw] = useState(0);
  const paint = useStore(paints);
  const isInView = useInView(canvas);
  useEffect(() => (isInView ? view.show(id, () => draw((n) => n + 1)) : undefined), [view, id, isInView]);
  const { from, to, isLive } = view.window;
  const intervals = view.of(id);
  const list = intervals ? runs(intervals, from, to, isLive) : undefined;
  useEffect(() => {
    const element = canvas.current;
    if (element) paintStrip(element, list, from, to, playhead);
  }, [drawn, intervals, from, to, playhead, paint]);
  useResize(canvas, () => draw((n) => n + 1));
  return <canvas ref={canvas} class="strip" role="img" aria-label={list ? `${name}: ${spoken(list)}` : `${name}: states not read yet`} />;
}

/** A strip from runs that are there already. */
export function PlainStrip({ list, from, to, label, playhead }: { list: Run[] | undefined; from: number; to: number; label: string; playhead?: number | undefined }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [drawn, draw] = useState(0);
  const paint = useStore(paints);
  useEffect(() => {
    const element = canvas.current;
    if (element) paintStrip(element, list, from, to, playhead);
  }, [drawn, list, from, to, playhead, paint]);
  useResize(canvas, () => draw((n) => n + 1));
  // Where a word stands beside it, it is a picture of that word and says nothing.
  return label === "" ? <canvas ref={canvas} class="strip" aria-hidden="true" /> : <canvas ref={canvas} class="strip" role="img" aria-label={label} />;
}

/** How far from the screen a strip is asked for already: farther than the table draws rows. */
const NEAR = "600px";

const nearing = new WeakMap<Element, (isNear: boolean) => void>();
const near =
  typeof IntersectionObserver === "function"
    ? new IntersectionObserver((entries) => entries.forEach(({ target, isIntersecting }) => nearing.get(target)?.(isIntersecting)), { rootMargin: NEAR })
    : undefined;

/** Whether the strip is on the screen, or nearly. */
function useInView(canvas: { current: HTMLCanvasElement | null }): boolean {
  const [isNear, setNear] = useState(near === undefined);
  useEffect(() => {
    const element = canvas.current;
    if (!element || !near) return;
    nearing.set(element, setNear);
    near.observe(element);
    return () => near.unobserve(element);
  }, []);
  return isNear;
}

const sizes = typeof ResizeObserver === "function" ? new ResizeObserver((entries) => entries.forEach(({ target }) => resized.get(target)?.())) : undefined;
const resized = new WeakMap<Element, () => void>();

function useResize(canvas: { current: HTMLCanvasElement | null }, draw: () => void): void {
  useEffect(() => {
    const element = canvas.current;
    if (!element || !sizes) return;
    resized.set(element, draw);
    sizes.observe(element);
    return () => sizes.unobserve(element);
  }, []);
}

export function paintStrip(canvas: HTMLCanvasElement, list: readonly Run[] | undefined, from: number, to: number, playhead: number | undefined): void {
  const scale = devicePixelRatio || 1;
  const [width, height] = [Math.round(canvas.clientWidth * scale), Math.round(canvas.clientHeight * scale)];
  if (width === 0 || height === 0) return;
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const context = canvas.getContext("2d");
  if (!context) return;
  context.clearRect(0, 0, width, height);
  const colour = colours();
  if (list) {
    const x = (at: number) => ((at - from) / (to - from)) * width;
    // What is rarer and matters more is painted later, and never thinner than a pixel.
    for (const state of ["up", "unknown", "maintenance", "down"] as const) {
      for (const run of list) {
        if (run.state !== state) continue;
        const left = x(run.from);
        const wide = Math.max(x(run.to) - left, state === "up" ? 0 : 1.5 * scale);
        if (state === "down") {
          context.clearRect(left, 0, wide, height);
          context.fillStyle = colour.down;
          context.fillRect(left, Math.round(height * 0.5), wide, height);
        } else {
          if (state !== "up") context.clearRect(left, 0, wide, height);
          context.fillStyle =
            state === "up" ? colour.up : state === "unknown" ? hatch(context, colour.unknown, scale) : dots(context, colour.maintenance, scale);
          context.fillRect(left, 0, wide, height);
        }
      }
    }
  }
  if (playhead !== undefined && playhead >= from && playhead <= to) {
    const left = ((playhead - from) / (to - from)) * width;
    context.fillStyle = colour.text;
    context.fillRect(Math.round(left - scale), 0, Math.max(1, Math.round(2 * scale)), height);
  }
}
