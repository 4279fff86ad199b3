//! Statements that stay prepared while what they read is redefined: a client gets the columns that it was told of, or an
//! error, on whichever server its statement runs.

use crate::support::{Gateway, Raw, database, direct, message, query, sqlstate, sync};

/// PostgreSQL's own refusal. Some drivers prepare anew and try again when they read it, others when they see its routine.
const CHANGED: &str = "0A000 cached plan must not change result type RevalidateCachedQuery";

/// Parse and Describe of a statement under a name, and a Sync.
fn prepare(name: &str, text: &str) -> Vec<u8> {
    let parse = message(b'P', &[name.as_bytes(), b"\0", text.as_bytes(), b"\0\0\0"].concat());
    [parse, message(b'D', &[b"S", name.as_bytes(), b"\0"].concat()), sync()].concat()
}

/// Bind with binary parameters, and Execute; with a Describe of the portal between them as libpq sends it, or without.
fn run(name: &str, values: &[&[u8]], described: bool) -> Vec<u8> {
    let mut body = [b"\0", name.as_bytes(), b"\0\0\x01\0\x01"].concat();
    body.extend((values.len() as u16).to_be_bytes());
    for value in values {
        body.extend((value.len() as u32).to_be_bytes());
        body.extend(*value);
    }
    body.extend([0, 0]);
    let describe = if described { message(b'D', b"P\0") } else { Vec::new() };
    [message(b'B', &body), describe, message(b'E', b"\0\0\0\0\0"), sync()].concat()
}

/// Rows as their columns, errors as SQLSTATE, message and routine, the rest left out but for ReadyForQuery.
fn brief(messages: &[(u8, Vec<u8>)]) -> String {
    let mut words = Vec::new();
    for (tag, body) in messages {
        match tag {
            b'T' => words.push(format!("T{}", u16::from_be_bytes([body[0], body[1]]))),
            b'E' => {
                words.push(sqlstate(body));
                let fields = body.split(|byte| *byte == 0).filter(|field| matches!(field.first(), Some(b'M' | b'R')));
                words.extend(fields.map(|field| String::from_utf8_lossy(&field[1..]).into_owned()));
            }
            b'D' => {
                let (mut rest, mut columns) = (&body[2..], Vec::new());
                while let Some((len, tail)) = rest.split_at_checked(4) {
                    let (value, tail) = tail.split_at(u32::from_be_bytes(len.try_into().unwrap()) as usize);
                    columns.push(String::from_utf8_lossy(value).into_owned());
                    rest = tail;
                }
                words.push(format!("[{}]", columns.join(" ")));
            }
            b'Z' => words.push(format!("Z{}", char::from(body[0]))),
            _ => {}
        }
    }
    words.join(" ")
}

struct Test {
    gateway: Gateway<'static>,
    database: String,
    /// Makes its DDL where the gateway does not see it.
    unseen: bool,
}

impl Test {
    fn new(label: &str, unseen: bool) -> Self {
        Self::with("size = 4", label, unseen)
    }

    fn with(pool: &str, label: &str, unseen: bool) -> Self {
        let database = database(label);
        let gateway = Gateway::setup().pool(pool).start();
        let test = Self { gateway, database, unseen };
        let table = "CREATE TABLE t (id int, name text); INSERT INTO t VALUES (1, 'one')";
        test.gateway.query(&test.database, table);
        test
    }

    fn client(&self) -> Raw {
        Raw::log_in(self.gateway.port, "demo", &self.database)
    }

    fn define(&self, sql: &str) {
        if self.unseen {
            self.gateway.cluster.primary().psql(&self.database, &format!("SET ROLE demo; {sql}")).unwrap();
        } else {
            self.gateway.query(&self.database, sql);
        }
    }

    /// Calls `then` while the primary's servers that were used before are in use: the next statement gets another.
    fn elsewhere(&self, others: usize, then: impl FnOnce()) {
        let mut held: Vec<_> = (0..others).map(|_| self.client()).collect();
        for client in &mut held {
            client.send(&query("BEGIN; SELECT pg_backend_pid()"));
            client.until(b'Z');
        }
        then();
        for client in &mut held {
            client.send(&query("COMMIT"));
            client.until(b'Z');
        }
    }
}

