/** A dialog over the page: the browser's own, so focus stays in it, Escape closes it, and focus goes back. */

import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";

interface Props {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
  wide?: boolean;
  /** Whether Escape and the cross are refused: what is inside is shown only once. */
  isHeld?: boolean;
}

export function Dialog({ title, onClose, children, wide, isHeld }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const element = dialog.current;
    const before = document.activeElement;
    element?.showModal();
    element?.querySelector<HTMLElement>("[autofocus]")?.focus();
    return () => {
      element?.close();
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  return (
    <dialog
      ref={dialog}
      class={wide ? "dialog is-wide" : "dialog"}
      aria-labelledby="dialog-title"
      onCancel={(event) => {
        event.preventDefault();
        if (!isHeld) onClose();
      }}
      onClick={(event) => {
        if (event.target === dialog.current && !isHeld) onClose();
      }}
    >
      <div class="dialog-inside">
        <header class="dialog-head">
          <h2 id="dialog-title">{title}</h2>
          {isHeld ? null : (
            <button type="button" class="ghost icon" aria-label="Close" onClick={onClose}>
              <svg viewBox="0 0 16 16" width="14" height="14" aria-hidden="true">
                <path d="m3 3 10 10M13 3 3 13" stroke="currentColor" stroke-width="1.800" />
              </svg>
            </button>
          )}
        </header>
        {children}
      </div>
    </dialog>
  );
}
