// TypeORM doing real work: its schema builder, its migrations, its unit of work over node-postgres' pool.
'use strict';

require('reflect-metadata');
const assert = require('node:assert/strict');
const { DataSource, EntitySchema, In, OptimisticLockVersionMismatchError } = require('typeorm');
const { url, settled, run, migration } = require('./common');

const Author = new EntitySchema({
  name: 'Author',
  columns: {
    id: { type: 'int', primary: true, generated: true },
    name: { type: 'text', unique: true },
    facts: { type: 'jsonb', default: {} },
    tags: { type: 'text', array: true, default: [] },
    mood: { type: 'enum', enum: ['sad', 'happy'], default: 'happy' },
    price: { type: 'numeric', precision: 10, scale: 3, nullable: true },
    key: { type: 'uuid', generated: 'uuid' },
    made: { type: 'timestamptz', createDate: true },
    version: { type: 'int', version: true },
  },
  relations: { books: { type: 'one-to-many', target: 'Book', inverseSide: 'author', cascade: true } },
});

const Book = new EntitySchema({
  name: 'Book',
  columns: { id: { type: 'int', primary: true, generated: true }, title: { type: 'text' } },
  relations: { author: { type: 'many-to-one', target: 'Author', inverseSide: 'books', onDelete: 'CASCADE', joinColumn: true } },
  indices: [{ columns: ['title'] }],
});

class AddLevel1700000000001 {
  async up(runner) {
    await runner.query('ALTER TABLE "author" ADD "level" integer NOT NULL DEFAULT 7');
    await runner.query('INSERT INTO "author" ("name", "version") VALUES (\'from a migration\', 1)');
    assert.equal((await runner.query('SELECT "level" FROM "author" WHERE "name" = \'from a migration\''))[0].level, 7);
  }

  async down(runner) {
    await runner.query('ALTER TABLE "author" DROP COLUMN "level"');
  }
}

class IndexLevel1700000000002 {
  constructor() { this.transaction = false; }

  async up(runner) { await runner.query('CREATE INDEX CONCURRENTLY "author_level" ON "author" ("level")'); }

  async down(runner) { await runner.query('DROP INDEX CONCURRENTLY "author_level"'); }
}

const source = (options = {}) => new DataSource({ type: 'postgres', url, entities: [Author, Book], logging: false, extra: { max: 8 }, ...options });

async function withSource(options, work) {
  const made = await source(options).initialize();
  try {
    return await work(made);
  } finally {
    await made.destroy();
  }
}

