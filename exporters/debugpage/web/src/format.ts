// Numbers as people read them, in the forms that the library's texts have.

// bytes writes as counter.FormatBytes does: a unit of 1024 and at most two decimals.
export function bytes(n: number): string {
  const sign = Math.round(n) < 0 ? '−' : '';
  let size = Math.abs(Math.round(n));
  if (size < 1024) return `${sign}${size} B`;
  let unit = 0;
  while (size >= 1024 && unit < 6) {
    size /= 1024;
    unit++;
  }
  return `${sign}${trim(size.toFixed(2))} ${'BKMGTPE'[unit]}iB`;
}

// coarse writes bytes with at most three digits, for axes and for places where many figures stand close together.
export function coarse(n: number): string {
  const sign = Math.round(n) < 0 ? '−' : '';
  let size = Math.abs(Math.round(n));
  let unit = 0;
  while (size >= 999.5 && unit < 6) {
    size /= 1024;
    unit++;
  }
  const digits = unit === 0 || size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2;
  return `${sign}${trim(size.toFixed(digits))} ${unit === 0 ? 'B' : 'BKMGTPE'[unit] + 'iB'}`;
}

// change writes a difference of bytes with its sign.
export function change(n: number): string {
  return n > 0 ? `+${bytes(n)}` : bytes(n);
}

const grouped = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });

export function count(n: number): string {
  return grouped.format(Math.round(n)).replace('-', '−');
}

// rate writes how many there are in a second.
export function rate(n: number): string {
  if (n < 9999.5) return count(n);
  if (n < 999_950) return `${trim((n / 1e3).toFixed(1))} thousand`;
  return `${trim((n / 1e6).toFixed(1))} million`;
}

export function plural(n: number, noun: string, many = `${noun}s`): string {
  return `${count(n)} ${Math.round(n) === 1 ? noun : many}`;
}

// share writes a part of a whole in percent.
export function share(part: number, whole: number): string {
  if (whole === 0 || part === 0) return '0 %';
  const percent = (100 * part) / whole;
  if (Math.abs(percent) < 0.1) return '< 0.1 %';
  return `${trim(percent.toFixed(Math.abs(percent) < 10 ? 1 : 0))} %`.replace('-', '−');
}

// duration writes microseconds in at most two units, as Go does: 850ns, 1.45ms, 12.3s, 2m8s, 1h2m, 3d4h.
export function duration(us: number): string {
  if (us < 0) return `−${duration(-us)}`;
  if (us === 0) return '0s';
  if (us < 1) return `${Math.round(us * 1000)}ns`;
  if (us < 999.5) return `${significant(us)}µs`;
  if (us < 999_500) return `${significant(us / 1e3)}ms`;
  if (us < 59.95e6) return `${significant(us / 1e6)}s`;
  const seconds = Math.round(us / 1e6);
  if (seconds < 3600) return pair(Math.floor(seconds / 60), 'm', seconds % 60, 's');
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1440) return pair(Math.floor(minutes / 60), 'h', minutes % 60, 'm');
  const hours = Math.floor(minutes / 60);
  return pair(Math.floor(hours / 24), 'd', hours % 24, 'h');
}

function pair(large: number, unit: string, small: number, smaller: string): string {
  return small === 0 ? `${large}${unit}` : `${large}${unit}${small}${smaller}`;
}

function significant(n: number): string {
  return trim(n.toFixed(n < 9.995 ? 2 : n < 99.95 ? 1 : 0));
}

function trim(number: string): string {
  return number.includes('.') ? number.replace(/\.?0+$/, '') : number;
}

// clock writes a time of day, in the browser's time zone; digits are those of the second's fraction.
export function clock(ms: number, digits = 0): string {
  const date = new Date(ms);
  const two = (n: number) => String(n).padStart(2, '0');
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return digits === 0 ? time : `${time}.${String(date.getMilliseconds()).padStart(3, '0').slice(0, digits)}`;
}

// digitsOf is how many digits of a second's fraction tell times apart that are so many milliseconds from each other.
export function digitsOf(ms: number): number {
  return ms >= 1000 ? 0 : ms >= 100 ? 1 : ms >= 10 ? 2 : 3;
}

export function day(ms: number): string {
  const date = new Date(ms);
  const two = (n: number) => String(n).padStart(2, '0');
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}

export function hex(n: number): string {
  return `0x${n.toString(16)}`;
}

// shortFunction leaves out the path of a function's package: cache.(*Cache).load.
export function shortFunction(name: string): string {
  return name.slice(name.lastIndexOf('/') + 1).replace(/\[\.\.\.\]/g, '');
}

export function shortFile(name: string): string {
  return name.slice(Math.max(name.lastIndexOf('/'), name.lastIndexOf('\\')) + 1);
}

// parseSize reads a size such as 4096, 64 KiB or 1.5m; nothing is 0, and what is none is null.
export function parseSize(typed: string): number | null {
  if (typed.trim() === '') return 0;
  const found = /^\s*(\d+\.?\d*|\.\d+)\s*([kmgt]?)i?b?\s*$/i.exec(typed);
  if (!found) return null;
  const power = ['', 'k', 'm', 'g', 't'].indexOf((found[2] ?? '').toLowerCase());
  return Number(found[1]) * 1024 ** power;
}

const longest = 100; // characters of a name
const invisible = /[\p{Cc}\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu;
const rightToLeft = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/;

// legible is a name of the program for people: one that is very long without its middle, without what has no form or turns the text around it, and
// apart from that text where it is written from right to left.
export function legible(name: string): string {
  let shown = name.replace(invisible, '\ufffd');
  const characters = [...shown];
  if (characters.length > longest) shown = `${characters.slice(0, 60).join('')} … ${characters.slice(-35).join('')}`;
  if (name !== '' && shown.trim() === '') return `“${shown}”`;
  return rightToLeft.test(shown) ? `\u2068${shown}\u2069` : shown;
}