#[track_caller]
fn ask(client: &mut Raw, send: &[u8], answer: &str) {
    client.send(send);
    assert_eq!(brief(&client.until(b'Z')), answer);
}

/// A client that is told once what its statement returns, as asyncpg's, pgjdbc's and postgres.js's are. In a transaction, so that
/// it runs on the primary, as it would on replicas that have replayed the DDL.
const READ: &str = "SELECT * FROM t FOR SHARE";

#[test]
fn what_was_described_once_returns_that_or_fails() {
    for unseen in [false, true] {
        let test = Test::new(&format!("described_once_{unseen}"), unseen);
        let mut client = test.client();
        ask(&mut client, &prepare("s", READ), "T2 ZI");
        ask(&mut client, &run("s", &[], false), "[1 one] ZI");
        test.define("ALTER TABLE t ADD COLUMN more text DEFAULT 'more'");
        for others in [1, 2, 1, 0] {
            test.elsewhere(others, || ask(&mut client, &run("s", &[], false), &format!("{CHANGED} ZI")));
        }
        // To describe it again does not help, as it does not on PostgreSQL itself.
        test.elsewhere(1, || {
            let describe = [message(b'D', b"Ss\0"), sync()].concat();
            ask(&mut client, &describe, &format!("{CHANGED} ZI"));
        });
        // In a transaction it is that which fails.
        test.elsewhere(1, || {
            ask(&mut client, &query("BEGIN"), "ZT");
            ask(&mut client, &run("s", &[], false), &format!("{CHANGED} ZE"));
            ask(&mut client, &query("ROLLBACK"), "ZI");
            ask(&mut client, &query("BEGIN; LOCK TABLE t IN ACCESS SHARE MODE"), "ZT");
            ask(&mut client, &run("s", &[], false), &format!("{CHANGED} ZE"));
            ask(&mut client, &query("ROLLBACK"), "ZI");
        });
        // What is prepared now is what the table is now, everywhere.
        ask(&mut client, &[message(b'C', b"Ss\0"), prepare("s", READ)].concat(), "T3 ZI");
        for others in [0, 1, 2] {
            test.elsewhere(others, || ask(&mut client, &run("s", &[], false), "[1 one more] ZI"));
        }
        // Another client that prepared it before the change meets the error as well, wherever.
        test.define("ALTER TABLE t DROP COLUMN more");
        test.elsewhere(2, || ask(&mut client, &run("s", &[], false), &format!("{CHANGED} ZI")));
    }
}

/// Where servers hold few statements each is prepared anew all the time: those too are asked about each time. What only the
/// client's own answer would tell of DDL comes too late for who waits for the same lock.
#[test]
fn what_comes_and_goes_on_servers_returns_what_was_described() {
    for unseen in [false, true] {
        let label = format!("comes_and_goes_{unseen}");
        let test = Test::with("size = 4\nprepared_statements = 1", &label, unseen);
        let mut client = test.client();
        for (name, text) in [("s", READ), ("u", "UPDATE t SET id = id RETURNING *")] {
            ask(&mut client, &prepare(name, text), "T2 ZI");
        }
        for name in ["s", "u", "s", "u"] {
            ask(&mut client, &run(name, &[], false), "[1 one] ZI");
        }
        test.define("ALTER TABLE t ADD COLUMN more text DEFAULT 'more'");
        for name in ["s", "u", "s", "u"] {
            ask(&mut client, &run(name, &[], false), &format!("{CHANGED} ZI"));
        }
        for (name, text) in [("s", READ), ("u", "UPDATE t SET id = id RETURNING *")] {
            let close = message(b'C', format!("S{name}\0").as_bytes());
            ask(&mut client, &[close, prepare(name, text)].concat(), "T3 ZI");
        }
        for name in ["s", "u", "s", "u"] {
            ask(&mut client, &run(name, &[], false), "[1 one more] ZI");
        }
    }
}

