/** A word that nobody else has: `crypto.randomUUID` is there only over HTTPS and on localhost. */
export function uniqueWord(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
