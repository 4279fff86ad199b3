// What the tests of JavaScript drivers share; see common.py, whose twin this is.
'use strict';

const pg = require('pg');

const url = process.env.POINTSMAN_TEST_URL;
const nodes = (process.env.POINTSMAN_TEST_NODES ?? '').split(' ').filter(Boolean);
const seconds = Number(process.env.POINTSMAN_TEST_SECONDS ?? 2.5);
const pause = (milliseconds) => new Promise((resolve) => { setTimeout(resolve, milliseconds); });

async function withClient(connectionString, work) {
  const client = new pg.Client({ connectionString });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

/** Statements on a connection of their own, by another driver: "another client's". */
const sql = (text, values) => withClient(url, async (client) => (await client.query(text, values)).rows);

/** Waits until the replicas have all that was committed: a session that has not written reads from them. */
async function settled() {
  if (nodes.length === 0) return;
  const position = await withClient(nodes[0], async (primary) => (await primary.query('SELECT pg_current_wal_insert_lsn() AS at')).rows[0].at);
  await Promise.all(nodes.slice(1).map((node) => withClient(node, async (replica) => {
    const end = Date.now() + 30000;
    while (!(await replica.query('SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn AS there', [position])).rows[0].there) {
      if (Date.now() > end) throw new Error(`${node} does not catch up`);
      await pause(10);
    }
  })));
}

/** Runs each test, says `ok NAME` or `FAILED NAME`, and ends the process: with 1 if one failed. */
async function run(title, tests) {
  const wanted = process.argv.slice(2);
  let failed = 0;
  let count = 0;
  for (const [name, test] of Object.entries(tests).filter(([each]) => wanted.length === 0 || wanted.includes(each))) {
    const started = Date.now();
    count += 1;
    let timer;
    const limit = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error('it hangs')), 90000); });
    try {
      await Promise.race([test(), limit]);
      console.log(`ok      ${name} (${(Date.now() - started) / 1000} s)`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED  ${name}:`, error);
    }
    clearTimeout(timer);
  }
  console.log(`${title}: ${count - failed} of ${count} passed`);
  process.exit(failed ? 1 : 0);
}

/** A table that is migrated while others use it, and what they saw. */
class Traffic {
  constructor(address, table) {
    Object.assign(this, { url: address, table, failed: {}, written: 0, reads: 0, steps: 0, over: false });
  }

  failure(kind) {
    this.failed[kind] = (this.failed[kind] ?? 0) + 1;
  }

  /** A row was read. `bigint` comes as text in these drivers. */
  check(row) {
    if (row.label !== `row ${row.id}` || Number(row.v) !== row.id * 10) throw new Error(`a row came as ${JSON.stringify(row)}`);
    this.reads += 1;
  }

  async migrate() {
    await withClient(this.url, async (client) => {
      const end = Date.now() + seconds * 1000;
      while (Date.now() < end) {
        for (const step of [
          `ALTER TABLE ${this.table} ADD COLUMN more text DEFAULT 'x'`,
          `ALTER TABLE ${this.table} ALTER COLUMN v TYPE bigint`,
          `CREATE INDEX CONCURRENTLY ${this.table}_n ON ${this.table} (n)`,
          `ALTER TABLE ${this.table} DROP COLUMN more`,
          `ALTER TABLE ${this.table} ALTER COLUMN v TYPE int`,
          `DROP INDEX CONCURRENTLY ${this.table}_n`,
        ]) {
          await client.query(step);
          this.steps += 1;
          await pause(80);
        }
      }
    });
  }

  async run(work) {
    await withClient(this.url, (client) => client.query(
      `CREATE TABLE ${this.table} (id int PRIMARY KEY, n int, label text, v int);
       INSERT INTO ${this.table} SELECT i, 0, 'row ' || i, i * 10 FROM generate_series(1, 50) i`));
    await settled();
    const whole = (part) => part.finally(() => { this.over = true; });
    await Promise.all([whole(this.migrate()), whole(work(this))]);
    await settled();
    const [{ total }] = await withClient(this.url, async (client) => (await client.query(`SELECT sum(n)::int AS total FROM ${this.table}`)).rows);
    // What was acknowledged is there, once; what failed is not there.
    if (total !== this.written) throw new Error(`${total} writes are there, ${this.written} were acknowledged`);
    if (this.steps < 6 || this.reads < 10 || total < 10) throw new Error(`too little was done: ${JSON.stringify(this)}`);
  }
}

/** The same traffic here and on the primary at once. What fails here must fail there, or be `expected`: something that
 * a direct connection brings as well, but not in every run. */
async function migration(work, expected = []) {
  const ours = new Traffic(url, 'migrated');
  const theirs = nodes.length ? new Traffic(nodes[0], 'migrated_directly') : ours;
  const both = new Set([ours, theirs]);
  await Promise.all([...both].map((traffic) => traffic.run(work)));
  for (const traffic of both) {
    console.log(`        ${traffic.table}: ${traffic.steps} steps, ${traffic.reads} reads, ${traffic.written} writes, failed: ${JSON.stringify(traffic.failed)}`);
  }
  const known = new Set([...expected, ...Object.keys(theirs.failed)]);
  const alone = Object.keys(ours.failed).filter((kind) => !known.has(kind));
  if (alone.length) throw new Error(`fails here alone: ${alone}`);
}

module.exports = { url, nodes, pause, withClient, sql, settled, run, migration };
