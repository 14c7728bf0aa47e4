// Imported first, it has modules that look at the page while they are loaded find an empty one: for tests without a browser.

const nothing = { getElementById: () => null, documentElement: { dataset: {} } };
const media = { matches: false, addEventListener: () => {} };
Object.assign(globalThis, { document: nothing, window: { matchMedia: () => media } });
