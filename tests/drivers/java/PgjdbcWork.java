// pgjdbc doing real work: it prepares on servers at the first use here, fetches in portals, batches, and cancels by time.
// See common.py for what POINTSMAN_TEST_URL and POINTSMAN_TEST_NODES say; run by `make drivers`.

import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.net.URI;
import java.sql.*;
import java.time.*;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.util.PGobject;

public class PgjdbcWork {
    static final String URL = System.getenv("POINTSMAN_TEST_URL");
    static final String[] NODES = Optional.ofNullable(System.getenv("POINTSMAN_TEST_NODES")).orElse("").trim().split(" ");

    interface Work { void run() throws Exception; }
    interface Part { void run(int number) throws Exception; }
    interface Statements { void run(Connection connection) throws Exception; }

    static Connection connect(String address, String... options) throws SQLException {
        URI uri = URI.create(address);
        Properties properties = new Properties();
        properties.put("user", uri.getUserInfo());
        properties.put("prepareThreshold", "1");
        for (int i = 0; i < options.length; i += 2) properties.put(options[i], options[i + 1]);
        return DriverManager.getConnection("jdbc:postgresql://" + uri.getHost() + ":" + uri.getPort() + uri.getPath(), properties);
    }

    static void with(Statements work, String... options) throws Exception {
        try (Connection connection = connect(URL, options)) { work.run(connection); }
    }

