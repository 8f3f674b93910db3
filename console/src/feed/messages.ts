/** What the holder of the event stream and the tabs say to each other. */

import type { Transition } from "../api/types.ts";

export type FeedState =
  | { is: "connecting" }
  /** Edges arrive as they happen. */
  | { is: "live" }
  /** The stream broke; `why` is the server's reason, where it gave one. */
  | { is: "reconnecting"; sinceMs: number; why?: string }
  /** Nobody is signed in. */
  | { is: "signed-out" };

export type FromFeed =
  | { kind: "state"; state: FeedState; position: number | undefined }
  | { kind: "edges"; edges: Transition[] }
  /** What came in between cannot be told any more: read everything again. */
  | { kind: "gap" };

export type ToFeed =
  /** A tab is there: it is told the state and the newest edges. */
  | { kind: "hello" }
  /** Connect now instead of after the pause. */
  | { kind: "now" }
  /** The tab is closed or hidden away. */
  | { kind: "bye" }
  /** The session ended or another began. */
  | { kind: "stop" };
