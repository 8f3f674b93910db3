/** The log of one satellite, the newest first; what happens is put on top. */

import type { Place } from "../place/place.ts";
import { EdgeTable } from "../log/edge_table.tsx";
import { useEdgePages } from "../log/edge_pages.ts";

export function History({ id, place }: { id: string; place: Place }) {
  const pages = useEdgePages(`/v1/satellites/${id}/transitions`, new URLSearchParams(), (edge) => edge.id === id);
  return (
    <section class="panel" aria-labelledby="history-title">
      <header class="panel-head">
        <h2 id="history-title">History</h2>
      </header>
      <EdgeTable pages={pages} place={place} isOfOne />
    </section>
  );
}