    static void execute(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) { statement.execute(sql); }
    }

    /** The first column of the first row. */
    static Object one(Connection connection, String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int i = 0; i < values.length; i++) statement.setObject(i + 1, values[i]);
            try (ResultSet rows = statement.executeQuery()) { check(rows.next(), "no row: " + sql); return rows.getObject(1); }
        }
    }

    static void check(boolean holds, Object said) { if (!holds) throw new AssertionError(said); }
    static void equal(Object found, Object expected) { check(Objects.deepEquals(found, expected), "found " + found + ", expected " + expected); }

    static SQLException fails(String state, Work work) throws Exception {
        try { work.run(); } catch (SQLException error) {
            if (!state.equals(error.getSQLState())) throw error;
            return error;
        }
        throw new AssertionError("no " + state);
    }

    static void together(int count, Part work) throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(count);
        List<Future<?>> parts = new ArrayList<>();
        for (int n = 0; n < count; n++) {
            int number = n;
            parts.add(threads.submit(() -> { work.run(number); return null; }));
        }
        threads.shutdown();
        for (Future<?> part : parts) part.get(120, TimeUnit.SECONDS);
    }

    static void settled() throws Exception {
        if (NODES[0].isEmpty()) return;
        String position;
        try (Connection primary = connect(NODES[0])) { position = one(primary, "SELECT pg_current_wal_insert_lsn()::text").toString(); }
        for (int n = 1; n < NODES.length; n++)
            try (Connection replica = connect(NODES[n])) {
                long end = System.nanoTime() + 30_000_000_000L;
                while (!(Boolean) one(replica, "SELECT pg_last_wal_replay_lsn() >= ?::pg_lsn", position)) {
                    check(System.nanoTime() < end, NODES[n] + " does not catch up");
                    Thread.sleep(10);
                }
            }
    }

    static void types() throws Exception {
        for (String binary : new String[] {"true", "false"})
            with(connection -> {
                for (int turn = 0; turn < 4; turn++) {
                    equal(one(connection, "SELECT ?::int", -7), -7);
                    equal(one(connection, "SELECT ?::bigint", 1L << 62), 1L << 62);
                    equal(one(connection, "SELECT ?::float8", 0.1), 0.1);
                    equal(one(connection, "SELECT ?::numeric", new BigDecimal("12.340")), new BigDecimal("12.340"));
                    equal(one(connection, "SELECT ?::text", "naïve 'quote' \uD83D\uDE82"), "naïve 'quote' \uD83D\uDE82");
                    equal(one(connection, "SELECT ?::uuid", new UUID(0, 5)), new UUID(0, 5));
                    equal(one(connection, "SELECT ?::bytea", new byte[] {0, -1}), new byte[] {0, -1});
                    equal(one(connection, "SELECT ?::bool", true), true);
                    equal(one(connection, "SELECT (?::date)", LocalDate.of(2024, 2, 29)).toString(), "2024-02-29");
                    try (PreparedStatement statement = connection.prepareStatement("SELECT ?::timestamptz, ?::int[], ?::jsonb, ?::text")) {
                        OffsetDateTime time = OffsetDateTime.of(2024, 2, 29, 12, 30, 0, 0, ZoneOffset.UTC);
                        PGobject json = new PGobject();
                        json.setType("jsonb");
                        json.setValue("{\"a\": [1, null]}");
                        statement.setObject(1, time);
                        statement.setArray(2, connection.createArrayOf("int4", new Integer[] {1, null, 3}));
                        statement.setObject(3, json);
                        statement.setNull(4, Types.VARCHAR);
                        ResultSet rows = statement.executeQuery();
                        check(rows.next(), "no row");
                        equal(rows.getObject(1, OffsetDateTime.class).toInstant(), time.toInstant());
                        equal(rows.getArray(2).getArray(), new Integer[] {1, null, 3});
                        equal(rows.getString(3), "{\"a\": [1, null]}");
                        check(rows.getString(4) == null, "not null");
                    }
                }
            }, "binaryTransfer", binary);
    }

    static void preparedStatements() throws Exception {
        with(connection -> execute(connection, "CREATE TABLE p (n int PRIMARY KEY, v int); INSERT INTO p SELECT n, 0 FROM generate_series(1, 50) n"));
        settled();
        // Every session's S_1, S_2 mean something else; the cache holds three, so that statements are closed as it goes on.
        together(10, number -> with(connection -> {
            for (int n = 1; n <= 25; n++) {
                int value = n;
                equal(one(connection, "SELECT n * 100 + " + number + " FROM p WHERE n = ?", n), n * 100 + number);
                equal(one(connection, "SELECT " + number + " + " + n % 6 + " + ?::int", n), number + n % 6 + n);
                connection.setAutoCommit(false);
                try (PreparedStatement write = connection.prepareStatement("UPDATE p SET v = v + 1 WHERE n = ?")) {
                    write.setInt(1, n);
                    equal(write.executeUpdate(), 1);
                }
                equal(one(connection, "SELECT n * 100 + " + number + " FROM p WHERE n = ?", n), n * 100 + number);
                if (n % 5 == 0) connection.rollback(); else connection.commit();
                connection.setAutoCommit(true);
            }
        }, "preparedStatementCacheQueries", "3"));
        with(connection -> equal(one(connection, "WITH u AS (UPDATE p SET v = v RETURNING v) SELECT sum(v)::int FROM u"), 200));
        for (String mode : new String[] {"simple", "extendedForPrepared", "extendedCacheEverything"})
            with(connection -> {
                for (int n = 1; n < 10; n++) {
                    equal(one(connection, "SELECT n FROM p WHERE n = ?", n), n);
                    try (Statement plain = connection.createStatement(); ResultSet rows = plain.executeQuery("SELECT 7 AS a")) {
                        check(rows.next() && rows.getInt("a") == 7, "not 7");
                    }
                }
            }, "preferQueryMode", mode);
    }

    static void anotherOnesDdl() throws Exception {
        try (Connection other = connect(URL)) {
            execute(other, "CREATE TABLE d (id int PRIMARY KEY, v int, label text); INSERT INTO d VALUES (1, 10, 'one')");
            settled();
            List<Connection> crowd = new ArrayList<>();
            for (int n = 0; n < 8; n++) crowd.add(connect(URL, "autosave", n % 2 == 0 ? "conservative" : "never"));
            // What is asked for keeps its columns, whatever becomes of the table.
            String[] steps = {
                "SELECT 1", "ALTER TABLE d ALTER COLUMN v TYPE bigint", "ALTER TABLE d ADD COLUMN more int DEFAULT 5",
                "ALTER TABLE d ALTER COLUMN v TYPE text", "ALTER TABLE d DROP COLUMN more", "ALTER TABLE d ALTER COLUMN v TYPE int USING v::int",
            };
            for (String step : steps) {
                execute(other, step);
                settled();
                for (int turn = 0; turn < 4; turn++)
                    together(crowd.size(), n -> {
                        Connection connection = crowd.get(n);
                        equal(row(connection, "SELECT id, v::text, label FROM d WHERE id = ?", 1), "1|10|one");
                        connection.setAutoCommit(false);
                        equal(row(connection, "SELECT id, v::text, label FROM d WHERE id = ?", 1), "1|10|one");
                        connection.rollback();
                        connection.setAutoCommit(true);
                    });
            }
            for (Connection connection : crowd) connection.close();
        }
    }

    static String row(Connection connection, String sql, Object value) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            statement.setObject(1, value);
            try (ResultSet rows = statement.executeQuery()) {
                check(rows.next(), "no row");
                StringJoiner all = new StringJoiner("|");
                for (int n = 1; n <= rows.getMetaData().getColumnCount(); n++) all.add(rows.getString(n));
                return all.toString();
            }
        }
    }

    static void transactions() throws Exception {
        with(connection -> execute(connection, "CREATE TABLE t (n int UNIQUE)"));
        together(8, number -> with(connection -> {
            connection.setAutoCommit(false);
            for (int turn = 0; turn < 5; turn++) {
                int n = number * 100 + turn;
                equal(one(connection, "SELECT count(*) FROM t WHERE n = ?", n), 0L);
                execute(connection, "INSERT INTO t VALUES (" + n + ")");
                Savepoint savepoint = connection.setSavepoint("s");
                fails("23505", () -> execute(connection, "INSERT INTO t VALUES (" + n + ")"));
                fails("25P02", () -> execute(connection, "SELECT 1"));
                connection.rollback(savepoint);
                connection.releaseSavepoint(savepoint);
                if (turn % 2 == 0) connection.commit(); else connection.rollback();
            }
        }));
        settled();
        with(connection -> {
            equal(one(connection, "SELECT count(*) FROM t"), 24L);
            connection.setReadOnly(true);
            connection.setAutoCommit(false);
            equal(one(connection, "SELECT count(*) FROM t"), 24L);
            equal(one(connection, "SHOW transaction_read_only"), "on");
            fails("25006", () -> execute(connection, "INSERT INTO t VALUES (9999)"));
            connection.rollback();
            connection.setReadOnly(false);
            connection.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
            equal(one(connection, "SHOW transaction_isolation"), "serializable");
            execute(connection, "INSERT INTO t VALUES (9999)");
            connection.commit();
            equal(connection.getTransactionIsolation(), Connection.TRANSACTION_SERIALIZABLE);
            connection.rollback();
        });
        // autosave: the driver sets a savepoint ahead of each statement, in the same message group.
        with(connection -> {
            connection.setAutoCommit(false);
            execute(connection, "INSERT INTO t VALUES (10000)");
            for (int n = 0; n < 5; n++) fails("23505", () -> one(connection, "INSERT INTO t VALUES (?) RETURNING n", 10000));
            connection.commit();
            equal(one(connection, "SELECT count(*) FROM t WHERE n = 10000"), 1L);
        }, "autosave", "always");
    }

    static void batches() throws Exception {
        for (String rewrite : new String[] {"false", "true"})
            with(connection -> {
                execute(connection, "DROP TABLE IF EXISTS b; CREATE TABLE b (n int PRIMARY KEY, id serial, s text)");
                try (PreparedStatement insert = connection.prepareStatement("INSERT INTO b (n, s) VALUES (?, ?)", Statement.RETURN_GENERATED_KEYS)) {
                    for (int n = 0; n < 1000; n++) { insert.setInt(1, n); insert.setString(2, "row " + n); insert.addBatch(); }
                    equal(insert.executeBatch().length, 1000);
                    int keys = 0;
                    for (ResultSet rows = insert.getGeneratedKeys(); rows.next();) keys++;
                    equal(keys, 1000);
                }
                try (PreparedStatement insert = connection.prepareStatement("INSERT INTO b (n, s) VALUES (?, ?)")) {
                    for (int n = 2000; n > 990; n--) { insert.setInt(1, n); insert.setString(2, "again"); insert.addBatch(); }
                    fails("23505", insert::executeBatch);
                }
                try (Statement several = connection.createStatement()) {
                    several.addBatch("UPDATE b SET s = 'x' WHERE n = 1");
                    several.addBatch("DELETE FROM b WHERE n = 2");
                    several.addBatch("INSERT INTO b (n) VALUES (5000)");
                    equal(several.executeBatch(), new int[] {1, 1, 1});
                    check(several.execute("SELECT 1; SELECT 2"), "no rows");
                    check(several.getMoreResults(), "no second result");
                }
                equal(one(connection, "SELECT s FROM b WHERE n = 1"), "x");
            }, "reWriteBatchedInserts", rewrite);
    }

    static void cursors() throws Exception {
        with(connection -> {
            connection.setAutoCommit(false);
            try (PreparedStatement statement = connection.prepareStatement("SELECT generate_series(1, ?)")) {
                statement.setFetchSize(37);
                statement.setInt(1, 1000);
                ResultSet rows = statement.executeQuery();
                int count = 0;
                while (rows.next()) {
                    count++;
                    if (count % 100 == 0) equal(one(connection, "SELECT ?::int", count), count);
                }
                equal(count, 1000);
            }
            connection.commit();
            connection.setReadOnly(true);
            try (PreparedStatement statement = connection.prepareStatement("SELECT generate_series(1, 500)")) {
                statement.setFetchSize(50);
                ResultSet rows = statement.executeQuery();
                int count = 0;
                while (rows.next()) count++;
                equal(count, 500);
                statement.setMaxRows(7);
                rows = statement.executeQuery();
                for (count = 0; rows.next();) count++;
                equal(count, 7);
            }
            connection.commit();
            connection.setReadOnly(false);
            execute(connection, "CREATE FUNCTION two() RETURNS refcursor LANGUAGE plpgsql AS $$ DECLARE c refcursor := 'c'; BEGIN OPEN c FOR SELECT 5; RETURN c; END $$");
            try (CallableStatement call = connection.prepareCall("{? = call two()}")) {
                call.registerOutParameter(1, Types.REF_CURSOR);
                call.execute();
                ResultSet rows = (ResultSet) call.getObject(1);
                check(rows.next() && rows.getInt(1) == 5, "not 5");
            }
            connection.commit();
        });
    }

    static void copyAndLargeObjects() throws Exception {
        with(connection -> {
            execute(connection, "CREATE TABLE c (n int, s text)");
            StringBuilder lines = new StringBuilder();
            for (int n = 0; n < 3000; n++) lines.append(n).append("\trow ").append(n).append('\n');
            equal(connection.unwrap(PGConnection.class).getCopyAPI().copyIn("COPY c FROM STDIN", new StringReader(lines.toString())), 3000L);
            StringWriter out = new StringWriter();
            equal(connection.unwrap(PGConnection.class).getCopyAPI().copyOut("COPY (SELECT * FROM c ORDER BY n) TO STDOUT", out), 3000L);
            equal(out.toString(), lines.toString());
            fails("22P02", () -> connection.unwrap(PGConnection.class).getCopyAPI().copyIn("COPY c FROM STDIN", new StringReader("x\ty\n")));
            equal(one(connection, "SELECT count(*) FROM c"), 3000L);
            connection.setAutoCommit(false);
            var objects = connection.unwrap(PGConnection.class).getLargeObjectAPI();
            long oid = objects.createLO();
            try (var object = objects.open(oid)) {
                object.write("by function calls of the protocol".getBytes());
                object.seek(3);
                equal(new String(object.read(8)), "function");
            }
            objects.delete(oid);
            connection.commit();
        });
    }

    static void notifications() throws Exception {
        with(listener -> with(speaker -> {
            execute(listener, "LISTEN jdbc_news");
            execute(speaker, "NOTIFY jdbc_news, 'arrived'");
            PGNotification[] heard = listener.unwrap(PGConnection.class).getNotifications(20_000);
            check(heard != null && heard.length == 1, "nothing heard");
            equal(heard[0].getName() + ":" + heard[0].getParameter(), "jdbc_news:arrived");
        }));
    }

    static void timeLimitsAndErrors() throws Exception {
        with(connection -> {
            for (int turn = 0; turn < 3; turn++) {
                try (Statement statement = connection.createStatement()) {
                    statement.setQueryTimeout(1);
                    if (turn == 0) fails("57014", () -> statement.executeQuery("SELECT pg_sleep(60)"));
                    else check(statement.executeQuery("SELECT 1").next(), "no row");
                }
                try (Statement statement = connection.createStatement()) {
                    Timer timer = new Timer(true);
                    timer.schedule(new TimerTask() { public void run() { try { statement.cancel(); } catch (SQLException ignored) { } } }, 100);
                    fails("57014", () -> statement.executeQuery("SELECT pg_sleep(60)"));
                    timer.cancel();
                }
                equal(one(connection, "SELECT ?::int", turn), turn);
                check(connection.isValid(5), "not valid");
            }
            fails("22012", () -> one(connection, "SELECT 1 / ?", 0));
            equal(fails("42P01", () -> one(connection, "SELECT * FROM nowhere WHERE a = ?", 1)).getMessage().contains("Position: 15"), true);
            fails("42601", () -> execute(connection, "SELEC"));
            Statement statement = connection.createStatement();
            statement.execute("DO $$ BEGIN RAISE NOTICE 'hello'; END $$");
            equal(statement.getWarnings().getMessage(), "hello");
            DatabaseMetaData about = connection.getMetaData();
            int columns = 0;
            for (ResultSet rows = about.getColumns(null, "public", "p", null); rows.next();) columns++;
            equal(columns, 2);
            check(about.getPrimaryKeys(null, "public", "p").next() && about.getTables(null, null, "p", new String[] {"TABLE"}).next(), "no key");
        });
    }

    static void sessionSettings() throws Exception {
        with(connection -> execute(connection, "CREATE SCHEMA one; CREATE SCHEMA two; CREATE TABLE one.here (n text); CREATE TABLE two.here (n int);"
            + "INSERT INTO one.here VALUES ('a'); INSERT INTO two.here VALUES (2)"));
        settled();
        together(10, number -> with(connection -> {
            for (int turn = 0; turn < 10; turn++) {
                equal(one(connection, "SELECT n FROM here"), number % 2 == 0 ? "a" : (Object) 2);
                equal(one(connection, "SHOW application_name"), "app" + number);
                connection.setSchema(number % 2 == 0 ? "two" : "one");
                equal(one(connection, "SELECT n FROM here"), number % 2 == 1 ? "a" : (Object) 2);
                connection.setSchema(number % 2 == 0 ? "one" : "two");
            }
            connection.setClientInfo("ApplicationName", "renamed" + number);
            for (int turn = 0; turn < 5; turn++) equal(one(connection, "SHOW application_name"), "renamed" + number);
        }, "currentSchema", number % 2 == 0 ? "one" : "two", "ApplicationName", "app" + number));
        // A driver that looks for a primary asks the server what it is.
        for (int turn = 0; turn < 4; turn++)
            with(connection -> equal(one(connection, "SELECT 1"), 1), "targetServerType", "primary");
    }

    static class Traffic {
        final String url, table;
        final ConcurrentSkipListMap<String, Integer> failed = new ConcurrentSkipListMap<>();
        final AtomicInteger written = new AtomicInteger(), reads = new AtomicInteger();
        volatile int steps;
        volatile boolean over;

        Traffic(String url, String table) { this.url = url; this.table = table; }

        void read(ResultSet rows) throws SQLException {
            check(rows.next(), "no row");
            int id = rows.getInt("id");
            check(rows.getString("label").equals("row " + id) && rows.getLong("v") == id * 10L, "a wrong row: " + rows.getString("label") + ", " + rows.getLong("v"));
            reads.incrementAndGet();
        }

        void migrate() throws Exception {
            try (Connection connection = connect(url)) {
                long end = System.nanoTime() + 4_000_000_000L;
                while (System.nanoTime() < end)
                    for (String step : new String[] {
                        "ALTER TABLE " + table + " ADD COLUMN more text DEFAULT 'x'", "ALTER TABLE " + table + " ALTER COLUMN v TYPE bigint",
                        "CREATE INDEX CONCURRENTLY " + table + "_n ON " + table + " (n)", "ALTER TABLE " + table + " DROP COLUMN more",
                        "ALTER TABLE " + table + " ALTER COLUMN v TYPE int", "DROP INDEX CONCURRENTLY " + table + "_n"}) {
                        execute(connection, step);
                        steps++;
                        Thread.sleep(80);
                    }
            }
        }

        void use(int number) throws Exception {
            try (Connection connection = connect(url, "autosave", number % 2 == 0 ? "conservative" : "never");
                 PreparedStatement read = connection.prepareStatement("SELECT * FROM " + table + " WHERE id = ?");
                 PreparedStatement write = connection.prepareStatement("UPDATE " + table + " SET n = n + 1 WHERE id = ?")) {
                for (int turn = 0; !over; turn++) {
                    int id = (turn * 7 + number) % 50 + 1;
                    read.setInt(1, id);
                    write.setInt(1, id);
                    try {
                        connection.setAutoCommit(true);
                        read(read.executeQuery());
                        equal(write.executeUpdate(), 1);
                        written.incrementAndGet();
                        connection.setAutoCommit(false);
                        read(read.executeQuery());
                        write.executeUpdate();
                        connection.commit();
                        written.incrementAndGet();
                    } catch (SQLException error) {
                        failed.merge(error.getSQLState(), 1, Integer::sum);
                        if (!connection.getAutoCommit()) connection.rollback();
                    }
                }
            }
        }

        void run() throws Exception {
            try (Connection connection = connect(url)) {
                execute(connection, "CREATE TABLE " + table + " (id int PRIMARY KEY, n int, label text, v int);"
                    + "INSERT INTO " + table + " SELECT i, 0, 'row ' || i, i * 10 FROM generate_series(1, 50) i");
            }
            settled();
            together(6, number -> { try { if (number == 0) migrate(); else use(number); } finally { over = true; } });
            try (Connection connection = connect(url)) {
                // What was acknowledged is there, once; what failed is not there.
                equal(one(connection, "WITH u AS (UPDATE " + table + " SET n = n RETURNING n) SELECT sum(n)::int FROM u"), written.get());
            }
            System.out.println("        " + table + ": " + steps + " steps, " + reads + " reads, " + written + " writes, failed: " + failed);
            check(steps >= 6 && reads.get() > 10 && written.get() > 10, "too little was done");
        }
    }

    static void migrationUnderTraffic() throws Exception {
        Traffic ours = new Traffic(URL, "migrated");
        Traffic theirs = NODES[0].isEmpty() ? ours : new Traffic(NODES[0], "migrated_directly");
        together(theirs == ours ? 1 : 2, number -> (number == 0 ? ours : theirs).run());
        Set<String> alone = new TreeSet<>(ours.failed.keySet());
        alone.removeAll(theirs.failed.keySet());
        check(alone.isEmpty(), "fails here alone: " + alone);
    }

    public static void main(String[] wanted) {
        Map<String, Work> tests = new LinkedHashMap<>();
        tests.put("types", PgjdbcWork::types);
        tests.put("preparedStatements", PgjdbcWork::preparedStatements);
        tests.put("anotherOnesDdl", PgjdbcWork::anotherOnesDdl);
        tests.put("transactions", PgjdbcWork::transactions);
        tests.put("batches", PgjdbcWork::batches);
        tests.put("cursors", PgjdbcWork::cursors);
        tests.put("copyAndLargeObjects", PgjdbcWork::copyAndLargeObjects);
        tests.put("notifications", PgjdbcWork::notifications);
        tests.put("timeLimitsAndErrors", PgjdbcWork::timeLimitsAndErrors);
        tests.put("sessionSettings", PgjdbcWork::sessionSettings);
        tests.put("migrationUnderTraffic", PgjdbcWork::migrationUnderTraffic);
        if (wanted.length > 0) tests.keySet().retainAll(Set.of(wanted));
        int failed = 0;
        for (var test : tests.entrySet()) {
            long started = System.nanoTime();
            try {
                test.getValue().run();
                System.out.printf("ok      %s (%.1f s)%n", test.getKey(), (System.nanoTime() - started) / 1e9);
            } catch (Throwable error) {
                failed++;
                System.out.println("FAILED  " + test.getKey() + ": " + error);
                error.printStackTrace(System.out);
            }
        }
        System.out.println("pgjdbc " + org.postgresql.util.DriverInfo.DRIVER_VERSION + ": " + (tests.size() - failed) + " of " + tests.size() + " passed");
        System.exit(failed > 0 ? 1 : 0);
    }
}