/// The last that a server was asked about had the first go there, which it was asked about again, without end.
#[test]
fn a_group_may_use_more_statements_than_servers_hold() {
    let test = Test::with("size = 2\nprepared_statements = 2", "more_than_held", false);
    let mut client = test.client();
    let names: Vec<String> = (0..5).map(|n| format!("s{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        ask(&mut client, &prepare(name, &format!("SELECT *, {n} AS n FROM t FOR SHARE")), "T3 ZI");
    }
    let all = || {
        let mut group: Vec<u8> = names.iter().flat_map(|name| run(name, &[], false)).collect();
        // One Sync for all.
        let runs: Vec<usize> = names.iter().map(|name| run(name, &[], false).len()).collect();
        let mut at = 0;
        for len in &runs[..4] {
            at += len - sync().len();
            group.drain(at..at + sync().len());
        }
        group
    };
    let rows = "[1 one 0] [1 one 1] [1 one 2] [1 one 3] [1 one 4]";
    ask(&mut client, &all(), &format!("{rows} ZI"));
    ask(&mut client, &query("BEGIN; LOCK TABLE t IN ACCESS SHARE MODE"), "ZT");
    ask(&mut client, &all(), &format!("{rows} ZT"));
    ask(&mut client, &query("COMMIT"), "ZI");
    client.send(&query("SELECT pg_advisory_lock(1)"));
    client.until(b'Z');
    for _ in 0..2 {
        ask(&mut client, &all(), &format!("{rows} ZI"));
    }
    test.define("ALTER TABLE t ADD COLUMN more text");
    ask(&mut client, &all(), &format!("{CHANGED} ZI"));
}

#[test]
fn what_returns_the_same_goes_on() {
    for unseen in [false, true] {
        let test = Test::new(&format!("returns_the_same_{unseen}"), unseen);
        let mut client = test.client();
        let sql = "SELECT name FROM t WHERE id = $1 FOR SHARE";
        let one = 1_i32.to_be_bytes();
        ask(&mut client, &prepare("s", sql), "T1 ZI");
        ask(&mut client, &run("s", &[&one], false), "[one] ZI");
        // Its parameter is what it was, four bytes, although the column has eight now.
        test.define("ALTER TABLE t ALTER COLUMN id TYPE int8; ALTER TABLE t ADD COLUMN more text");
        for others in [1, 2, 0] {
            test.elsewhere(others, || ask(&mut client, &run("s", &[&one], false), "[one] ZI"));
        }
        // A table that takes its place, with the same columns.
        test.define("DROP TABLE t; CREATE TABLE t (id int, name text); INSERT INTO t VALUES (1, 'new')");
        for others in [2, 1, 0] {
            test.elsewhere(others, || ask(&mut client, &run("s", &[&one], false), "[new] ZI"));
        }
        test.define("DROP TABLE t");
        for others in [2, 1, 0] {
            let refused = "42P01 relation \"t\" does not exist parserOpenTable ZI";
            test.elsewhere(others, || ask(&mut client, &run("s", &[&one], false), refused));
        }
    }
}

#[test]
fn what_is_described_at_each_use_is_read_anew() {
    if direct() {
        return;
    }
    let test = Test::new("described_each_time", false);
    let (mut client, mut other) = (test.client(), test.client());
    for client in [&mut client, &mut other] {
        ask(client, &prepare("s", READ), "T2 ZI");
    }
    ask(&mut client, &run("s", &[], true), "T2 [1 one] ZI");
    test.define("ALTER TABLE t ADD COLUMN more text DEFAULT 'more'");
    for others in [0, 1, 2, 0] {
        test.elsewhere(others, || {
            ask(&mut client, &run("s", &[], true), "T3 [1 one more] ZI");
            // That is no way for columns to come to one that is not told.
            ask(&mut other, &run("s", &[], false), &format!("{CHANGED} ZI"));
        });
    }
    ask(&mut client, &run("s", &[], false), "[1 one more] ZI");
}

/// Two clients share a text, and each has been told what it is on the server that it met: that holds for each.
#[test]
fn each_gets_what_it_was_told() {
    let test = Test::new("told_apart", true);
    let (mut before, mut after) = (test.client(), test.client());
    ask(&mut before, &prepare("s", READ), "T2 ZI");
    ask(&mut before, &run("s", &[], false), "[1 one] ZI");
    test.define("ALTER TABLE t ADD COLUMN more text DEFAULT 'more'");
    test.elsewhere(1, || {
        ask(&mut after, &prepare("s", READ), "T3 ZI");
        for others in [0, 1, 2] {
            test.elsewhere(others, || ask(&mut after, &run("s", &[], false), "[1 one more] ZI"));
        }
        ask(&mut before, &run("s", &[], false), &format!("{CHANGED} ZI"));
    });
}

/// DDL may give a client that is told anew other columns; what it has set itself may not, whatever DDL is known meanwhile.
#[test]
fn another_search_path_makes_no_other_columns() {
    let test = Test::new("another_path", false);
    test.define("CREATE SCHEMA other; CREATE TABLE other.t (n text); INSERT INTO other.t VALUES ('other')");
    let mut client = test.client();
    ask(&mut client, &prepare("s", READ), "T2 ZI");
    ask(&mut client, &query("SET search_path = other"), "ZI");
    let set = message(b'P', b"\0SET search_path = public\0\0\0");
    let within = [set, message(b'B', &[0; 8]), message(b'E', &[0; 5]), prepare("w", READ)].concat();
    ask(&mut client, &within, "T2 ZI");
    for (others, path, elsewhere) in
        [(0, "public", false), (1, "other", true), (2, "public", false), (1, "other", true)]
    {
        test.define("CREATE TABLE IF NOT EXISTS unlike (a int); DROP TABLE unlike");
        ask(&mut client, &query(&format!("SET search_path = {path}")), "ZI");
        test.elsewhere(others, || {
            for (name, told) in [("s", true), ("w", true), ("s", false), ("w", false)] {
                let described = if told { "T2 " } else { "" };
                let rows = format!("{described}[1 one] ZI");
                let refused = format!("{CHANGED} ZI");
                ask(&mut client, &run(name, &[], told), if elsewhere { &refused } else { &rows });
            }
        });
    }
}

#[test]
fn a_session_sees_its_own_definitions_at_once() {
    let test = Test::new("own_definitions", false);
    let mut client = test.client();
    let again = || [message(b'C', b"Ss\0"), prepare("s", READ)].concat();
    ask(&mut client, &prepare("s", READ), "T2 ZI");
    ask(&mut client, &query("BEGIN"), "ZT");
    ask(&mut client, &run("s", &[], false), "[1 one] ZT");
    ask(&mut client, &query("ALTER TABLE t ADD COLUMN more text DEFAULT 'more'"), "ZT");
    ask(&mut client, &again(), "T3 ZT");
    ask(&mut client, &run("s", &[], false), "[1 one more] ZT");
    ask(&mut client, &query("ROLLBACK"), "ZI");
    ask(&mut client, &again(), "T2 ZI");
    ask(&mut client, &run("s", &[], false), "[1 one] ZI");
    // A temporary table in the way of the other, and out of it again.
    ask(&mut client, &query("CREATE TEMP TABLE t AS SELECT 'mine' AS only"), "ZI");
    ask(&mut client, &again(), "T1 ZI");
    ask(&mut client, &run("s", &[], false), "[mine] ZI");
    let mut other = test.client();
    ask(&mut other, &prepare("s", READ), "T2 ZI");
    ask(&mut other, &run("s", &[], false), "[1 one] ZI");
    ask(&mut client, &query("DROP TABLE pg_temp.t"), "ZI");
    ask(&mut client, &again(), "T2 ZI");
    ask(&mut client, &run("s", &[], false), "[1 one] ZI");
}

/// A statement that nobody has asked about keeps what it returned where it was parsed, on a server that has never seen it, too.
#[test]
fn another_search_path_changes_no_result() {
    if direct() {
        return;
    }
    let database = database("redefined_path");
    let gateway = Gateway::setup().pool("size = 2").weights(0, 0).start();
    let primary = gateway.cluster.primary();
    let tables = "CREATE TABLE t AS SELECT 1 AS n; CREATE SCHEMA other; CREATE TABLE other.t AS SELECT 1 AS n, 2 AS m;
                  GRANT USAGE ON SCHEMA other TO PUBLIC; GRANT ALL ON t, other.t TO PUBLIC";
    primary.psql(&database, tables).unwrap();
    let parse = message(b'P', b"n\0SELECT * FROM t WHERE n = $1\0\0\0");
    let describe = [message(b'D', b"Sn\0"), sync()].concat();
    let mut told = Vec::new();
    for (port, elsewhere) in [(primary.port(), false), (gateway.port, false), (gateway.port, true)] {
        let mut client = Raw::log_in(port, "demo", &database);
        client.send(&[parse.clone(), sync(), query("SET search_path = other, public")].concat());
        assert_eq!((client.first(), client.first()), (String::new(), String::new()));
        if elsewhere {
            let all =
                format!("SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE datname = '{database}'");
            primary.psql("postgres", &all).unwrap();
        }
        let mut answers = Vec::new();
        for send in [&describe, &run("n", &[b"1"], true), &query("SET search_path = public"), &describe] {
            client.send(send);
            answers.push(brief(&client.until(b'Z')));
        }
        told.push(answers);
    }
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0], told[2]);
    assert!(told[0][0].contains("0A000"), "{told:?}");
}

