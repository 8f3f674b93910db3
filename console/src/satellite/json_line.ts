/**
 * Which line of a JSON text a path such as `assignments[2].config` means. Pure.
 *
 * The server names the field that is wrong; a person looks for a line.
 */

/** The line, beginning with 1, where the value at the path begins; undefined where the text has no such place. */
export function lineOf(json: string, path: string): number | undefined {
  const wanted = path.replace(/^assignments\.?/, "").match(/[^.[\]]+/g) ?? [];
  let at = 0;
  const space = () => {
    while (/\s/.test(json[at] ?? "")) at += 1;
  };
  /** Reads a text and says what is in it. */
  const word = (): string => {
    const begin = at;
    at += 1;
    while (at < json.length && json[at] !== '"') at += json[at] === "\\" ? 2 : 1;
    at += 1;
    try {
      return JSON.parse(json.slice(begin, at)) as string;
    } catch {
      return "";
    }
  };
  /** Passes over a value. */
  const skip = (): void => {
    space();
    if (json[at] === '"') {
      word();
      return;
    }
    if (json[at] === "[" || json[at] === "{") {
      let depth = 0;
      do {
        const c = json[at];
        if (c === '"') {
          word();
          continue;
        }
        if (c === "[" || c === "{") depth += 1;
        else if (c === "]" || c === "}") depth -= 1;
        at += 1;
      } while (depth > 0 && at < json.length);
      return;
    }
    while (at < json.length && !/[,\]}\s]/.test(json[at] ?? "")) at += 1;
  };
  for (const step of wanted) {
    space();
    const open = json[at];
    if (open !== "[" && open !== "{") return undefined;
    at += 1;
    let index = 0;
    for (;;) {
      space();
      if (at >= json.length || json[at] === "]" || json[at] === "}") {
        // The field is missing: the thing it is missing from is the place.
        return lineAt(json, at);
      }
      let name = String(index);
      if (open === "{") {
        if (json[at] !== '"') return undefined;
        name = word();
        space();
        at += 1;
        space();
      }
      if (name === step) break;
      skip();
      space();
      if (json[at] === ",") at += 1;
      index += 1;
    }
  }
  space();
  return lineAt(json, at);
}

function lineAt(text: string, at: number): number {
  return text.slice(0, at).split("\n").length;
}
