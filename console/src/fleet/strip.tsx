/**
 * The states of a satellite over the window, as a strip.
 *
 * Up is a full bar, down a low one in another colour, unknown is hatched, maintenance dotted: shape tells as much as
 * colour. However short a loss was, it is a pixel wide.
 */

import { useEffect, useReducer, useRef } from "preact/hooks";
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
  const [drawn, draw] = useReducer((n: number) => n + 1, 0);
  const paint = useStore(paints);
  const { from, to, isLive } = view.window;
  const intervals = view.of(id);
  const list = intervals ? runs(intervals, from, to, isLive) : undefined;
  useNear(canvas, () => view.show(id, () => draw(undefined as never)), [view, id]);
  // One that is blank stays so: most rows that come by while one scrolls have gone before their states are there.
  const size = useSize(canvas, () => (list || playhead !== undefined ? draw(undefined as never) : undefined));
  useEffect(() => {
    const element = canvas.current;
    if (element) paintStrip(element, size.current, list, from, to, playhead);
  }, [drawn, intervals, from, to, playhead, paint]);
  return <canvas ref={canvas} class="strip" role="img" aria-label={list ? `${name}: ${spoken(list)}` : `${name}: states not read yet`} />;
}

/** A strip from runs that are there already. */
export function PlainStrip({ list, from, to, label, playhead }: { list: Run[] | undefined; from: number; to: number; label: string; playhead?: number | undefined }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [drawn, draw] = useReducer((n: number) => n + 1, 0);
  const paint = useStore(paints);
  const size = useSize(canvas, () => draw(undefined as never));
  useEffect(() => {
    const element = canvas.current;
    if (element) paintStrip(element, size.current, list, from, to, playhead);
  }, [drawn, list, from, to, playhead, paint]);
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

/** Does something while the strip is on the screen, or nearly; what it answers ends that. */
function useNear(canvas: { current: HTMLCanvasElement | null }, begin: () => () => void, of: readonly unknown[]): void {
  useEffect(() => {
    const element = canvas.current;
    if (!element || !near) return begin();
    let stop: (() => void) | undefined;
    nearing.set(element, (isNear) => {
      if (isNear) stop ??= begin();
      else {
        stop?.();
        stop = undefined;
      }
    });
    near.observe(element);
    return () => {
      near.unobserve(element);
      stop?.();
    };
  }, of);
}

interface Size {
  width: number;
  height: number;
}

const resized = new WeakMap<Element, (size: Size) => void>();
const sizes = typeof ResizeObserver === "function" ? new ResizeObserver((entries) => entries.forEach(({ target, contentRect }) => resized.get(target)?.(contentRect))) : undefined;

/**
 * How large the strip is, as soon as that is known. It is told and not asked for: to ask makes the browser lay out the
 * page once for each strip.
 */
function useSize(canvas: { current: HTMLCanvasElement | null }, draw: () => void): { current: Size | undefined } {
  const size = useRef<Size | undefined>(undefined);
  const redraw = useRef(draw);
  redraw.current = draw;
  useEffect(() => {
    const element = canvas.current;
    if (!element) return;
    const know = ({ width, height }: Size) => {
      size.current = { width, height };
      redraw.current();
    };
    if (!sizes) {
      know({ width: element.clientWidth, height: element.clientHeight });
      return;
    }
    resized.set(element, know);
    sizes.observe(element);
    return () => sizes.unobserve(element);
  }, []);
  return size;
}

/** Those that have something on them. */
const painted = new WeakSet<HTMLCanvasElement>();

function paintStrip(canvas: HTMLCanvasElement, size: Size | undefined, list: readonly Run[] | undefined, from: number, to: number, playhead: number | undefined): void {
  if (!size || (!list && playhead === undefined && !painted.has(canvas))) return;
  const scale = devicePixelRatio || 1;
  const [width, height] = [Math.round(size.width * scale), Math.round(size.height * scale)];
  if (width === 0 || height === 0) return;
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const context = canvas.getContext("2d");
  if (!context) return;
  painted.add(canvas);
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
