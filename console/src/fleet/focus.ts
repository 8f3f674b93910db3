/** Puts the focus on a satellite of the list, whichever way it is shown: where it was last, or on the first. */
export function focusSatellites(): boolean {
  const link = document.querySelector<HTMLElement>("table.rows a[tabindex='0'], .cells a[tabindex='0'], .cards a") ?? document.querySelector<HTMLElement>("table.rows a");
  link?.focus();
  return link !== null;
}
