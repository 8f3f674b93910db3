/** Keys that work on every page. Single letters can be switched off, because speech input types them by accident. */

import { useEffect } from "preact/hooks";
import { mayChange, session } from "../api/session.ts";
import { focusSatellites } from "../fleet/focus.ts";
import { openRegister } from "../actions/register.tsx";
import { feed } from "../feed/feed.ts";
import { isPast } from "../place/place.ts";
import { change, changed, go, place } from "../place/router.ts";
import { nextTheme } from "../theme/theme.ts";
import { shownPosition, stepBy, toNow } from "../time/as_of.tsx";
import { isHelpOpen } from "./help.tsx";
import { singleKeys } from "./single_keys.ts";

/** How long the second letter of a pair may take. */
const PAIR_MS = 1200;

export function useKeys(): void {
  useEffect(() => {
    let first: string | undefined;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const onKey = (event: KeyboardEvent) => {
      if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
      if (document.querySelector("dialog[open]")) return;
      const pair = first === undefined ? event.key : `${first} ${event.key}`;
      first = undefined;
      clearTimeout(timer);
      if (event.key === "?" && pair === "?") {
        isHelpOpen.set(true);
        event.preventDefault();
        return;
      }
      if (!singleKeys.value) return;
      if (pair === "g") {
        first = "g";
        timer = setTimeout(() => (first = undefined), PAIR_MS);
        return;
      }
      if (act(pair)) event.preventDefault();
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
}

function act(keys: string): boolean {
  switch (keys) {
    case "/":
      return focus("#search");
    case "g f":
      go(changed(place.value, { route: { page: "fleet" }, event: undefined }));
      return true;
    case "g l":
      go(changed(place.value, { route: { page: "log" } }));
      return true;
    case "g s":
    case "j":
    case "k":
      return focusSatellites();
    case "g t":
      return focus(".slider input");
    case "g e":
      return focus(".feed-list");
    case "t":
      nextTheme();
      return true;
    case "n":
      toNow();
      return true;
    case ",":
      stepBy(-1, isPast(place.value) ? (shownPosition.value ?? place.value.position) : feed.value.position);
      return true;
    case ".":
      if (isPast(place.value)) stepBy(1, shownPosition.value ?? place.value.position);
      return true;
    case "r":
      if (!mayChange(session.value) || place.value.route.page !== "fleet") return false;
      openRegister();
      return true;
    case "x":
      change({ filters: { tag: [] } });
      return true;
    default:
      return false;
  }
}

function focus(selector: string): boolean {
  const element = document.querySelector<HTMLElement>(selector);
  element?.focus();
  return element !== null;
}

function isTyping(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  if (target instanceof HTMLInputElement) return target.type !== "range" && target.type !== "checkbox";
  return target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement || target.isContentEditable;
}
