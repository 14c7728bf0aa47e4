// node chrome.cjs TRACE VIEWER FOLDER: has the viewer of chrome://tracing, which Go comes with in the folder VIEWER, import a trace in
// Chromium, and prints what it has found as JSON. FOLDER is for Chromium's files.
const { spawn } = require('child_process')
const fs = require('fs')

const [trace, viewer, folder] = process.argv.slice(2)
const patience = 60e3

// What is run in the page.
function imported (text) {
  const model = new tr.Model()
  new tr.importer.Import(model).importTraces([text])
  const found = { warnings: model.importWarnings.map(w => w.message), processes: [] }
  for (const process of Object.values(model.processes)) {
    const p = { pid: process.pid, name: process.name, counters: {}, instants: [] }
    for (const counter of Object.values(process.counters)) {
      p.counters[counter.name] = counter.series.map(s => ({ name: s.name, times: s.samples.map(x => x.timestamp), values: s.samples.map(x => x.value) }))
    }
    for (const i of process.instantEvents) p.instants.push({ title: i.title, start: i.start, args: i.args })
    found.processes.push(p)
  }
  return JSON.stringify(found)
}

async function main () {
  const page = folder + '/viewer.html'
  fs.writeFileSync(page, '<!doctype html><meta charset="utf-8"><script>' + fs.readFileSync(viewer + '/webcomponents.min.js', 'utf8') + '</script>' +
    fs.readFileSync(viewer + '/trace_viewer_full.html', 'utf8'))
  const flags = ['--headless', '--remote-debugging-pipe', `--user-data-dir=${folder}`, '--disable-gpu', '--no-first-run', '--disable-background-networking']
  if (process.getuid() === 0) flags.push('--no-sandbox') // Chromium's sandbox refuses root
  const browser = spawn('chromium', flags, { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] })
  const waiting = new Map()
  let next = 1
  let rest = ''
  browser.on('close', () => waiting.forEach(call => call.reject(new Error('Chromium has ended'))))
  browser.on('error', e => waiting.forEach(call => call.reject(e)))
  browser.stdio[3].on('error', () => {}) // close tells
  browser.stdio[4].setEncoding('utf8').on('data', data => {
    const messages = (rest + data).split('\0')
    rest = messages.pop()
    for (const message of messages.map(m => JSON.parse(m))) {
      const call = waiting.get(message.id)
      if (!call) continue
      waiting.delete(message.id)
      message.error ? call.reject(new Error(message.error.message)) : call.resolve(message.result)
    }
  })
  const send = (method, params = {}, sessionId) => new Promise((resolve, reject) => {
    waiting.set(next, { resolve, reject })
    browser.stdio[3].write(JSON.stringify({ id: next++, method, params, sessionId }) + '\0')
  })
  try {
    const { targetId } = await send('Target.createTarget', { url: 'file://' + page })
    const { sessionId } = await send('Target.attachToTarget', { targetId, flatten: true })
    const run = async expression => {
      const { result, exceptionDetails } = await send('Runtime.evaluate', { expression, returnByValue: true }, sessionId)
      if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text)
      return result.value
    }
    for (const end = Date.now() + patience; !await run('typeof tr !== "undefined" && !!tr.importer && !!tr.Model'); await new Promise(resolve => setTimeout(resolve, 50))) {
      if (Date.now() > end) throw new Error('the viewer does not load: ' + await run('location.href'))
    }
    console.log(await run(`(${imported})(${JSON.stringify(fs.readFileSync(trace, 'utf8'))})`))
  } finally {
    browser.kill()
  }
}

main().catch(e => {
  console.error(e.message)
  process.exitCode = 1
})
