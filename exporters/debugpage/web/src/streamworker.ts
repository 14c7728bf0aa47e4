// The stream of a live page, for all pages of a browser that show it: by HTTP/1.1 a browser has six connections to a host, and each stream takes one.
// A page sends open when it needs a tick that is whole, and close when it needs none. It is sent the data of ticks, and null when the connection
// has ended.

import { alive, ends, type Port } from './stream';

const ports = new Set<Port>();
let source: EventSource | null = null;
let fresh = false; // no tick has come yet: the first one is whole

function send(message: string | null): void {
  for (const port of ports) port.postMessage(message);
}

function end(): void {
  source?.close();
  source = null;
}

function begin(): void {
  if (source && fresh) return;
  end();
  const opened = (source = new EventSource('api/stream'));
  fresh = true;
  opened.addEventListener('tick', (event) => {
    fresh = false;
    send(event.data);
  });
  opened.addEventListener('alive', () => send(alive));
  opened.addEventListener('ends', () => {
    end();
    send(ends);
  });
  opened.addEventListener('error', () => {
    end();
    send(null);
  });
}

addEventListener('connect', (event) => {
  const [port] = (event as MessageEvent).ports as unknown as [Port];
  port.onmessage = ({ data }) => {
    if (data === 'open') {
      ports.add(port);
      begin();
    } else {
      ports.delete(port);
      if (ports.size === 0) end();
    }
  };
});
