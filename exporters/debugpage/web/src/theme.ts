// Light and dark, and the colours of what is drawn on a canvas.

export type Theme = 'auto' | 'light' | 'dark';

const key = 'alloctrace-theme';
const dark = window.matchMedia('(prefers-color-scheme: dark)');
const listeners: (() => void)[] = [];

function stored(): Theme {
  try {
    const value = localStorage.getItem(key);
    return value === 'light' || value === 'dark' ? value : 'auto';
  } catch {
    return 'auto'; // a browser may keep nothing of pages from files
  }
}

let chosen = stored();

export function theme(): Theme {
  return chosen;
}

export function setTheme(theme: Theme): void {
  chosen = theme;
  try {
    localStorage.setItem(key, theme);
  } catch {
    // it holds until the page is closed
  }
  apply();
}

export function onTheme(listener: () => void): void {
  listeners.push(listener);
}

function apply(): void {
  document.documentElement.dataset['theme'] = chosen === 'auto' ? (dark.matches ? 'dark' : 'light') : chosen;
  values.clear();
  for (const listener of listeners) listener();
}

const values = new Map<string, string>();

// colour is the value of a custom property of app.css: colour('c0').
export function colour(name: string): string {
  let value = values.get(name);
  if (value === undefined) values.set(name, (value = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()));
  return value;
}

export const seriesColours = 8;

// Colours gives names colours that they keep. Names that are shown together have different ones, if they are no more than there are.
export class Colours {
  private given = new Map<string, string>();

  // of returns the colours of names that are shown together.
  of(names: string[]): string[] {
    const shown = names.slice(0, seriesColours);
    const used = new Set<string>();
    const kept = shown.map((name) => {
      const has = this.given.get(name);
      if (has === undefined || used.has(has)) return undefined;
      used.add(has);
      return has;
    });
    let next = 0;
    const free = () => {
      while (used.has(`c${next}`)) next++;
      used.add(`c${next}`);
      return `c${next}`;
    };
    return names.map((name, i) => {
      if (i >= seriesColours) return 'other';
      const has = kept[i] ?? free();
      this.given.set(name, has);
      return has;
    });
  }
}

// tint is one of eight colours of frames, the same for the same name everywhere.
export function tint(name: string): string {
  let hash = 2166136261;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 16777619);
  return `f${((hash >>> 0) ^ (hash >>> 13)) & 7}`;
}

dark.addEventListener('change', apply);
apply();
