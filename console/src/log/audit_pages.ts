/** What is known of the audit, the newest first. Pure. */

import type { AuditEntry, AuditPage } from "../api/types.ts";

/** The most entries that are kept. */
const MOST = 2000;

export interface Known {
  entries: readonly AuditEntry[];
  /** Before which position there is more. */
  before: number | undefined;
}

/** Puts the newest page on top. Where it does not reach down to what is known, entries are missing in between: it begins anew. */
export function onTop(known: Known | undefined, page: AuditPage): Known {
  const newest = known?.entries[0]?.position;
  const oldest = page.entries.at(-1)?.position;
  if (!known || newest === undefined || (page.nextBefore !== undefined && oldest !== undefined && oldest > newest)) {
    return { entries: page.entries, before: page.nextBefore };
  }
  const come = page.entries.filter((entry) => entry.position > newest);
  return come.length === 0 ? known : cut({ entries: [...come, ...known.entries], before: known.before });
}

/** Puts an older page behind. */
export function behind(known: Known, page: AuditPage): Known {
  const last = known.entries.at(-1)?.position ?? Number.POSITIVE_INFINITY;
  const older = page.entries.filter((entry) => entry.position < last);
  return { entries: [...known.entries, ...older], before: page.nextBefore };
}

function cut({ entries, before }: Known): Known {
  if (entries.length <= MOST) return { entries, before };
  const kept = entries.slice(0, MOST);
  return { entries: kept, before: kept.at(-1)?.position };
}
