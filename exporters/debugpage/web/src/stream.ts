// The stream of ticks of a live page, and what is said of the connection.

import type { Tick } from './types';

export type Connection = { state: 'live' | 'lost' | 'paused'; text: string };

const silence = 15_000; // milliseconds without a tick after which the connection counts as lost; or so many times as long as between ticks
const silences = 4;
const longestSilence = 180_000;
const again = 2_000; // milliseconds after which a connection that was refused is tried again

export class Stream {
  private source: EventSource | null = null;
  private timer = 0;
  private last = Date.now();
  private gap = silence; // between ticks; a program for which they take long has them less often
  private paused = false;

  constructor(
    private readonly onTick: (tick: Tick) => void,
    private readonly onConnection: (connection: Connection) => void,
  ) {
    this.open();
    setInterval(() => this.watch(), 1000);
  }

  pause(paused: boolean): void {
    this.paused = paused;
    this.close();
    if (paused) this.onConnection({ state: 'paused', text: 'paused' });
    else this.open();
  }

  private open(): void {
    const source = (this.source = new EventSource('api/stream'));
    this.last = Date.now();
    source.addEventListener('tick', (event) => {
      this.gap = Date.now() - this.last;
      this.last = Date.now();
      this.onConnection({ state: 'live', text: 'live' });
      this.onTick(JSON.parse((event as MessageEvent<string>).data) as Tick);
    });
    source.addEventListener('error', () => this.lost());
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
    this.close();
    this.timer = window.setTimeout(() => this.open(), again);
  }

  private watch(): void {
    if (this.paused || !this.source) return;
    if (Date.now() - this.last > Math.min(longestSilence, Math.max(silence, silences * this.gap))) this.lost();
  }
}