run('TypeORM 0.3.31', {
  async schemaAndMigrations() {
    // Reads the catalogue, compares, and makes what is missing; the second time nothing is.
    await withSource({ synchronize: true }, async () => {});
    await settled();
    for (let turn = 0; turn < 3; turn += 1) {
      await withSource({}, async (made) => {
        const { upQueries } = await made.driver.createSchemaBuilder().log();
        assert.deepEqual(upQueries.map((query) => query.query), []);
      });
    }
    await withSource({ migrations: [AddLevel1700000000001, IndexLevel1700000000002], migrationsTransactionMode: 'each' }, async (made) => {
      assert.equal((await made.runMigrations()).length, 2);
      assert.equal(await made.showMigrations(), false);
      await made.undoLastMigration({ transaction: 'none' });
      assert.equal((await made.runMigrations()).length, 1);
    });
  },

  async unitOfWork() {
    await withSource({}, async (made) => {
      const authors = made.getRepository('Author');
      await Promise.all(Array.from({ length: 24 }, async (_, n) => {
        const saved = await authors.save({
          name: `author ${n}`, facts: { n }, tags: ['a', 'b'], mood: 'sad', price: '12.340', books: Array.from({ length: 5 }, (__, i) => ({ title: `${n}/${i}` })),
        });
        await made.transaction(async (manager) => {
          const found = await manager.findOne('Author', { where: { id: saved.id }, relations: { books: true }, lock: undefined });
          assert.equal(found.books.length, 5);
          found.tags.push('c');
          await manager.save('Author', found);
          await assert.rejects(manager.transaction((inner) => inner.insert('Author', { name: found.name })), (error) => error.driverError.code === '23505');
          await manager.delete('Book', { title: `${n}/4` });
        });
        await assert.rejects(made.transaction(async (manager) => {
          await manager.delete('Author', { id: saved.id });
          throw new Error('the application fails');
        }), /application fails/);
      }));
      await settled();
      const [list, count] = await authors.findAndCount({ where: { mood: 'sad' }, relations: { books: true }, order: { id: 'ASC' }, take: 10, skip: 2 });
      assert.deepEqual([list.length, count, list.every((one) => one.books.length === 4 && one.tags.length === 3)], [10, 24, true]);
      assert.deepEqual([list[0].price, typeof list[0].key, list[0].made instanceof Date], ['12.340', 'string', true]);
      assert.equal(list[0].version, 2);
      await authors.upsert([{ name: 'author 1', mood: 'happy' }, { name: 'new one' }], ['name']);
      await made.createQueryBuilder().update('Author').set({ price: () => 'price * 2' }).where('mood = :mood', { mood: 'sad' }).execute();
      await made.transaction('SERIALIZABLE', async (manager) => {
        assert.equal((await manager.query('SHOW transaction_isolation'))[0].transaction_isolation, 'serializable');
      });
      await made.transaction(async (manager) => {
        const locked = await manager.findOne('Author', { where: { name: 'author 2' }, lock: { mode: 'pessimistic_write' } });
        await manager.update('Author', locked.id, { facts: { locked: true } });
        await assert.rejects(
          manager.findOne('Author', { where: { name: 'author 2' }, lock: { mode: 'optimistic', version: 1 } }), OptimisticLockVersionMismatchError);
      });
      await settled();
      const sums = await authors.createQueryBuilder('a').leftJoin('a.books', 'b').select('a.mood', 'mood').addSelect('count(b.id)::int', 'n')
        .groupBy('a.mood').orderBy('a.mood').getRawMany();
      assert.deepEqual(sums, [{ mood: 'sad', n: 92 }, { mood: 'happy', n: 4 }]);
      assert.equal((await authors.find({ where: { name: In(['author 1', 'author 2']) }, cache: false })).length, 2);
      await authors.clear().catch((error) => assert.equal(error.driverError.code, '0A000')); // TRUNCATE of a referenced table
    });
  },

  async queryRunners() {
    await withSource({ extra: { max: 3 } }, async (made) => {
      await Promise.all(Array.from({ length: 12 }, async (_, n) => {
        const runner = made.createQueryRunner();
        await runner.connect();
        try {
          await runner.startTransaction('REPEATABLE READ');
          await runner.manager.insert('Author', { name: `runner ${n}` });
          assert.equal((await runner.query('SELECT count(*)::int AS n FROM author WHERE name = $1', [`runner ${n}`]))[0].n, 1);
          await runner.startTransaction(); // nested: a savepoint
          await runner.manager.insert('Author', { name: `nested ${n}` });
          await runner.rollbackTransaction();
          if (n % 2) await runner.rollbackTransaction();
          else await runner.commitTransaction();
          assert.equal(await runner.hasTable('author'), true);
          assert.equal((await runner.getTable('author')).columns.length >= 9, true);
        } finally {
          await runner.release();
        }
      }));
      await settled();
      const names = await made.query("SELECT name FROM author WHERE name LIKE 'runner %' OR name LIKE 'nested %'");
      assert.equal(names.length, 6);
    });
  },

  async settings() {
    await Promise.all(['one', 'two'].map((name) => withSource({ applicationName: name, extra: { max: 4, statement_timeout: 300, options: `-c work_mem=${name === 'one' ? 5 : 6}MB` } }, async (made) => {
      for (let turn = 0; turn < 5; turn += 1) {
        const rows = await Promise.all(Array.from({ length: 8 }, () => made.query("SELECT current_setting('work_mem') AS m, current_setting('application_name') AS a")));
        rows.forEach(([row]) => assert.deepEqual(row, { m: name === 'one' ? '5MB' : '6MB', a: name }));
      }
      await assert.rejects(made.query('SELECT pg_sleep(60)'), (error) => error.driverError.code === '57014');
    })));
  },

  async migrationUnderTraffic() {
    await migration(async (traffic) => {
      const Row = new EntitySchema({
        name: traffic.table,
        tableName: traffic.table,
        columns: { id: { type: 'int', primary: true }, n: { type: 'int' }, label: { type: 'text' }, v: { type: 'int' } },
      });
      const made = await source({ url: traffic.url, entities: [Row], extra: { max: 5 } }).initialize();
      try {
        await Promise.all(Array.from({ length: 8 }, async (_, number) => {
          for (let turn = 0; !traffic.over; turn += 1) {
            const id = ((turn * 7 + number) % 50) + 1;
            try {
              traffic.check(await made.getRepository(Row).findOneByOrFail({ id }));
              await made.getRepository(Row).increment({ id }, 'n', 1);
              traffic.written += 1;
              const row = await made.transaction(async (manager) => {
                const [found] = await manager.query(`SELECT * FROM ${traffic.table} WHERE id = $1`, [id]);
                await manager.increment(Row, { id }, 'n', 1);
                return found;
              });
              traffic.written += 1;
              traffic.check(row);
            } catch (error) {
              if (!error.driverError?.code) throw error;
              traffic.failure(error.driverError.code);
            }
          }
        }));
      } finally {
        await made.destroy();
      }
    });
  },
});
