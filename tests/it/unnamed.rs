//! What a statement runs without naming it: triggers, defaults, constraints, rules, views, operators, casts, and what
//! functions do inside.

use std::time::{Duration, Instant};

use crate::support::{Gateway, database, direct, succeed, tool};

/// Things that change the session or write, each by a way of its own, and some that do neither.
const DEFINITIONS: &str = r"
CREATE TABLE plain (id int PRIMARY KEY, v text); INSERT INTO plain VALUES (1, 'x');
CREATE SEQUENCE sq;
CREATE FUNCTION quiet() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM plain';
CREATE FUNCTION sets(name text, value text) RETURNS text LANGUAGE sql STABLE AS 'SELECT set_config(name, value, false)';
CREATE FUNCTION trg() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF new.v = 'path' THEN PERFORM set_config('search_path', 'pg_catalog', false); END IF;
    IF new.v = 'custom' THEN PERFORM set_config('app.trig', 'leaked', false); END IF;
    IF new.v = 'temp' THEN CREATE TEMP TABLE cached (x text); END IF;
    IF new.v = 'lock' THEN PERFORM pg_advisory_lock(4711); END IF;
    IF new.v = 'listen' THEN LISTEN hidden; END IF;
    RETURN new; END $$;
CREATE TABLE armed (id int, v text);
CREATE TRIGGER t BEFORE INSERT ON armed FOR EACH ROW EXECUTE FUNCTION trg();
CREATE TABLE parted (id int, v text) PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE TRIGGER t BEFORE INSERT ON parted_1 FOR EACH ROW EXECUTE FUNCTION trg();
CREATE TABLE ruled (id int);
CREATE RULE r AS ON INSERT TO ruled DO ALSO INSERT INTO armed VALUES (new.id, 'path');
CREATE TABLE keyed (id int PRIMARY KEY); INSERT INTO keyed VALUES (1);
CREATE TABLE keying (id int REFERENCES keyed ON DELETE CASCADE); INSERT INTO keying VALUES (1);
CREATE FUNCTION on_cascade() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN SET search_path = pg_catalog; RETURN old; END $$;
CREATE TRIGGER t BEFORE DELETE ON keying FOR EACH ROW EXECUTE FUNCTION on_cascade();
CREATE VIEW setting AS SELECT set_config('app.trig', 'leaked', false) AS x;
CREATE VIEW calling AS SELECT sets('search_path', 'pg_catalog');
CREATE FUNCTION sets_default() RETURNS text LANGUAGE sql AS $$ SELECT set_config('search_path', 'pg_catalog', false) $$;
CREATE TABLE defaulted (id int, v text DEFAULT sets_default());
CREATE FUNCTION sets_row(plain) RETURNS text LANGUAGE sql AS $$ SELECT set_config('search_path', 'pg_catalog', false) $$;
CREATE FUNCTION sets_equal(int, int) RETURNS bool LANGUAGE plpgsql AS
    $$ BEGIN PERFORM sets('search_path', 'pg_catalog'); RETURN true; END $$;
CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = sets_equal);
CREATE FUNCTION sets_check(int) RETURNS bool LANGUAGE sql AS $$ SELECT sets_equal($1, 1) $$;
CREATE DOMAIN checked AS int CHECK (sets_check(value));
CREATE TABLE holding (n checked);
CREATE FUNCTION sets_cast(text) RETURNS plain LANGUAGE plpgsql AS
    $$ BEGIN PERFORM sets_default(); RETURN ROW(1, 'a')::public.plain; END $$;