/// The same where the search path was its transaction's alone, which may have failed, or its own schema is another role's.
#[test]
fn what_held_where_it_was_parsed_is_remembered() {
    if direct() {
        return;
    }
    let database = database("redefined_undone");
    let gateway = Gateway::setup().pool("size = 2").weights(0, 0).start();
    let primary = gateway.cluster.primary();
    let tables = "CREATE TABLE t AS SELECT 1 AS n; CREATE SCHEMA other; CREATE TABLE other.t AS SELECT 1 AS n, 2 AS m;
                  CREATE ROLE redefined_user; GRANT redefined_user TO demo; CREATE SCHEMA redefined_user;
                  CREATE TABLE redefined_user.t AS SELECT 1 AS n, 2 AS m;
                  GRANT USAGE ON SCHEMA other, redefined_user TO PUBLIC;
                  GRANT ALL ON t, other.t, redefined_user.t TO PUBLIC";
    primary.psql(&database, tables).unwrap();
    let parse = message(b'P', b"n\0SELECT * FROM t WHERE n = $1\0\0\0");
    let describe = [message(b'D', b"Sn\0"), sync()].concat();
    let parsed = [parse.clone(), sync()].concat();
    let unnamed = |text: &str| {
        [message(b'P', &[b"\0", text.as_bytes(), b"\0\0\0"].concat()), message(b'B', &[0; 8]), message(b'E', &[0; 5])]
            .concat()
    };
    let set = "SET search_path = other, public";
    let local = "SET LOCAL search_path = other, public";
    let steps: [&[Vec<u8>]; 8] = [
        &[query("BEGIN"), query(local), parsed.clone(), query("COMMIT")],
        &[query("BEGIN"), query(set), parsed.clone(), query("ROLLBACK")],
        &[query("SET ROLE redefined_user"), parsed.clone(), query("RESET ROLE")],
        &[parsed.clone(), query("SET ROLE redefined_user")],
        &[parsed.clone(), query("BEGIN"), query(local)],
        &[[unnamed(set), parse.clone(), unnamed("SELECT 1/0"), sync()].concat()],
        &[[unnamed(local), parse.clone(), sync()].concat()],
        &[[unnamed(set), parse.clone(), sync()].concat()],
    ];
    for (number, steps) in steps.into_iter().enumerate() {
        let mut told = Vec::new();
        for (port, elsewhere) in [(primary.port(), false), (gateway.port, false), (gateway.port, true)] {
            let mut client = Raw::log_in(port, "demo", &database);
            for step in steps {
                client.send(step);
                client.until(b'Z');
            }
            if elsewhere {
                let all = format!(
                    "SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE datname = '{database}'"
                );
                primary.psql("postgres", &all).unwrap();
            }
            let one = &1_i32.to_be_bytes()[..];
            let mut answers = Vec::new();
            for send in [&describe, &run("n", &[one], true), &query("SET search_path = other"), &describe] {
                client.send(send);
                answers.push(brief(&client.until(b'Z')));
            }
            told.push(answers);
        }
        assert_eq!(told[0], told[1], "{number}");
        assert_eq!(told[0], told[2], "{number}");
        assert_eq!(told[0][0].starts_with("0A000"), number < 7, "{number}: {told:?}");
    }
}

