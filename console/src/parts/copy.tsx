/** A text that is taken away by one press. */

import { useState } from "preact/hooks";

/** The clipboard is there only over HTTPS and on localhost; elsewhere the old way is tried. */
async function toClipboard(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

export function CopyButton({ text, what }: { text: string; what: string }) {
  const [said, say] = useState<string>();
  const copy = async () => {
    say((await toClipboard(text)) ? "Copied" : "Select and copy it");
    setTimeout(() => say(undefined), 2000);
  };
  return (
    <button type="button" class="small" onClick={copy} aria-label={said ?? `Copy ${what}`}>
      <span aria-live="polite">{said ?? "Copy"}</span>
    </button>
  );
}

/** Lines to be copied. */
export function Snippet({ text, what }: { text: string; what: string }) {
  return (
    <div class="snippet">
      <pre tabIndex={0} role="region" aria-label={what}>
        {text}
      </pre>
      <CopyButton text={text} what={what} />
    </div>
  );
}
