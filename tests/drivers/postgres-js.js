// postgres.js doing real work: it prepares all it runs under names of its own, and pipelines.
'use strict';

const assert = require('node:assert/strict');
const { pipeline } = require('node:stream/promises');
const { Readable, Writable } = require('node:stream');
const postgres = require('postgres');
const { url, pause, sql: others, settled, run, migration } = require('./common');

async function withSql(options, work) {
  const sql = postgres(url, { max: 4, onnotice: () => {}, ...options });
  try {
    return await work(sql);
  } finally {
    await sql.end({ timeout: 5 });
  }
}

run('postgres.js 3.4.9', {
  async types() {
    await withSql({}, async (sql) => {
      const values = {
        i: 7, t: "naïve 'quote' \u{1f682}", d: new Date(86400000), j: { a: [1, null] }, b: Buffer.from([0, 255]), a: [1, 2], n: null, o: true,
      };
      const [row] = await sql`SELECT ${values.i}::int AS i, ${values.t}::text AS t, ${values.d}::timestamptz AS d, ${sql.json(values.j)}::jsonb AS j,
        ${values.b}::bytea AS b, ${values.a}::int[] AS a, ${values.n}::text AS n, ${values.o}::bool AS o`;
      assert.deepEqual({ ...row }, values);
      // Array types of the database's own are looked up when a connection begins.
      await sql`CREATE TYPE mood AS ENUM ('sad', 'happy')`;
      await withSql({}, async (fresh) => {
        assert.deepEqual((await fresh`SELECT ${['sad', 'happy']}::mood[] AS m`)[0].m, ['sad', 'happy']);
      });
      assert.deepEqual((await sql`SELECT ${2n ** 62n}::int8 AS big`)[0].big, String(2n ** 62n));
    });
  },

  async preparedStatements() {
    await others('CREATE TABLE p (n int PRIMARY KEY, v int, s text)');
    await others("INSERT INTO p SELECT n, 0, 'v' || n FROM generate_series(1, 50) n");
    await settled();
    await Promise.all(Array.from({ length: 4 }, (_, session) => withSql({}, async (sql) => {
      for (let n = 1; n <= 25; n += 1) {
        const [[read], [written]] = await Promise.all([
          sql`SELECT s, ${session}::int AS session FROM p WHERE n = ${n}`,
          sql`UPDATE p SET v = v + 1 WHERE n = ${n} RETURNING n`,
        ]);
        assert.deepEqual([{ ...read }, written.n], [{ s: `v${n}`, session }, n]);
        await sql.unsafe(`SELECT ${session} + $1::int AS own`, [n], { prepare: true }).then(([row]) => assert.equal(row.own, session + n));
      }
    })));
    await settled();
    assert.equal((await others('SELECT sum(v)::int AS sum FROM p'))[0].sum, 100);
    await withSql({ prepare: false }, async (sql) => {
      for (let n = 1; n <= 20; n += 1) assert.equal((await sql`SELECT s FROM p WHERE n = ${n}`)[0].s, `v${n}`);
    });
  },

  async pipelines() {
    await withSql({ max: 2 }, async (sql) => {
      await sql`CREATE TABLE q (n int PRIMARY KEY)`;
      await sql`INSERT INTO q VALUES (-1)`;
      // All are sent before the first answer is read, over two connections in no order; every fifth violates the key.
      const results = await Promise.allSettled(Array.from({ length: 200 }, (_, n) => sql`INSERT INTO q VALUES (${n % 5 === 4 ? -1 : n})`));
      results.forEach((result, n) => {
        if (n % 5 === 4) assert.equal(result.reason?.code, '23505', `${n}`);
        else assert.equal(result.status, 'fulfilled', `${n}: ${result.reason}`);
      });
      const read = await Promise.all(Array.from({ length: 200 }, (_, n) => sql`SELECT ${n}::int AS n, (SELECT count(*)::int FROM q WHERE n < -1) AS c`));
      read.forEach(([row], n) => assert.deepEqual({ ...row }, { n, c: 0 }));
      const mixed = await Promise.all(Array.from({ length: 60 }, (_, n) => (n % 2
        ? sql`INSERT INTO q VALUES (${1000 + n}) RETURNING n`
        : sql`SELECT ${n}::int AS n`)));
      mixed.forEach(([row], n) => assert.equal(row.n, n % 2 ? 1000 + n : n));
      await sql`INSERT INTO q ${sql([{ n: 5001 }, { n: 5002 }])}`;
      assert.equal((await sql`SELECT count(*)::int AS n FROM q WHERE n IN ${sql([5001, 5002])}`)[0].n >= 0, true);
    });
  },

  async transactions() {
    await withSql({ max: 8 }, async (sql) => {
      await sql`CREATE TABLE t (n int UNIQUE)`;
      await Promise.all(Array.from({ length: 40 }, async (_, n) => {
        const done = sql.begin(async (inside) => {
          await inside`INSERT INTO t VALUES (${n})`;
          await assert.rejects(inside.savepoint((deeper) => deeper`INSERT INTO t VALUES (${n})`), { code: '23505' });
          // A pipeline inside the transaction: an array is awaited by begin.
          const seen = await Promise.all([inside`SELECT count(*)::int AS n FROM t WHERE n = ${n}`, inside`SELECT ${n}::int AS n`]);
          assert.deepEqual(seen.map(([row]) => row.n), [1, n]);
          if (n % 2) throw new Error('the application fails');
        });
        if (n % 2) await assert.rejects(done, /application fails/);
        else await done;
      }));
      await sql.begin('read only', async (inside) => {
        assert.equal((await inside`SHOW transaction_read_only`)[0].transaction_read_only, 'on');
      });
      await assert.rejects(sql.begin('isolation level serializable read only', (inside) => inside`INSERT INTO t VALUES (999)`), { code: '25006' });
      const [first] = await sql.begin((inside) => [inside`SELECT count(*)::int AS n FROM t`, inside`SELECT 1`]);
      assert.equal(first[0].n, 20);
    });
  },

  async anotherOnesDdl() {
    // What is asked for keeps its columns, whatever becomes of the table.
    await others('CREATE TABLE d (id int PRIMARY KEY, v int, label text)');
    await others("INSERT INTO d VALUES (1, 10, 'one')");
    await settled();
    await withSql({ max: 6 }, async (sql) => {
      for (const step of [
        'SELECT 1',
        'ALTER TABLE d ALTER COLUMN v TYPE bigint',
        'ALTER TABLE d ADD COLUMN more int DEFAULT 5',
        'ALTER TABLE d ALTER COLUMN v TYPE text',
        'ALTER TABLE d DROP COLUMN more',
        'ALTER TABLE d ALTER COLUMN v TYPE int USING v::int',
      ]) {
        await others(step);
        await settled();
        for (let turn = 0; turn < 6; turn += 1) {
          const rows = await Promise.all(Array.from({ length: 12 }, () => sql`SELECT id, v::text AS v, label FROM d WHERE id = ${1}`));
          rows.forEach(([row]) => assert.deepEqual({ ...row }, { id: 1, v: '10', label: 'one' }, `after ${step}`));
        }
      }
    });
  },

  async cursorsAndCopies() {
    await withSql({}, async (sql) => {
      let count = 0;
      await sql`SELECT generate_series(1, 1000) AS n`.cursor(90, (rows) => { count += rows.length; });
      assert.equal(count, 1000);
      count = 0;
      for await (const rows of sql`SELECT generate_series(1, 1000) AS n`.cursor(100)) {
        count += rows.length;
        if (count === 300) break; // given up: the portal is closed
      }
      assert.equal(count, 300);
      count = 0;
      await sql`SELECT generate_series(1, 500) AS n`.forEach(() => { count += 1; });
      assert.equal(count, 500);
      await sql`CREATE TABLE c (n int, s text)`;
      const sink = await sql`COPY c FROM STDIN`.writable();
      await pipeline(Readable.from(Array.from({ length: 3000 }, (_, n) => `${n}\trow ${n}\n`)), sink);
      const chunks = [];
      await pipeline(await sql`COPY (SELECT n FROM c ORDER BY n) TO STDOUT`.readable(),
        new Writable({ write(chunk, _encoding, done) { chunks.push(chunk); done(); } }));
      assert.equal(Buffer.concat(chunks).toString().trim().split('\n').length, 3000);
      assert.equal((await sql`SELECT count(*)::int AS n FROM c`)[0].n, 3000);
    });
  },

  async notifications() {
    await withSql({}, async (sql) => {
      const heard = [];
      const { unlisten } = await sql.listen('postgres_js_news', (payload) => heard.push(payload));
      await sql.notify('postgres_js_news', 'arrived');
      await sql.begin(async (inside) => { await inside`SELECT pg_notify('postgres_js_news', 'committed')`; });
      for (let waited = 0; heard.length < 2 && waited < 400; waited += 1) await pause(50);
      assert.deepEqual(heard, ['arrived', 'committed']);
      await unlisten();
    });
  },

  async cancellationAndErrors() {
    await withSql({}, async (sql) => {
      for (let turn = 0; turn < 3; turn += 1) {
        const long = sql`SELECT pg_sleep(60)`.execute();
        setTimeout(() => long.cancel(), 100);
        await assert.rejects(long, { code: '57014' });
        assert.equal((await sql`SELECT 1 AS one`)[0].one, 1);
      }
      await assert.rejects(sql`SELECT 1/${0}::int`, { code: '22012' });
      await assert.rejects(sql`SELECT * FROM nowhere`, { code: '42P01', position: '15' });
      await assert.rejects(sql`SELECT ${'x'}::int`, { code: '22P02' });
      const described = await sql`SELECT 1::int AS a, ${'x'}::text AS b`.describe();
      assert.deepEqual(described.columns.map((column) => column.name), ['a', 'b']);
      const several = await sql`SELECT 1 AS a; SELECT 2 AS b`.simple();
      assert.deepEqual([several[0][0].a, several[1][0].b], [1, 2]);
    });
  },

  async sessionSettings() {
    await others('CREATE SCHEMA one; CREATE SCHEMA two; CREATE TABLE one.here (n text); CREATE TABLE two.here (n int)');
    await others("INSERT INTO one.here VALUES ('a')");
    await others('INSERT INTO two.here VALUES (2)');
    await settled();
    const pools = ['one', 'two'].map((search_path) => postgres(url, { max: 5, connection: { search_path, application_name: search_path } }));
    try {
      for (let turn = 0; turn < 5; turn += 1) {
        const rows = await Promise.all(Array.from({ length: 20 }, (_, n) => pools[n % 2]`SELECT n, current_setting('application_name') AS name FROM here`));
        rows.forEach(([row], n) => assert.deepEqual({ ...row }, n % 2 ? { n: 2, name: 'two' } : { n: 'a', name: 'one' }));
      }
      const own = await pools[0].reserve();
      await own`SET work_mem = '7MB'`;
      await own`CREATE TEMP TABLE mine (n int)`;
      await Promise.all(Array.from({ length: 20 }, () => pools[1]`SELECT 1`));
      await own`INSERT INTO mine VALUES (1)`;
      assert.equal((await own`SHOW work_mem`)[0].work_mem, '7MB');
      await own`DISCARD ALL`;
      own.release();
    } finally {
      await Promise.all(pools.map((sql) => sql.end()));
    }
  },

  async migrationUnderTraffic() {
    await migration(async (traffic) => {
      const sql = postgres(traffic.url, { max: 5, onnotice: () => {} });
      const table = sql(traffic.table);
      try {
        await Promise.all(Array.from({ length: 8 }, async (_, number) => {
          for (let turn = 0; !traffic.over; turn += 1) {
            const id = ((turn * 7 + number) % 50) + 1;
            try {
              // Not `SELECT *`: this driver's own retry after "cached plan must not change result type" never ends, not
              // on a direct connection either.
              traffic.check((await sql`SELECT id, label, v::bigint AS v FROM ${table} WHERE id = ${id}`)[0]);
              const [written] = await sql`UPDATE ${table} SET n = n + 1 WHERE id = ${id} RETURNING id, label, v::bigint AS v`;
              traffic.written += 1;
              traffic.check(written);
              const row = await sql.begin(async (inside) => {
                const [found] = await inside`SELECT id, label, v::bigint AS v FROM ${table} WHERE id = ${id}`;
                await inside`UPDATE ${table} SET n = n + 1 WHERE id = ${id}`;
                return found;
              });
              traffic.written += 1;
              traffic.check(row);
            } catch (error) {
              if (!error.code) throw error;
              traffic.failure(error.code);
            }
          }
        }));
      } finally {
        await sql.end();
      }
    });
  },
});
