// node-postgres doing real work through the connection string POINTSMAN_TEST_URL. Says what failed, exit code 1 then.
'use strict';

const assert = require('node:assert/strict');
const { pipeline } = require('node:stream/promises');
const { Readable, Writable } = require('node:stream');
const pg = require('pg');
const Cursor = require('pg-cursor');
const { from: copyFrom, to: copyTo } = require('pg-copy-streams');

const { url: connectionString, withClient: connected } = require('./common');

const withClient = (work) => connected(connectionString, work);

const tests = {
  async types() {
    await withClient(async (client) => {
      const { rows } = await client.query(
        'SELECT $1::int AS i, $2::text AS t, $3::timestamptz AS d, $4::jsonb AS j, $5::bytea AS b, $6::int[] AS a, $7::text AS n, $8::bool AS o',
        [7, "naïve 'quote' \u{1f682}", new Date(86400000), { a: [1, null] }, Buffer.from([0, 255]), [1, 2], null, true],
      );
      assert.deepEqual(rows[0], {
        i: 7, t: "naïve 'quote' \u{1f682}", d: new Date(86400000), j: { a: [1, null] }, b: Buffer.from([0, 255]), a: [1, 2], n: null, o: true,
      });
    });
  },

  async preparedStatements() {
    await withClient((client) => client.query('CREATE TABLE np (n int PRIMARY KEY, v int); INSERT INTO np SELECT n, 0 FROM generate_series(1, 50) n'));
    // Named statements; every connection uses the same names for texts of its own.
    const sessions = Array.from({ length: 8 }, (_, session) => withClient(async (client) => {
      for (let n = 1; n <= 25; n += 1) {
        await client.query({ name: 'write', text: 'UPDATE np SET v = v + 1 WHERE n = $1', values: [n] });
        const { rows } = await client.query({ name: 'read', text: `SELECT n, ${session} AS s FROM np WHERE n = $1`, values: [n] });
        assert.deepEqual(rows, [{ n, s: session }]);
      }
    }));
    await Promise.all(sessions);
    await withClient(async (client) => {
      const { rows } = await client.query('WITH u AS (UPDATE np SET v = v RETURNING v) SELECT sum(v)::int AS sum FROM u');
      assert.equal(rows[0].sum, 200);
    });
  },

  async poolAndTransactions() {
    const pool = new pg.Pool({ connectionString, max: 8 });
    try {
      await pool.query('CREATE TABLE nt (n int UNIQUE)');
      await Promise.all(Array.from({ length: 40 }, async (_, n) => {
        const client = await pool.connect();
        try {
          await client.query('BEGIN');
          await client.query('INSERT INTO nt VALUES ($1)', [n]);
          await client.query('SAVEPOINT s');
          await assert.rejects(client.query('INSERT INTO nt VALUES ($1)', [n]), { code: '23505' });
          await client.query('ROLLBACK TO s');
          await client.query(n % 2 ? 'ROLLBACK' : 'COMMIT');
        } finally {
          client.release();
        }
      }));
      const client = await pool.connect();
      await client.query('BEGIN');
      const { rows } = await client.query('SELECT count(*)::int AS n FROM nt');
      await client.query('COMMIT');
      client.release();
      assert.equal(rows[0].n, 20);
    } finally {
      await pool.end();
    }
  },

  async errors() {
    await withClient(async (client) => {
      await assert.rejects(client.query('SELECT 1/0'), { code: '22012', severity: 'ERROR' });
      await assert.rejects(client.query('SELECT $1::int', ['x']), { code: '22P02' });
      await assert.rejects(client.query({ name: 'bad', text: 'SELECT * FROM nowhere WHERE a = $1', values: [1] }), { code: '42P01' });
      assert.equal((await client.query('SELECT 7 AS n')).rows[0].n, 7);
      const several = await client.query('SELECT 1 AS a; SELECT 2 AS b');
      assert.deepEqual(several.map((result) => result.rows[0]), [{ a: 1 }, { b: 2 }]);
    });
  },

  async queuedQueries() {
    await withClient(async (client) => {
      const answers = await Promise.all(Array.from({ length: 200 }, (_, n) => client.query('SELECT $1::int AS n', [n])));
      assert.deepEqual(answers.map((answer) => answer.rows[0].n), Array.from({ length: 200 }, (_, n) => n));
    });
  },

  async cursor() {
    await withClient(async (client) => {
      const cursor = client.query(new Cursor('SELECT generate_series(1, $1::int) AS n', [25]));
      const sizes = [];
      for (;;) {
        const rows = await cursor.read(10);
        sizes.push(rows.length);
        if (rows.length === 0) break;
      }
      await cursor.close();
      assert.deepEqual(sizes, [10, 10, 5, 0]);
      assert.equal((await client.query('SELECT 1 AS n')).rows[0].n, 1);
    });
  },

  async copy() {
    await withClient(async (client) => {
      await client.query('CREATE TABLE nc (n int, s text)');
      const lines = Array.from({ length: 5000 }, (_, n) => `${n}\trow ${n}\n`);
      await pipeline(Readable.from(lines), client.query(copyFrom('COPY nc FROM STDIN')));
      let size = 0;
      await pipeline(client.query(copyTo('COPY (TABLE nc) TO STDOUT')), new Writable({
        write(chunk, _, done) { size += chunk.length; done(); },
      }));
      assert.equal(size, lines.join('').length);
    });
  },

  async notifications() {
    await withClient(async (listener) => {
      const heard = new Promise((resolve, reject) => {
        listener.on('notification', resolve);
        setTimeout(() => reject(new Error('no notification within 20 s')), 20000).unref();
      });
      await listener.query('LISTEN node_news');
      await withClient((speaker) => speaker.query("NOTIFY node_news, 'arrived'"));
      const first = await heard;
      assert.equal(first.payload, 'arrived');
      assert.notEqual(first.processId, listener.processID);
      // Many, in order, among statements and transactions of its own.
      const all = [];
      const done = new Promise((resolve, reject) => {
        listener.on('notification', (told) => {
          all.push(told);
          if (all.length === 20) resolve();
        });
        setTimeout(() => reject(new Error(`${all.length} notifications within 20 s`)), 20000).unref();
      });
      await listener.query('LISTEN "Größe 🚂"');
      await withClient(async (speaker) => {
        for (let n = 0; n < 20; n += 2) {
          await speaker.query('SELECT pg_notify($1, $2)', ['Größe 🚂', `ö${n}`]);
          await listener.query('BEGIN');
          await listener.query('SELECT pg_notify($1, $2)', ['Größe 🚂', `ö${n + 1}`]);
          await listener.query('COMMIT');
        }
        await done;
        assert.deepEqual(all.map((told) => told.payload), Array.from({ length: 20 }, (_, n) => `ö${n}`));
        const own = new Promise((resolve) => { listener.once('notification', resolve); });
        await listener.query("NOTIFY node_news, 'own'");
        assert.equal((await own).processId, listener.processID);
      });
    });
  },

  async settings() {
    await withClient((one) => withClient(async (two) => {
      await one.query("SET statement_timeout = '12345ms'; SET search_path = pg_catalog");
      await two.query("SET statement_timeout = '54321ms'");
      for (let n = 0; n < 20; n += 1) {
        assert.equal((await one.query('SHOW statement_timeout')).rows[0].statement_timeout, '12345ms');
        assert.equal((await two.query('SHOW statement_timeout')).rows[0].statement_timeout, '54321ms');
      }
      assert.equal((await one.query('SHOW search_path')).rows[0].search_path, 'pg_catalog');
      assert.equal((await two.query('SHOW search_path')).rows[0].search_path, '"$user", public');
    }));
  },
};

(async () => {
  let failed = 0;
  for (const [name, test] of Object.entries(tests)) {
    try {
      await test();
      console.log(`ok      ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED  ${name}:`, error);
    }
  }
  const count = Object.keys(tests).length;
  console.log(`node-postgres: ${count - failed} of ${count} passed`);
  process.exit(failed ? 1 : 0);
})();
