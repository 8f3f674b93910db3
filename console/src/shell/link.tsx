/** A link inside the page. */

import type { ComponentChildren } from "preact";

interface Props {
  to: string;
  children: ComponentChildren;
  class?: string;
  tabIndex?: number;
  isHere?: boolean;
}

export function Link({ to, children, class: className, tabIndex, isHere }: Props) {
  return (
    <a href={to} class={className} tabIndex={tabIndex} aria-current={isHere ? "page" : undefined}>
      {children}
    </a>
  );
}
