/** How wrong this computer's clock is, by the header `Date` of an answer. */

/** The header has whole seconds, and an answer takes a while: less than this says nothing. */
const LEAST_MS = 5000;

/** How far the server's clock is ahead, 0 where it is about the same; undefined where the answer cannot tell. */
export function skewOf(header: string | null, sentAt: number, heardAt: number): number | undefined {
  const date = Date.parse(header ?? "");
  if (Number.isNaN(date) || heardAt < sentAt || heardAt - sentAt > LEAST_MS) return undefined;
  const skew = date + 500 - (sentAt + heardAt) / 2;
  return Math.abs(skew) < LEAST_MS ? 0 : Math.round(skew / 1000) * 1000;
}
