//! What the tests of Rust drivers share; see `../common.py`, whose twin this is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};

/// Whatever went wrong.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// What is under test.
pub fn url() -> String {
    std::env::var("POINTSMAN_TEST_URL").expect("POINTSMAN_TEST_URL names what is under test")
}

/// The servers themselves, the primary first.
pub fn nodes() -> Vec<String> {
    std::env::var("POINTSMAN_TEST_NODES").unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// A connection by another driver: "another client's".
pub async fn connect(url: &str) -> Result<Client, Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // The client sees its errors as well.
    tokio::spawn(connection);
    Ok(client)
}

/// Statements on a connection of their own.
pub async fn others(text: &str) -> Result<(), Error> {
    Ok(connect(&url()).await?.batch_execute(text).await?)
}

/// Waits until the replicas have all that was committed: a session that has not written reads from them.
pub async fn settled() -> Result<(), Error> {
    let nodes = nodes();
    let Some(primary) = nodes.first() else { return Ok(()) };
    let position: String =
        connect(primary).await?.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await?.get(0);
    for node in &nodes[1..] {
        let replica = connect(node).await?;
        let start = Instant::now();
        while !replica
            .query_one("SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", &[&position])
            .await?
            .get::<_, bool>(0)
        {
            assert!(start.elapsed() < Duration::from_secs(30), "{node} does not catch up");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    Ok(())
}

/// Runs tests one after the other; each on a task, so that one that panics is told and the rest still run.
pub struct Run {
    title: String,
    count: usize,
    failed: usize,
}

impl Run {
    pub fn new(title: &str) -> Self {
        Self { title: title.into(), count: 0, failed: 0 }
    }

    pub async fn test(&mut self, name: &str, work: impl Future<Output = Result<(), Error>> + Send + 'static) {
        if std::env::args().len() > 1 && !std::env::args().skip(1).any(|wanted| wanted == name) {
            return;
        }
        let start = Instant::now();
        self.count += 1;
        let ended = tokio::time::timeout(Duration::from_secs(90), tokio::spawn(work)).await;
        match ended {
            Ok(Ok(Ok(()))) => println!("ok      {name} ({:.1} s)", start.elapsed().as_secs_f64()),
            Ok(Ok(Err(error))) => self.fail(name, &format!("{error:?}")),
            Ok(Err(panic)) => self.fail(name, &panic.to_string()),
            Err(_) => self.fail(name, "it hangs"),
        }
    }

    fn fail(&mut self, name: &str, why: &str) {
        self.failed += 1;
        println!("FAILED  {name}: {why}");
    }

    pub fn end(self) -> ! {
        println!("{}: {} of {} passed", self.title, self.count - self.failed, self.count);
        std::process::exit(i32::from(self.failed > 0))
    }
}

/// Runs work for the numbers 0 to `count - 1` at once.
pub async fn together<F>(count: i32, work: impl Fn(i32) -> F) -> Result<(), Error>
where
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let tasks: Vec<_> = (0..count).map(|number| tokio::spawn(work(number))).collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// A table that is migrated while others use it, and what they saw.
pub struct Traffic {
    pub url: String,
    pub table: String,
    over: AtomicBool,
    written: AtomicI64,
    reads: AtomicI64,
    failed: Mutex<BTreeMap<String, usize>>,
}

impl Traffic {
    fn new(url: String, table: &str) -> Arc<Self> {
        let table = table.to_owned();
        Arc::new(Self { url, table, over: false.into(), written: 0.into(), reads: 0.into(), failed: Mutex::default() })
    }

    pub fn over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// A statement failed with this SQLSTATE, or this error of the driver's own.
    pub fn failure(&self, kind: &str) {
        *self.failed.lock().unwrap().entry(kind.into()).or_default() += 1;
    }

    /// A write was acknowledged.
    pub fn wrote(&self) {
        self.written.fetch_add(1, Ordering::Relaxed);
    }

    /// A row was read, and these are its values.
    pub fn check(&self, id: i32, label: &str, v: i64) {
        assert!(label == format!("row {id}") && v == i64::from(id) * 10, "row {id} came as {label:?}, {v}");
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    async fn migrate(&self) -> Result<usize, Error> {
        let client = connect(&self.url).await?;
        let (start, mut steps) = (Instant::now(), 0);
        let table = &self.table;
        while start.elapsed() < Duration::from_secs(4) {
            for step in [
                format!("ALTER TABLE {table} ADD COLUMN more text DEFAULT 'x'"),
                format!("ALTER TABLE {table} ALTER COLUMN v TYPE bigint"),
                format!("CREATE INDEX CONCURRENTLY {table}_n ON {table} (n)"),
                format!("ALTER TABLE {table} DROP COLUMN more"),
                format!("ALTER TABLE {table} ALTER COLUMN v TYPE int"),
                format!("DROP INDEX CONCURRENTLY {table}_n"),
            ] {
                client.batch_execute(&step).await?;
                steps += 1;
                tokio::time::sleep(Duration::from_millis(80)).await;
            }
        }
        Ok(steps)
    }

    async fn run<F>(self: Arc<Self>, work: impl Fn(Arc<Self>, i32) -> F) -> Result<(), Error>
    where
        F: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let table = &self.table;
        let client = connect(&self.url).await?;
        client
            .batch_execute(&format!(
                "CREATE TABLE {table} (id int PRIMARY KEY, n int, label text, v int);
                 INSERT INTO {table} SELECT i, 0, 'row ' || i, i * 10 FROM generate_series(1, 50) i"
            ))
            .await?;
        settled().await?;
        let workers: Vec<_> = (0..5).map(|number| tokio::spawn(work(Arc::clone(&self), number))).collect();
        let migrated = self.migrate().await;
        self.over.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.await??;
        }
        let steps = migrated?;
        settled().await?;
        let total: i64 = client.query_one(&format!("SELECT sum(n) FROM {table}"), &[]).await?.get(0);
        let (written, reads) = (self.written.load(Ordering::Relaxed), self.reads.load(Ordering::Relaxed));
        println!(
            "        {table}: {steps} steps, {reads} reads, {written} writes, failed: {:?}",
            self.failed.lock().unwrap()
        );
        // What was acknowledged is there, once; what failed is not there.
        assert_eq!(total, written, "writes that are there, writes that were acknowledged");
        assert!(steps >= 6 && reads > 10 && total > 10, "too little was done");
        Ok(())
    }
}

/// The same traffic here and on the primary at once. What fails here must fail there, or be `expected`: something that a
/// direct connection brings as well, but not in every run.
pub async fn migration<F>(work: impl Fn(Arc<Traffic>, i32) -> F, expected: &[&str]) -> Result<(), Error>
where
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let ours = Traffic::new(url(), "migrated");
    let theirs = nodes().first().map(|node| Traffic::new(node.clone(), "migrated_directly"));
    if let Some(theirs) = &theirs {
        let both = futures_util::future::join(Arc::clone(&ours).run(&work), Arc::clone(theirs).run(&work)).await;
        both.0?;
        both.1?;
    } else {
        Arc::clone(&ours).run(&work).await?;
    }
    let kinds = |traffic: &Arc<Traffic>| traffic.failed.lock().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let mut known: BTreeSet<String> = expected.iter().map(|&kind| kind.into()).collect();
    known.extend(kinds(theirs.as_ref().unwrap_or(&ours)));
    let alone: Vec<_> = kinds(&ours).difference(&known).cloned().collect();
    assert!(alone.is_empty(), "fails here alone: {alone:?}");
    Ok(())
}