CREATE CAST (text AS plain) WITH FUNCTION sets_cast(text);
CREATE FUNCTION wr(plain) RETURNS int LANGUAGE sql AS $$ UPDATE plain SET v = v WHERE id = 1 RETURNING id $$;
CREATE FUNCTION stable_nextval() RETURNS bigint LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN nextval('sq'); END $$;
CREATE FUNCTION writer() RETURNS int LANGUAGE sql AS 'UPDATE plain SET v = v WHERE id = 1 RETURNING id';
CREATE FUNCTION stable_writer() RETURNS int LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN writer(); END $$;
CREATE FUNCTION counting(int, int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('sq'); RETURN $1 = $2; END $$;
CREATE OPERATOR ==== (LEFTARG = int, RIGHTARG = int, FUNCTION = counting);
CREATE FUNCTION counting_check(int) RETURNS bool LANGUAGE sql AS $$ SELECT nextval('sq') > 0 $$;
CREATE DOMAIN counted AS int CHECK (counting_check(value));
CREATE VIEW locking AS SELECT * FROM plain FOR UPDATE;
CREATE VIEW comparing AS SELECT * FROM plain WHERE id ==== 1;
CREATE TABLE stamped (id int PRIMARY KEY, v text, updated_at timestamptz);
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.updated_at = now(); RETURN new; END $$;
CREATE TRIGGER t BEFORE INSERT OR UPDATE ON stamped FOR EACH ROW EXECUTE FUNCTION stamp();
CREATE TABLE logged (id serial PRIMARY KEY, v text CHECK (length(v) < 100));
CREATE TABLE log (id bigserial, at timestamptz DEFAULT now(), v text, key uuid DEFAULT gen_random_uuid());
CREATE FUNCTION write_log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO log (v) VALUES (new.v);
    UPDATE plain SET v = new.v WHERE id = 1;
    PERFORM pg_notify('logged', new.v);
    RETURN NULL; END $$;
CREATE TRIGGER t AFTER INSERT ON logged FOR EACH ROW EXECUTE FUNCTION write_log();
CREATE VIEW mine AS SELECT 1 AS n; ALTER VIEW mine OWNER TO demo; ALTER FUNCTION quiet() OWNER TO demo;
GRANT CREATE ON SCHEMA public TO demo;
GRANT ALL ON ALL TABLES IN SCHEMA public TO demo; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO demo;";

/// A database in which everything of [`DEFINITIONS`] is there on all nodes, and a gateway that has read it.
async fn start(label: &str) -> (String, Gateway<'static>) {
    let database = database(label);
    let cluster = crate::support::cluster();
    cluster.primary().psql(&database, DEFINITIONS).unwrap();
    cluster.wait_replayed().unwrap();
    let gateway = Gateway::setup().pool("size = 4").start();
    knows(&gateway, &database).await;
    (database, gateway)
}

/// Waits until the gateway knows what is defined: a function of which that must be known brings no question.
async fn knows(gateway: &Gateway<'_>, database: &str) {
    let client = gateway.connect(database).await;
    let start = Instant::now();
    loop {
        let before = audits(gateway);
        client.batch_execute("SELECT quiet()").await.unwrap();
        // A question is asked behind the answer; one more statement waits for it.
        client.batch_execute("SELECT 1").await.unwrap();
        if audits(gateway) == before {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "the catalogue was not read:\n{}", gateway.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn audits(gateway: &Gateway<'_>) -> u64 {
    let Some((_, text)) = gateway.admin("/metrics").filter(|_| !direct()) else { return 0 };
    let line = text.lines().find_map(|line| line.strip_prefix("pointsman_session_audits_total "));
    line.map_or(0, |value| value.parse().unwrap())
}

/// What a session has that it did not begin with.
const STATE: &str = "SELECT concat_ws(' ', nullif(current_setting('search_path'), '\"$user\", public'), \
    current_setting('app.trig', true), \
    (SELECT 'temp' FROM pg_class WHERE relname = 'cached' AND relnamespace = pg_my_temp_schema()), \
    (SELECT 'lock' FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), \
    (SELECT 'listen' FROM pg_listening_channels()))";

#[tokio::test]
async fn state_left_by_what_no_statement_names_is_not_seen_by_others() {
    let (database, gateway) = start("unnamed_state").await;
    for (leaves, expected) in [
        ("INSERT INTO armed VALUES (1, 'path')", "pg_catalog"),
        ("INSERT INTO armed VALUES (1, 'custom')", ""),
        ("INSERT INTO armed VALUES (1, 'temp')", "temp"),
        ("INSERT INTO armed VALUES (1, 'lock')", "lock"),
        ("INSERT INTO armed VALUES (1, 'listen')", "listen"),
        ("INSERT INTO armed SELECT 1, 'path' WHERE EXISTS (SELECT FROM plain)", "pg_catalog"),
        ("INSERT INTO parted VALUES (1, 'path')", "pg_catalog"),
        ("INSERT INTO ruled VALUES (1)", "pg_catalog"),
        ("DELETE FROM keyed", "pg_catalog"),
        ("INSERT INTO defaulted (id) VALUES (1)", "pg_catalog"),
        ("SELECT * FROM setting", ""),
        ("SELECT * FROM calling", "pg_catalog"),
        ("SELECT sets('search_path', 'pg_catalog')", "pg_catalog"),
        ("SELECT p.sets_row FROM plain p FOR UPDATE", "pg_catalog"),
        ("SELECT (p).sets_row FROM plain p FOR UPDATE", "pg_catalog"),
        ("UPDATE plain SET v = 'y' WHERE id === 1", "pg_catalog"),
        ("INSERT INTO holding VALUES (1)", "pg_catalog"),
        ("UPDATE plain SET v = 'z' WHERE 1::checked = 1", "pg_catalog"),
        ("SELECT ('a'::text)::plain", "pg_catalog"),
        ("BEGIN; DECLARE c CURSOR FOR SELECT * FROM calling; FETCH c; COMMIT", "pg_catalog"),
    ] {
        let client = gateway.connect(&database).await;
        client.batch_execute(leaves).await.unwrap_or_else(|error| panic!("{leaves}: {error:?}"));
        for _ in 0..3 {
            let other = gateway.connect(&database).await;
            let state: String = other.query_one(STATE, &[]).await.unwrap().get(0);
            assert_eq!(state, "", "left by {leaves}");
        }
        // What can follow its client does.
        let state: String = client.query_one(STATE, &[]).await.unwrap().get(0);
        assert!(state.contains(expected), "{leaves}: {state}");
    }
}

#[tokio::test]
async fn reads_that_write_inside_go_to_the_primary() {
    let (database, gateway) = start("unnamed_writes").await;
    for sql in [
        "SELECT * FROM locking",
        "SELECT * FROM comparing",
        "SELECT plain.wr FROM plain",
        "SELECT (p).wr FROM (SELECT plain AS p FROM plain) s",
        "SELECT stable_nextval()",
        "SELECT stable_writer()",
        "SELECT 1 ==== 1",
        "SELECT * FROM plain WHERE id OPERATOR(public.====) 1",
        "SELECT 1::counted",
        "SELECT CAST('1' AS counted)",
        "SELECT counted '1'",
    ] {
        // A new session each, so that read-your-writes hides nothing. Two replicas take turns.
        for _ in 0..2 {
            let client = gateway.connect(&database).await;
            client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
    }
}

#[tokio::test]
async fn what_was_redefined_is_not_trusted_until_it_was_read_again() {
    let (database, gateway) = start("unnamed_stale").await;
    let definer = gateway.connect(&database).await;
    for (definition, read) in [
        (
            "CREATE OR REPLACE FUNCTION quiet() RETURNS bigint LANGUAGE sql AS \
                $$ SELECT nextval('sq') + length(set_config('search_path', 'pg_catalog', false)) $$",
            "SELECT public.quiet()",
        ),
        ("CREATE OR REPLACE VIEW mine AS SELECT nextval('sq')::int AS n", "SELECT * FROM public.mine"),
        ("CREATE VIEW fresh AS SELECT public.sets('search_path', 'pg_catalog')", "SELECT * FROM public.fresh"),
    ] {
        let others = [gateway.connect(&database).await, gateway.connect(&database).await];
        definer.batch_execute(definition).await.unwrap();
        for other in &others {
            other.batch_execute(read).await.unwrap_or_else(|error| panic!("{read}: {error:?}"));
        }
        let state: String = gateway.connect(&database).await.query_one(STATE, &[]).await.unwrap().get(0);
        assert_eq!(state, "", "left by {read}");
    }
}

#[tokio::test]
async fn what_leaves_no_state_brings_no_question() {
    if direct() {
        return;
    }
    let (database, gateway) = start("unnamed_quiet").await;
    let init =
        ["-h", "127.0.0.1", "-p", &gateway.cluster.primary().port().to_string(), "-U", "demo", "-i", "-q", &database];
    succeed(tool("pgbench").args(init));
    gateway.cluster.wait_replayed().unwrap();
    let port = gateway.port.to_string();
    let before = audits(&gateway);
    for mode in ["simple", "extended", "prepared"] {
        let run = ["-h", "127.0.0.1", "-p", &port, "-U", "demo", "-n", "-c", "2", "-t", "20", "-M", mode, &database];
        succeed(tool("pgbench").args(run));
        succeed(tool("pgbench").args(run).arg("-S"));
    }
    assert_eq!(audits(&gateway), before, "pgbench");
    let client = gateway.connect(&database).await;
    for sql in [
        "INSERT INTO stamped VALUES (1, 'a')",
        "UPDATE stamped SET v = 'b' WHERE id = 1",
        "INSERT INTO stamped VALUES (1, 'c') ON CONFLICT (id) DO UPDATE SET v = excluded.v",
        "INSERT INTO logged (v) VALUES ('a')",
        "SELECT quiet(), stable_writer(), writer()",
        "SELECT * FROM locking",
        "SELECT stable_nextval()",
    ] {
        client.batch_execute(sql).await.unwrap();
        client.batch_execute("SELECT 1").await.unwrap();
        assert_eq!(audits(&gateway), before, "{sql}");
    }
    client.batch_execute("INSERT INTO armed VALUES (1, 'nothing')").await.unwrap();
    client.batch_execute("SELECT 1").await.unwrap();
    assert_eq!(audits(&gateway), before + 1);
}

/// The usual way to tell row security who asks: no list of a server's shows such a setting, so its name must be known.
#[tokio::test]
async fn custom_settings_that_functions_make_follow_their_client() {
    let (database, gateway) = start("unnamed_custom").await;
    let definitions = "
        CREATE FUNCTION login(who text) RETURNS void LANGUAGE plpgsql AS
            $$ BEGIN PERFORM set_config('tenant.Who', who, false); END $$;
        CREATE FUNCTION login_sql(text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('tenant.who', $1, false) $$;
        CREATE FUNCTION login_set() RETURNS void LANGUAGE plpgsql AS $$ BEGIN SET tenant.who = 'set'; END $$;
        CREATE FUNCTION login_executed(who text) RETURNS void LANGUAGE plpgsql AS
            $$ BEGIN EXECUTE 'SET tenant.who = ' || quote_literal(who); END $$;
        CREATE PROCEDURE login_twice(who text) LANGUAGE plpgsql AS
            $$ BEGIN PERFORM login(who); COMMIT; PERFORM login('lost'); ROLLBACK; END $$;
        CREATE FUNCTION login_computed(key text) RETURNS text LANGUAGE sql AS
            $$ SELECT set_config('tenant.' || key, 'computed', false) $$;
        CREATE OR REPLACE FUNCTION public.quiet() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM public.plain'";
    crate::support::cluster().primary().psql(&database, definitions).unwrap();
    // What does not pass through the gateway is found within a minute, and at once when something else is defined.
    gateway.connect(&database).await.batch_execute("CREATE OR REPLACE VIEW mine AS SELECT 1 AS n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    knows(&gateway, &database).await;
    let read = "SELECT coalesce(current_setting('tenant.who', true), '')";
    let others = [gateway.connect(&database).await, gateway.connect(&database).await, gateway.connect(&database).await];
    let mut clients = Vec::new();
    for (call, expected) in [
        ("SELECT login('a')", "a"),
        ("SELECT login_sql('b')", "b"),
        ("SELECT login_set()", "set"),
        ("SELECT login_executed('c')", "c"),
        ("CALL login_twice('d')", "d"),
        ("BEGIN; SELECT login('e'); SAVEPOINT s; SELECT login('lost'); ROLLBACK TO s; COMMIT", "e"),
        ("SELECT login_computed('who')", "computed"),
    ] {
        let client = gateway.connect(&database).await;
        client.batch_execute(call).await.unwrap();
        // A question is asked behind the answer; one more statement waits for it.
        client.batch_execute("SELECT 1").await.unwrap();
        let pins = gateway.admin("/metrics").filter(|_| !direct()).map(|(_, text)| text).unwrap_or_default();
        let pinned = pins.contains("a setting under a computed name\"} 1");
        assert_eq!(pinned, !direct() && expected == "computed", "{call}: {pins}");
        clients.push((client, call, expected));
    }
    for _ in 0..3 {
        for (client, call, expected) in &clients {
            // Somebody else has the server that it had, or one of the replicas has what it asks for.
            for sql in [format!("{read}, pg_current_xact_id()"), read.to_owned()] {
                let row = client.query_one(&sql, &[]).await.unwrap();
                assert_eq!(row.get::<_, &str>(0), *expected, "{call}: its own client lost it");
            }
        }
        for other in &others {
            assert_eq!(other.query_one(read, &[]).await.unwrap().get::<_, &str>(0), "", "another client sees it");
        }
    }
}
