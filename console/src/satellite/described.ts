import type { Satellite } from "../api/types.ts";

/** A satellite with the version of its description, for changes that must not undo somebody else's. */
export interface Described {
  satellite: Satellite;
  etag: string | undefined;
}
