// Photographs what Jaeger's user interface shows. Run by .ci/screenshots: node photograph.js JAEGER SINCE FOLDER SERVICE
const { spawn } = require('child_process');
const fs = require('fs');
const [url, since, tmp, service] = process.argv.slice(2);
const width = 1400, limit = 300 * 1024, patience = 90e3;
const pause = ms => new Promise(done => setTimeout(done, ms));

async function ask(path) {
  const answer = await fetch(url + path);
  if (answer.status === 404) return null; // nothing has arrived yet
  if (!answer.ok) throw new Error(`${url}${path} answered ${answer.status}: ${await answer.text()}`);
  return answer.json();
}

// The trace of the indexer's run with the most spans, once it has stopped growing.
async function indexerTrace() {
  const query = new URLSearchParams({
    'query.service_name': 'indexer', 'query.start_time_min': since, 'query.start_time_max': '2100-01-01T00:00:00Z',
    'query.num_traces': 500, 'query.search_depth': 500,
  });
  let before = 0;
  for (const end = Date.now() + patience; Date.now() < end; await pause(500)) {
    const answer = await ask(`/api/v3/traces?${query}`);
    if (!answer) continue;
    const sizes = new Map();
    for (const resource of answer.result.resourceSpans)
      for (const scope of resource.scopeSpans)
        for (const span of scope.spans) sizes.set(span.traceId, (sizes.get(span.traceId) || 0) + 1);
    const [[id, size]] = [...sizes].sort((a, b) => b[1] - a[1]);
    if (size === before) return id;
    before = size;
  }
  throw new Error(`Jaeger at ${url} shows no trace of the service indexer since ${since}`);
}

// The service's texts: three times 499 small ones and a large one, which it forgets; and a page, for which the cache allocates.
// Returns the trace of the page's request.
async function work() {
  const send = async (method, path, body) => {
    const answer = await fetch(service + path, { method, body });
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
    await answer.text();
    return answer.headers.get('X-Trace-Id');
  };
  const large = 'what the service is to sort and forget\n'.repeat(26000);
  for (let i = 1; i <= 1500; i++) await send('POST', '/sort', i % 500 ? 'b\na\n' : large);
  return send('PUT', '/pages/7', large);
}

const leaked = encodeURIComponent('{"allocator.leaked":"true"}');

// The traces of leaks, once there are some: those of blocks that are sampled, which large ones mostly are.
async function leaks() {
  for (const end = Date.now() + patience; Date.now() < end; await pause(500)) {
    const answer = await ask(`/api/traces?service=service&tags=${leaked}&limit=20&lookback=1h`);
    if (answer && answer.data.length > 0) return answer.data.map(t => t.traceID);
  }
  throw new Error(`Jaeger at ${url} finds no leak of the service`);
}

// Chromium driven by the DevTools protocol over a pipe: file descriptor 3 in, 4 out, messages ended by a zero byte.
function openBrowser() {
  const flags = ['--headless', '--remote-debugging-pipe', `--user-data-dir=${tmp}/chromium`, '--lang=en-US', '--hide-scrollbars',
    '--force-device-scale-factor=1', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'];
  if (process.getuid() === 0) flags.push('--no-sandbox'); // Chromium's sandbox refuses root
  const browser = spawn('chromium', flags, { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
  const exited = new Promise(done => browser.on('close', done));
  const waiting = new Map();
  let next = 1, rest = '';
  browser.stdio[3].on('error', () => {}); // a write to a browser that ended: exited tells
  browser.stdio[4].setEncoding('utf8').on('data', data => {
    const messages = (rest + data).split('\0');
    rest = messages.pop();
    for (const message of messages.map(m => JSON.parse(m))) {
      const call = waiting.get(message.id);
      if (!call) continue;
      waiting.delete(message.id);
      message.error ? call.reject(new Error(`${call.method}: ${message.error.message}`)) : call.resolve(message.result);
    }
  });
  exited.then(() => waiting.forEach(call => call.reject(new Error(`Chromium ended during ${call.method}`))));
  const send = (method, params = {}, sessionId) => new Promise((resolve, reject) => {
    waiting.set(next, { method, resolve, reject });
    browser.stdio[3].write(JSON.stringify({ id: next++, method, params, sessionId }) + '\0');
  });
  const close = () => { browser.kill(); return exited; };
  return { send, close };
}

// photograph opens a page, waits for an element, clicks on others one after the other, and returns a picture that ends below the
// last of the elements named by below.
async function photograph(send, { path, ready, clicks = [], below }) {
  const { targetId } = await send('Target.createTarget', { url: 'about:blank' });
  const { sessionId } = await send('Target.attachToTarget', { targetId, flatten: true });
  const call = (method, params) => send(method, params, sessionId);
  const run = async expression => {
    const { result, exceptionDetails } = await call('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(`in the page: ${exceptionDetails.exception?.description ?? exceptionDetails.text}`);
    return result.value;
  };
  const until = async selector => {
    for (const end = Date.now() + patience; Date.now() < end; await pause(50))
      if (await run(`document.querySelector(${JSON.stringify(selector)}) !== null`)) return;
    throw new Error(`the page ${url}${path} shows no ${selector}: is that the real Jaeger user interface?`);
  };
  await call('Emulation.setDeviceMetricsOverride', { width, height: 2000, deviceScaleFactor: 1, mobile: false });
  await call('Page.navigate', { url: url + path });
  await until(ready);
  for (const selector of clicks) {
    await until(selector);
    await run(`document.querySelector(${JSON.stringify(selector)}).click()`);
  }
  await until(below);
  await run(`document.fonts.ready.then(() => new Promise(done => setTimeout(done, 500)))`); // fading transitions
  const height = await run(`Math.ceil(Math.max(...[...document.querySelectorAll(${JSON.stringify(below)})]
    .map(row => row.getBoundingClientRect().bottom))) + 12`);
  const { data } = await call('Page.captureScreenshot', { format: 'png', clip: { x: 0, y: 0, width, height: Math.min(height, 2000), scale: 1 } });
  return Buffer.from(data, 'base64');
}

// A trace with the tags of its first span, which is the root, as a table.
const trace = id => ({
  path: `/trace/${id}`, ready: '.span-row .span-view', below: '.span-row, .detail-row',
  clicks: ['.span-row .span-view', '.detail-row .AccordianKeyValues--header'],
});

async function main() {
  const pictures = { 'examples/indexer/jaeger.png': trace(await indexerTrace()) };
  pictures['docs/request.png'] = trace(await work());
  const [leak] = await leaks();
  pictures['docs/leak.png'] = trace(leak);
  pictures['docs/leaks.png'] = {
    path: `/search?service=service&tags=${leaked}&limit=20&lookback=1h`, ready: '.ResultItem', below: '.ResultItem, .SearchForm button',
  };
  const { send, close } = openBrowser();
  try {
    for (const [file, of] of Object.entries(pictures)) {
      const png = await photograph(send, of);
      if (png.length > limit) throw new Error(`${file} has ${png.length} bytes, more than ${limit}`);
      fs.writeFileSync(file, png);
      console.log(`${file}: ${png.length} bytes of ${of.path}`);
    }
  } finally {
    await close();
  }
}

main().catch(err => {
  console.error(`screenshots: ${err.message}`);
  process.exitCode = 1;
});
