/**
 * Sets the chosen theme before the page is drawn, so that it never flashes in the other one.
 *
 * It is a script of its own, because the page's policy allows none inside the document.
 */
try {
  const chosen = localStorage.getItem("theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset["theme"] = chosen;
} catch {
  // A browser that keeps nothing follows the system.
}
