/** The chart of the fleet over time: what uPlot needs to know. Loaded when there is something to draw. */

import uPlot from "uplot";
import type { TimelinePoint } from "../api/types.ts";
import { colours, hatch } from "../parts/colours.ts";
import { clock, count, day } from "../parts/format.ts";

/** Room for the numbers on the left; the slider below begins there too. */
export const LEFT = 52;
/** Room on the right. */
export const RIGHT = 10;

export interface Drawn {
  set: (points: readonly TimelinePoint[], from: number, to: number) => void;
  resize: () => void;
  end: () => void;
}

/** What is under the pointer. */
export type Hover = TimelinePoint | undefined;

export function draw(into: HTMLElement, height: number, hover: (at: Hover) => void, pick: (at: number) => void): Drawn {
  let points: readonly TimelinePoint[] = [];
  let bounds: [number, number] = [0, 1];
  const colour = colours();
  const scale = devicePixelRatio || 1;
  const axis: uPlot.Axis = {
    stroke: colour.muted,
    grid: { stroke: colour.line, width: 1 },
    ticks: { show: false },
    font: "11px system-ui, sans-serif",
  };
  const chart = new uPlot(
    {
      width: Math.max(200, into.clientWidth),
      height,
      ms: 1,
      padding: [8, RIGHT, 0, 0],
      legend: { show: false },
      cursor: { drag: { x: false, y: false }, y: false, points: { size: 6 } },
      select: { show: false, left: 0, top: 0, width: 0, height: 0 },
      scales: { x: { time: true, range: () => bounds }, y: { range: (_, __, max) => [0, Math.max(1, max * 1.05)] } },
      tzDate: (at) => uPlot.tzDate(new Date(at), "Etc/UTC"),
      axes: [
        { ...axis, size: 24, values: (_, at) => labels(at) },
        { ...axis, size: LEFT, values: (_, values) => values.map((value) => (Number.isInteger(value) ? count(value) : "")) },
      ],
      // Stacked: what is known, and of that what is online. Of the rest nothing is known: it is hatched, and has no line.
      series: [
        {},
        { label: "unknown", show: true, width: 0, points: { show: false } },
        { label: "offline", width: 1.5, stroke: colour.down, fill: mix(colour.down, 0.85), points: { show: false } },
        { label: "online", width: 1.5, stroke: colour.up, fill: mix(colour.up, 0.28), points: { show: false } },
      ],
      bands: [
        { series: [2, 3], fill: mix(colour.down, 0.8) },
      ],
      hooks: {
        drawAxes: [(chart) => hatchUnknown(chart, points, hatch(chart.ctx, colour.unknown, scale))],
        setCursor: [
          (chart) => {
            const i = chart.cursor.idx;
            hover(i === null || i === undefined ? undefined : points[i]);
          },
        ],
      },
    },
    [[0], [0], [0], [0]],
    into,
  );
  chart.over.addEventListener("click", (event) => {
    const at = chart.posToVal(event.offsetX, "x");
    if (Number.isFinite(at)) pick(at);
  });
  return {
    set(next, from, to) {
      points = next;
      bounds = [from, to];
      chart.setData([
        next.map((point) => Date.parse(point.at)),
        next.map((point) => point.online + point.offline + point.unknown),
        next.map((point) => (isBlind(point) ? null : point.online + point.offline)),
        next.map((point) => (isBlind(point) ? null : point.online)),
      ]);
    },
    resize() {
      const width = Math.max(200, into.clientWidth);
      if (width !== chart.width) chart.setSize({ width, height });
    },
    end: () => chart.destroy(),
  };
}

/** Whether nothing is known of anybody. */
function isBlind(point: TimelinePoint): boolean {
  return point.unknown > 0 && point.online + point.offline === 0;
}

/** Fills what is unknown, from one point half-way to its neighbours. */
function hatchUnknown(chart: uPlot, points: readonly TimelinePoint[], pattern: CanvasPattern | string): void {
  const { ctx } = chart;
  ctx.save();
  ctx.fillStyle = pattern;
  const x = (i: number) => chart.valToPos(Date.parse(points[Math.max(0, Math.min(points.length - 1, i))]?.at ?? ""), "x", true);
  const y = (n: number) => chart.valToPos(n, "y", true);
  points.forEach((point, i) => {
    if (point.unknown === 0) return;
    const [left, right] = [(x(i - 1) + x(i)) / 2, (x(i) + x(i + 1)) / 2];
    const known = point.online + point.offline;
    const top = y(known + point.unknown);
    ctx.fillRect(left, top, right - left, y(known) - top);
  });
  ctx.restore();
}

function labels(at: readonly number[]): string[] {
  const apart = (at[1] ?? 0) - (at[0] ?? 0);
  return at.map((at) => {
    if (apart >= 86_400_000 || at % 86_400_000 === 0) return day(at).slice(5);
    return clock(at).slice(0, apart < 60_000 ? 8 : 5);
  });
}

/** A colour with less of itself. */
function mix(colour: string, alpha: number): string {
  const hex = /^#([0-9a-f]{6})$/i.exec(colour)?.[1];
  if (!hex) return colour;
  const part = (at: number) => Number.parseInt(hex.slice(at, at + 2), 16);
  return `rgba(${part(0)}, ${part(2)}, ${part(4)}, ${alpha})`;
}
