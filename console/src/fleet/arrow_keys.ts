/** Moves the focus among things that stand in lines and columns, by where they are on the screen. */

export function arrowKeys(event: KeyboardEvent & { currentTarget: HTMLElement }, selector: string): void {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const all = [...event.currentTarget.querySelectorAll<HTMLElement>(selector)];
  const here = document.activeElement instanceof HTMLElement ? all.indexOf(document.activeElement) : -1;
  const current = all[here];
  if (!current) return;
  const next = target(event.key, all, here, current);
  if (!next) return;
  event.preventDefault();
  event.stopPropagation();
  next.focus();
}

function target(key: string, all: HTMLElement[], here: number, current: HTMLElement): HTMLElement | undefined {
  switch (key) {
    case "ArrowRight":
      return all[here + 1];
    case "ArrowLeft":
      return all[here - 1];
    case "Home":
      return all[0];
    case "End":
      return all.at(-1);
    case "ArrowDown":
    case "j":
      return line(all.slice(here + 1), current, 1);
    case "ArrowUp":
    case "k":
      return line(all.slice(0, here).reverse(), current, -1);
    default:
      return undefined;
  }
}

/** The one nearest to straight below (or above) in the next line. */
function line(candidates: HTMLElement[], current: HTMLElement, direction: 1 | -1): HTMLElement | undefined {
  const from = current.getBoundingClientRect();
  let top: number | undefined;
  let best: HTMLElement | undefined;
  let bestApart = Number.POSITIVE_INFINITY;
  for (const candidate of candidates) {
    const at = candidate.getBoundingClientRect();
    if (direction * (at.top - from.top) < 3) continue;
    if (top !== undefined && direction * (at.top - top) > 3) break;
    top ??= at.top;
    const apart = Math.abs(at.left - from.left);
    if (apart < bestApart) [best, bestApart] = [candidate, apart];
  }
  return best;
}
