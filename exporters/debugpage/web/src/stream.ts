// The stream of ticks of a live page, and what is said of the connection.

import type { Tick } from './types';

export type Connection = { state: 'live' | 'lost' | 'paused'; text: string };

const silence = 20_000; // milliseconds without an event after which the connection counts as lost: the program says every five seconds that it is there
const again = 2_000; // milliseconds after which a connection that was refused is tried again

// What is passed on of events that are none of ticks.
export const alive = '';
export const ends = 'ends'; // there is no more, and one is to ask again: something between here and the program keeps answers until they end

// Port is a MessagePort, to and from what has the connection.
export interface Port {
  onmessage: ((message: { data: string | null }) => void) | null;
  postMessage(message: string | null): void;
}

// Source is where ticks come from.
interface Source {
  close(): void;
}

export class Stream {
  private source: Source | null = null;
  private timer = 0;
  private last = performance.now();
  private paused = false;
  private shares = typeof SharedWorker !== 'undefined';

  constructor(
    private readonly id: string, // of the page
    private readonly onTick: (tick: Tick) => void,
    private readonly onConnection: (connection: Connection) => void,
  ) {
    this.open();
    setInterval(() => this.watch(), 1000);
    window.addEventListener('pagehide', () => this.close());
    window.addEventListener('pageshow', ({ persisted }) => {
      if (persisted && !this.paused) this.open();
    });
  }

  pause(paused: boolean): void {
    this.paused = paused;
    this.close();
    if (paused) this.onConnection({ state: 'paused', text: 'paused' });
    else this.open();
  }

  private open(): void {
    this.close();
    this.last = performance.now();
    this.source = this.shares ? this.share() : this.connect();
  }

  // share has a worker connect, which does it once for all pages of this browser.
  private share(): Source {
    const worker = new SharedWorker('stream.js', this.id); // another process has another one
    const port = worker.port as unknown as Port;
    worker.addEventListener('error', (event) => {
      event.preventDefault();
      this.shares = false; // it cannot be had here
      if (this.source === source) this.open();
    });
    const source = {
      close() {
        port.onmessage = null;
        port.postMessage('close');
      },
    };
    port.onmessage = ({ data }) => (data === null ? this.lost() : this.take(data));
    port.postMessage('open');
    return source;
  }

  private connect(): Source {
    const source = new EventSource('api/stream');
    source.addEventListener('tick', (event) => this.take((event as MessageEvent<string>).data));
    source.addEventListener('ends', () => this.take(ends));
    source.addEventListener('alive', () => this.take(alive));
    source.addEventListener('error', () => this.lost());
    return source;
  }

  private take(data: string): void {
    this.last = performance.now();
    if (data === alive) return;
    if (data === ends) return this.openLater();
    this.onConnection({ state: 'live', text: 'live' });
    this.onTick(JSON.parse(data) as Tick);
  }

  private close(): void {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  // lost is called when the connection has ended, and every second until there is one again.
  private lost(): void {
    if (this.paused) return;
    this.onConnection({ state: 'lost', text: 'connection lost, trying again' });
    this.openLater();
  }

  private openLater(): void {
    this.close();
    this.timer = window.setTimeout(() => this.open(), again);
  }

  private watch(): void {
    if (this.paused || !this.source) return;
    if (performance.now() - this.last > silence) this.lost();
  }
}
