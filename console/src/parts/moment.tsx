/** A moment: how it reads, with the exact one on it. */

import { ago, clock, moment, when } from "./format.ts";
import { useNow } from "./clock.ts";

/** How long ago something was. */
export function Ago({ at, least }: { at: string; least?: boolean }) {
  const now = useNow();
  const text = ago(Date.parse(at), now);
  return (
    <time dateTime={at} title={`${moment(Date.parse(at))} UTC${least ? ", or later" : ""}`}>
      {text}
    </time>
  );
}

/** The time of day, with the day where it is another. */
export function At({ at }: { at: string }) {
  const now = useNow();
  return (
    <time dateTime={at} title={`${at.replace("T", " ").replace("Z", "")} UTC`}>
      {when(Date.parse(at), now)}
    </time>
  );
}

/** The time of day alone. */
export function Clock({ at }: { at: string }) {
  return (
    <time dateTime={at} title={`${at.replace("T", " ").replace("Z", "")} UTC`}>
      {clock(Date.parse(at))}
    </time>
  );
}
