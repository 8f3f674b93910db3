/** The theme's colours for what is painted on a canvas, read from the style sheet. */

import { paints } from "../theme/theme.ts";

export interface Colours {
  up: string;
  down: string;
  unknown: string;
  maintenance: string;
  text: string;
  muted: string;
  line: string;
  accent: string;
  surface: string;
}

let known: { paint: number; colours: Colours } | undefined;

export function colours(): Colours {
  if (known?.paint === paints.value) return known.colours;
  const style = getComputedStyle(document.documentElement);
  const of = (name: string) => style.getPropertyValue(name).trim();
  const colours: Colours = {
    up: of("--up"),
    down: of("--lost"),
    unknown: of("--unknown"),
    maintenance: of("--maintenance"),
    text: of("--text"),
    muted: of("--muted"),
    line: of("--line"),
    accent: of("--accent"),
    surface: of("--surface"),
  };
  known = { paint: paints.value, colours };
  return colours;
}

const tiles = new Map<string, HTMLCanvasElement>();

/** Strokes that say "nobody knows", as a pattern. */
export function hatch(context: CanvasRenderingContext2D, colour: string, scale: number): CanvasPattern | string {
  return pattern(context, `hatch ${colour} ${scale}`, 6 * scale, (tile, size) => {
    tile.strokeStyle = colour;
    tile.lineWidth = 1.4 * scale;
    tile.beginPath();
    for (const shift of [-size, 0, size]) {
      tile.moveTo(shift - 1, size + 1);
      tile.lineTo(shift + size + 1, -1);
    }
    tile.stroke();
  });
}

/** Dots that say "planned", as a pattern. */
export function dots(context: CanvasRenderingContext2D, colour: string, scale: number): CanvasPattern | string {
  return pattern(context, `dots ${colour} ${scale}`, 5 * scale, (tile, size) => {
    tile.fillStyle = colour;
    tile.beginPath();
    tile.arc(size / 2, size / 2, 1.5 * scale, 0, 2 * Math.PI);
    tile.fill();
  });
}

function pattern(
  context: CanvasRenderingContext2D,
  key: string,
  size: number,
  draw: (tile: CanvasRenderingContext2D, size: number) => void,
): CanvasPattern | string {
  let tile = tiles.get(key);
  if (!tile) {
    tile = document.createElement("canvas");
    tile.width = tile.height = Math.max(2, Math.round(size));
    const inside = tile.getContext("2d");
    if (inside) draw(inside, tile.width);
    tiles.set(key, tile);
  }
  return context.createPattern(tile, "repeat") ?? "transparent";
}
