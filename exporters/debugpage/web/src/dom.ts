// Elements are made here. Texts of the server become text nodes and never HTML; styles are set through the CSSOM, which a strict
// Content-Security-Policy allows.

export type Child = Node | string | null | undefined | false | Child[];

export interface Attributes {
  class?: string | undefined;
  style?: Record<string, string>;
  on?: { [event: string]: (event: any) => void };
  [name: string]: unknown;
}

export function h<T extends keyof HTMLElementTagNameMap>(
  tag: T,
  attributes?: Attributes | null,
  ...children: Child[]
): HTMLElementTagNameMap[T] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === 'on') {
      for (const [event, listener] of Object.entries(value as Record<string, EventListener>)) element.addEventListener(event, listener);
    } else if (name === 'style') {
      for (const [property, text] of Object.entries(value as Record<string, string>)) element.style.setProperty(property, text);
    } else {
      element.setAttribute(name, value === true ? '' : String(value));
    }
  }
  append(element, children);
  return element;
}

export function append(parent: Node, children: Child[]): void {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (Array.isArray(child)) append(parent, child);
    else parent.appendChild(typeof child === 'string' ? document.createTextNode(child) : child);
  }
}

// replace has an element contain these children alone. What had the focus gives it to what has its name, such as a button of a row that has
// moved, or else to what is in its place; and tables are where they were scrolled to.
export function replace(parent: Element, ...children: Child[]): void {
  const reachable = () => [...parent.querySelectorAll<HTMLElement>('button, a, select, input, [tabindex]')];
  const name = (element: Element | undefined) => element && (element.getAttribute('aria-label') ?? element.textContent);
  const tables = () => [...parent.querySelectorAll('.scroll')];
  const { activeElement } = document;
  const focused = activeElement && parent.contains(activeElement) ? reachable().indexOf(activeElement as HTMLElement) : -1;
  const wanted = focused >= 0 ? name(activeElement as Element) : null;
  const scrolled = tables().map(({ scrollLeft }) => scrollLeft);
  parent.replaceChildren();
  append(parent, children);
  if (scrolled.some((left) => left > 0)) tables().forEach((table, i) => (table.scrollLeft = scrolled[i] ?? 0));
  if (focused < 0) return;
  const list = reachable(),
    same = list[focused];
  (name(same) === wanted ? same : (list.find((element) => name(element) === wanted) ?? same))?.focus({ preventScroll: true });
}

// text sets an element's text if it is another, so that a screen reader is not told of what did not change.
export function text(element: Element, value: string): void {
  if (element.textContent !== value) element.textContent = value;
}

let ids = 0;

export function uniqueID(prefix: string): string {
  return `${prefix}-${++ids}`;
}

// announce has a screen reader say a sentence, which it does only if the text is another than before.
export function announce(sentence: string): void {
  const region = document.getElementById('announce');
  if (region) region.textContent = region.textContent === sentence ? `${sentence}\u00a0` : sentence;
}

// fitCanvas gives a canvas the size that it has on the screen, in device pixels, and returns its context in CSS pixels.
export function fitCanvas(canvas: HTMLCanvasElement, width: number, height: number): CanvasRenderingContext2D {
  const ratio = window.devicePixelRatio || 1;
  const w = Math.max(1, Math.round(width * ratio)),
    t = Math.max(1, Math.round(height * ratio));
  if (canvas.width !== w) canvas.width = w;
  if (canvas.height !== t) canvas.height = t;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext('2d');
  if (!context) throw new Error('this browser draws on no canvas');
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

// perFrame returns a function that has draw called once in the next frame, however often it is called until then.
export function perFrame(draw: () => void): () => void {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  };
}
