/** Which parts this server has: routes that came later are asked for once, and a 404 only means that they are not there. */

import { asProblem, get } from "../api/client.ts";
import { Store } from "../parts/store.ts";

export interface Offers {
  outages: boolean;
  maintenance: boolean;
  whatIf: boolean;
}

export const offers = new Store<Offers>({ outages: false, maintenance: false, whatIf: false });

interface Described {
  paths?: Record<string, unknown>;
}

/**
 * The server's own description names its routes. Where that answers elsewhere (an operators' listener of its own), each
 * route is asked.
 */
export async function findOffers(): Promise<void> {
  try {
    const { paths } = await get<Described>("/openapi.json");
    if (paths) {
      offers.set({ outages: "/v1/outages" in paths, maintenance: "/v1/maintenance" in paths, whatIf: "/v1/what-if" in paths });
      return;
    }
  } catch {
    // Not here: ask each of them.
  }
  const has = async (path: string): Promise<boolean> => {
    try {
      await get(path);
      return true;
    } catch (error) {
      const { status } = asProblem(error);
      return status === 400 || status === 422;
    }
  };
  const [outages, maintenance, whatIf] = await Promise.all([has("/v1/outages?limit=1"), has("/v1/maintenance"), has("/v1/what-if")]);
  offers.set({ outages, maintenance, whatIf });
}