/// Messages with what they say: tags of commands, errors, rows, the status.
fn whole(client: &mut Raw, bytes: &[u8]) -> Vec<String> {
    client.send(bytes);
    let said = |(tag, body): &(u8, Vec<u8>)| {
        let told = match tag {
            b'C' | b'Z' => String::from_utf8_lossy(body).trim_end_matches('\0').to_owned(),
            b'T' | b'E' | b'D' => brief(&[(*tag, body.clone())]),
            _ => String::new(),
        };
        format!("{} {told}", char::from(*tag))
    };
    // Parameters ahead of a Describe's error may be missing (docs/differences.md).
    client.until(b'Z').iter().filter(|(tag, _)| *tag != b't').map(said).collect()
}

/// A group that comes to a statement which cannot be what it was: what stands ahead takes place and is answered, the rest is skipped.
#[test]
fn a_refused_statement_is_refused_in_its_place() {
    let database = database("refused_in_place");
    let gateway = Gateway::setup().pool("size = 2").weights(0, 0).start();
    let log_in = |port| Raw::log_in(port, "demo", &database);
    let mut client = log_in(gateway.port);
    let mut others = [log_in(gateway.port), log_in(gateway.port)];
    let (mut plain, mut definer) = (log_in(gateway.cluster.primary().port()), log_in(gateway.cluster.primary().port()));
    definer.ask("CREATE TABLE log (of text); CREATE SCHEMA other; CREATE TABLE other.gone (b text, c int)");
    let named = |name: &str, text: &str| message(b'P', &[name.as_bytes(), b"\0", text.as_bytes(), b"\0\0\0"].concat());
    let describe = |name: &str| message(b'D', &[b"S", name.as_bytes(), b"\0"].concat());
    let run = |name: &str, described: bool| {
        let all = run(name, &[], described);
        all[..all.len() - sync().len()].to_vec()
    };
    let (insert, gone, known, commit, by_sql) =
        (run("i", false), run("g", false), run("k", false), run("c", false), run("e", false));
    let (begins, rollback, told, of_g, end) = (run("b", false), run("r", false), run("g", true), describe("g"), sync());
    let zero = [named("", "SELECT 1/0"), run("", false)].concat();
    let (made, again) = (named("n", "SELECT 'new'"), run("n", false));
    let (begin, written, execute) = (query("BEGIN"), query("INSERT INTO public.log VALUES ('q')"), query("EXECUTE g"));
    let groups: Vec<(&str, Vec<&[u8]>)> = vec![
        ("first", vec![&gone, &insert, &end]),
        ("behind", vec![&insert, &gone, &end]),
        ("between", vec![&insert, &gone, &insert, &gone, &end]),
        ("behind one that is asked about", vec![&known, &insert, &known, &gone, &known, &end]),
        ("behind a COMMIT", vec![&insert, &commit, &gone, &end]),
        ("behind a COMMIT, others behind", vec![&insert, &commit, &insert, &gone, &insert, &end]),
        ("behind a ROLLBACK", vec![&insert, &rollback, &insert, &gone, &end]),
        ("behind a block", vec![&begins, &insert, &commit, &gone, &insert, &end]),
        ("in a block of its own", vec![&begins, &insert, &gone, &commit, &end]),
        ("described", vec![&insert, &of_g, &gone, &end]),
        ("its portal described", vec![&insert, &commit, &told, &end]),
        ("behind an error", vec![&insert, &zero, &gone, &end]),
        ("behind a Parse", vec![&made, &again, &insert, &gone, &again, &end]),
        ("executed by SQL", vec![&insert, &by_sql, &insert, &end]),
        ("executed by SQL first", vec![&by_sql, &insert, &end]),
        ("executed by a Query", vec![&insert, &execute]),
    ];
    let prepared = [
        named("g", "SELECT * FROM gone"),
        describe("g"),
        named("k", "SELECT * FROM public.log WHERE false"),
        describe("k"),
        named("i", "INSERT INTO public.log VALUES ('i')"),
        named("b", "BEGIN"),
        named("c", "COMMIT"),
        named("r", "ROLLBACK"),
        named("e", "EXECUTE g"),
        end.clone(),
    ];
    let prepared = prepared.concat();
    for change in ["DROP TABLE gone", "ALTER TABLE gone ADD COLUMN more text", "SET search_path = other, public"] {
        for (what, group) in &groups {
            if change.starts_with("ALTER") && *what == "its portal described" {
                // It is read anew.
                continue;
            }
            for (in_block, elsewhere) in [(false, false), (false, true), (true, false), (true, true)] {
                let what = format!("{change}: {what}, in a block: {in_block}, elsewhere: {elsewhere}");
                definer.ask("DROP TABLE IF EXISTS gone; CREATE TABLE gone (a int)");
                assert_eq!(whole(&mut client, &prepared), whole(&mut plain, &prepared), "{what}");
                if elsewhere {
                    client.leaves_server_to(&mut others);
                }
                if change.starts_with("SET") {
                    for side in [&mut client, &mut plain] {
                        assert_eq!(side.ask(change), "");
                    }
                } else {
                    assert_eq!(definer.ask(change), "");
                }
                let mut told = Vec::new();
                for side in [&mut client, &mut plain] {
                    let mut answers = Vec::new();
                    if in_block {
                        answers.push(whole(side, &begin));
                        answers.push(whole(side, &written));
                    }
                    answers.push(whole(side, &group.concat()));
                    answers.push(whole(side, &query("ROLLBACK")));
                    answers.push(whole(side, &[made.clone(), again.clone(), end.clone()].concat()));
                    answers.push(whole(side, &query("SELECT count(*) FROM public.log")));
                    side.ask("TRUNCATE public.log");
                    side.ask("RESET search_path; DEALLOCATE ALL");
                    told.push(answers);
                }
                assert_eq!(told[0], told[1], "{what}");
                for other in &mut others {
                    other.ask("COMMIT");
                }
            }
        }
    }
}

