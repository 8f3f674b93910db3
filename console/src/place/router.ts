/** The place in the address bar, followed by the whole page; links inside the page do not load it again. */

import { Store } from "../parts/store.ts";
import { read, write, type Place } from "./place.ts";

const here = () => read(location.pathname, location.search);

export const place = new Store<Place>(here());

addEventListener("popstate", () => place.set(here()));

/** Goes to a place. `replace` leaves no step to go back to, for what changes while one drags or types. */
export function go(next: Place, how: "push" | "replace" = "push"): void {
  const address = write(next);
  if (address !== location.pathname + location.search) {
    if (how === "push") history.pushState(null, "", address);
    else history.replaceState(null, "", address);
  }
  const isOtherPage = JSON.stringify(next.route) !== JSON.stringify(place.value.route);
  place.set(next);
  if (isOtherPage) scrollTo(0, 0);
}

/** Changes a part of the place; `undefined` takes a field away. */
export function change(part: { [name in keyof Place]?: Place[name] | undefined }, how: "push" | "replace" = "push"): void {
  go(changed(place.value, part), how);
}

/** The place with a part changed. */
export function changed(from: Place, part: { [name in keyof Place]?: Place[name] | undefined }): Place {
  const next: Record<string, unknown> = { ...from };
  for (const [name, value] of Object.entries(part)) {
    if (value === undefined) delete next[name];
    else next[name] = value;
  }
  return next as unknown as Place;
}

/** Takes clicks on links into the page, but for those that want a new tab. */
export function followLinks(event: MouseEvent): void {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const link = event.target instanceof Element ? event.target.closest("a") : null;
  if (!link || link.target !== "" || link.origin !== location.origin || !link.pathname.startsWith("/console/")) return;
  if (link.hash !== "" && link.pathname === location.pathname) return;
  event.preventDefault();
  go(read(link.pathname, link.search));
}
