// Bundles src into dist, the same to the byte on every machine: node build.mjs [folder]
import { build } from 'esbuild';
import { copyFile, mkdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const out = process.argv[2] ?? join(here, 'dist');

const options = {
  absWorkingDir: here,
  bundle: true,
  minify: true,
  target: ['es2022', 'chrome110', 'firefox115', 'safari16.4'],
  charset: 'utf8',
  legalComments: 'eof',
  outdir: out,
  metafile: true,
  logLevel: 'warning',
};

// licences returns the text of the licence of each package that was bundled, as comments that minifying keeps.
async function licences(metafile) {
  const packages = new Set();
  for (const input of Object.keys(metafile.inputs)) {
    const found = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input);
    if (found) packages.add(found[1]);
  }
  const texts = [];
  for (const name of [...packages].sort()) {
    const folder = join(here, 'node_modules', name);
    const { version, license } = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8'));
    const text = (await readFile(join(folder, 'LICENSE'), 'utf8')).trim();
    if (text.includes('*/')) throw new Error(`the licence of ${name} would end the comment that it is in`);
    texts.push(`/*! ${name} ${version}, ${license}\n\n${text}\n*/`);
  }
  return texts.join('\n');
}

const files = {
  entryPoints: [
    { in: 'src/main.ts', out: 'app' },
    { in: 'src/app.css', out: 'app' },
  ],
  format: 'iife',
};
// The worker is a file of its own, for it runs without the page. It has none of the packages.
const worker = { entryPoints: [{ in: 'src/streamworker.ts', out: 'stream' }], format: 'iife' };
const { metafile } = await build({ ...options, ...files, write: false });
const footer = await licences(metafile);
await mkdir(out, { recursive: true });
await build({ ...options, ...files, footer: { js: footer, css: footer } });
await build({ ...options, ...worker });
await copyFile(join(here, 'src/index.html'), join(out, 'index.html'));
