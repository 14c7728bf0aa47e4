// node duckdb.cjs QUERY...: prints the rows of each as a line of JSON.
const { DuckDBInstance } = require('@duckdb/node-api')

async function main () {
  const db = await (await DuckDBInstance.create()).connect()
  for (const query of process.argv.slice(2)) {
    console.log(JSON.stringify((await db.runAndReadAll(query)).getRowObjectsJson()))
  }
}

main().catch(e => {
  console.error(e.message)
  process.exit(1)
})