/// PostgreSQL chooses the types that a client left open once, told or not: on another server they were chosen anew, so that what came
/// in binary meant something else.
#[test]
fn types_that_nobody_asked_for_stay_what_they_were() {
    let database = database("redefined_types");
    let gateway = Gateway::setup().pool("size = 2").weights(0, 0).start();
    let mut client = Raw::log_in(gateway.port, "demo", &database);
    let mut others = [(); 2].map(|()| Raw::log_in(gateway.port, "demo", &database));
    let mut plain = Raw::log_in(gateway.cluster.primary().port(), "demo", &database);
    let statement = |name: &str, text: &str, types: &[u8]| {
        message(b'P', &[name.as_bytes(), b"\0", text.as_bytes(), b"\0", types].concat())
    };
    let (moment, number) = (757_382_400_000_000_i64.to_be_bytes(), 1_078_523_331_i32.to_be_bytes());
    let cases: [(&str, &str, &[u8]); 3] =
        [("timestamp", "timestamptz", &moment), ("int", "real", &number), ("int", "bigint", &number)];
    for (n, (from, to, value)) in cases.into_iter().enumerate() {
        for types in [&b"\0\0"[..], b"\0\x01\0\0\0\0"] {
            for described in [false, true] {
                let mut told = Vec::new();
                for (side, elsewhere) in [(&mut client, !direct()), (&mut plain, false)] {
                    let what = format!("{from} to {to}, {types:?}, described: {described}, elsewhere: {elsewhere}");
                    // Another text for each: what one has learned is no other's.
                    let text = format!("INSERT INTO typed /* {n} {} {described} */ VALUES ($1)", types.len());
                    assert_eq!(side.ask(&format!("DROP TABLE IF EXISTS typed; CREATE TABLE typed (v {from})")), "");
                    assert_eq!(side.ask("SET TimeZone = 'America/New_York'"), "");
                    // Another's description is none of it.
                    side.send(&[statement("o", "SELECT 1", b"\0\0"), sync()].concat());
                    side.until(b'Z');
                    let describes = message(b'D', b"So\0");
                    side.send(&[statement("s", &text, types), describes, sync()].concat());
                    let answer: Vec<u8> = side.until(b'Z').iter().map(|(tag, _)| *tag).collect();
                    assert_eq!(answer, b"1tTZ", "{what}");
                    assert_eq!(side.ask("DEALLOCATE o"), "");
                    side.send(&run("s", &[value], described));
                    assert_eq!(side.first(), "", "{what}");
                    if elsewhere {
                        side.leaves_server_to(&mut others);
                    }
                    assert_eq!(side.ask(&format!("ALTER TABLE typed ALTER v TYPE {to}")), "", "{what}");
                    side.send(&run("s", &[value], described));
                    assert_eq!(side.first(), "", "{what}");
                    told.push(side.ask("SELECT string_agg(v::text, ' ') FROM typed"));
                    assert_eq!(side.ask("DEALLOCATE s"), "");
                    for other in &mut others {
                        other.ask("COMMIT");
                    }
                }
                assert_eq!(told[0], told[1], "{from} to {to}, {types:?}, described: {described}");
            }
        }
    }
}
