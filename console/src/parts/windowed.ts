/**
 * Which rows of a long list are in view, while the page scrolls as a whole.
 *
 * Only these are drawn; the rest is empty space of the right height. So 100,000 rows scroll like fifty.
 */

import { useEffect, useState } from "preact/hooks";

export interface Rows {
  from: number;
  to: number;
}

/** Rows drawn beyond both ends of the screen. */
const BEYOND = 12;

export function useRowsInView(list: { current: HTMLElement | null }, count: number, rowHeight: number): Rows {
  const [rows, setRows] = useState<Rows>({ from: 0, to: Math.min(count, 40) });
  useEffect(() => {
    let frame = 0;
    const look = () => {
      frame = 0;
      const element = list.current;
      if (!element) return;
      const top = element.getBoundingClientRect().top;
      const from = Math.max(0, Math.min(count, Math.floor(-top / rowHeight) - BEYOND));
      const to = Math.max(from, Math.min(count, Math.ceil((innerHeight - top) / rowHeight) + BEYOND));
      setRows((rows) => (rows.from === from && rows.to === to ? rows : { from, to }));
    };
    const soon = () => {
      frame ||= requestAnimationFrame(look);
    };
    look();
    addEventListener("scroll", soon, { passive: true });
    addEventListener("resize", soon);
    return () => {
      cancelAnimationFrame(frame);
      removeEventListener("scroll", soon);
      removeEventListener("resize", soon);
    };
  }, [list, count, rowHeight]);
  return { from: Math.min(rows.from, count), to: Math.min(rows.to, count) };
}
