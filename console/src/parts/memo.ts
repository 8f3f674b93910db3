/** A part that is drawn again only when one of its properties changed. */

import { Component, h, type ComponentType, type VNode } from "preact";

export function memo<P extends object>(Part: (props: P) => VNode): ComponentType<P> {
  return class Memo extends Component<P> {
    override shouldComponentUpdate(next: Readonly<P>): boolean {
      const names = new Set([...Object.keys(this.props), ...Object.keys(next)]) as Set<keyof P>;
      for (const name of names) if (!Object.is((this.props as P)[name], next[name])) return true;
      return false;
    }
    override render(): VNode {
      return h(Part as unknown as ComponentType, this.props) as VNode;
    }
  };
}
