/**
 * The worker that all tabs of a browser share: it holds the one event stream.
 *
 * A browser opens six connections to a server at a time over HTTP/1.1, so a stream for each tab would leave none for
 * the seventh. The worker lives as long as any tab does.
 */

import type { FromFeed, ToFeed } from "./messages.ts";
import { FeedSource } from "./source.ts";

interface WorkerScope {
  onconnect: ((event: MessageEvent) => void) | null;
}

const ports = new Set<MessagePort>();

const source = new FeedSource((message: FromFeed) => {
  for (const port of ports) port.postMessage(message);
});

(globalThis as unknown as WorkerScope).onconnect = (event) => {
  const port = event.ports[0];
  if (!port) return;
  ports.add(port);
  port.onmessage = ({ data }: MessageEvent<ToFeed>) => {
    switch (data.kind) {
      case "hello":
        source.start();
        for (const message of source.greeting()) port.postMessage(message);
        break;
      case "now":
        source.now();
        break;
      case "stop":
        source.stop();
        for (const each of ports) for (const message of source.greeting()) each.postMessage(message);
        break;
      case "bye":
        ports.delete(port);
        break;
    }
  };
};
