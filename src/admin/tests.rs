//! The listener without a gateway: a source made for the test, spoken to over loopback.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::config::Sources;
use crate::observe::families;
use crate::pool::Budget;
use crate::topology::{Role, Standing};

struct Fake {
    metrics: Metrics,
    live: Arc<Live>,
    draining: AtomicBool,
}

/// No environment, one file.
struct Files;

impl Sources for Files {
    fn env(&self, _: &str) -> Option<String> {
        None
    }
    fn read(&self, _: &Path) -> Result<String, String> {
        Ok("t0ken\n".to_owned())
    }
    fn check_file(&self, _: &Path) -> Result<(), String> {
        Ok(())
    }
    fn check_directory(&self, _: &Path) -> Result<(), String> {
        Ok(())
    }
}

impl Fake {
    fn new(admin: &str) -> Arc<Self> {
        let text = format!(
            "[admin]\nlisten = \"127.0.0.1:0\"\n{admin}\n[clusters.\"<main>\"]\nprimary = \"a:1\"\nreplicas = [\"b:1\"]\n"
        );
        let checked = config_from(&text);
        let budget = Budget::new(10);
        let live = Arc::new(Live::build(checked, None, &budget, 1).unwrap());
        Arc::new(Self { metrics: Metrics::new(1), live, draining: AtomicBool::new(false) })
    }
}

fn config_from(text: &str) -> config::Config {
    match config::parse(text, Path::new("/etc/p.toml"), &Files) {
        Ok(checked) => checked.config,
        Err(problems) => panic!("{problems:?}"),
    }
}

impl Source for Fake {
    fn metrics(&self) -> &Metrics {
        &self.metrics
    }
    fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live)
    }
    fn clients(&self) -> usize {
        3
    }
    fn sessions(&self) -> Sessions {
        Sessions { idle: 1, waiting: 0, active: 1, pinned: 1, pins: vec![("LISTEN", 1)] }
    }
    fn listening(&self) -> Listening {
        Listening { connections: 1, sessions: 2, channels: 3 }
    }
    fn servers(&self) -> usize {
        2
    }
    fn analyses(&self) -> CacheStats {
        CacheStats { exact_hits: 5, ..CacheStats::default() }
    }
    fn policies(&self) -> Vec<Policy> {
        vec![Policy {
            name: "tenant".to_owned(),
            state: "last_good",
            version: "1.2".to_owned(),
            digest: "0123456789ab".to_owned(),
            loaded_at: Some(SystemTime::UNIX_EPOCH),
            error: Some("<script>".to_owned()),
            calls: 9,
            cached: 1,
            decisions: vec![("replica", 9)],
            faults: vec![("trap", 2)],
            own: vec![("seen".to_owned(), 4)],
        }]
    }
    fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

async fn started(source: &Arc<Fake>) -> AdminHandle {
    let admin = source.live.config.admin.clone().unwrap();
    start(&admin, Arc::clone(source) as Arc<dyn Source>).await.unwrap()
}

/// Status and body.
async fn get(admin: &AdminHandle, path: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(admin.address()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split_whitespace().nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn every_family_is_exposed() {
    let source = Fake::new("");
    source.metrics.rejected("42501");
    let admin = started(&source).await;
    let (status, text) = get(&admin, "/metrics", "Accept: application/openmetrics-text;version=1.0.0\r\n").await;
    assert_eq!(status, 200);
    for family in families::ALL {
        let head = format!("# TYPE {} ", family.name);
        assert_eq!(text.matches(&head).count(), 1, "{head} in\n{text}");
    }
    assert_eq!(text.matches("# TYPE ").count(), families::ALL.len());
    for line in [
        r#"pointsman_sessions{state="pinned"} 1"#,
        r#"pointsman_sessions_pinned{cause="LISTEN"} 1"#,
        "pointsman_listen_sessions 2",
        r#"pointsman_rejected_total{class="42"} 1"#,
        r#"pointsman_policy_info{policy="tenant",version="1.2",digest="0123456789ab",state="last_good"} 1"#,
        r#"pointsman_policy_faults_total{policy="tenant",kind="trap"} 2"#,
        r#"pointsman_policy_own_total{policy="tenant",counter="seen"} 4"#,
        r#"pointsman_analyses_total{result="exact"} 5"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn readiness_names_its_reasons() {
    let source = Fake::new("");
    let admin = started(&source).await;
    assert_eq!(get(&admin, "/readyz", "").await.0, 200);
    let nodes: Vec<_> = source.live.clusters["<main>"].topology.nodes().cloned().collect();
    for node in &nodes {
        node.set_standing(Standing::Ejected);
    }
    let (status, reasons) = get(&admin, "/readyz", "").await;
    assert_eq!(status, 503);
    assert!(reasons.contains("no node answers"), "{reasons}");
    // One node is enough, as long as it is known who the primary is.
    nodes[1].set_standing(Standing::Up);
    assert_eq!(get(&admin, "/readyz", "").await.0, 200);
    for node in &nodes {
        node.set_role(Role::Replica);
    }
    assert!(get(&admin, "/readyz", "").await.1.contains("none takes writes"));
    nodes[0].set_role(Role::Primary);
    source.draining.store(true, Ordering::Relaxed);
    assert_eq!(get(&admin, "/readyz", "").await, (503, "the gateway stops\n".to_owned()));
    assert_eq!(get(&admin, "/healthz", "").await, (200, "ok\n".to_owned()));
}

#[tokio::test]
async fn the_page_escapes_and_the_status_is_json() {
    let source = Fake::new("");
    let admin = started(&source).await;
    let (status, page) = get(&admin, "/", "").await;
    assert_eq!(status, 200);
    assert!(page.contains("Cluster &lt;main&gt;") && page.contains("&lt;script&gt;"), "{page}");
    assert!(!page.contains("<script") && !page.contains("src="), "{page}");
    let (status, json) = get(&admin, "/api/v1/status", "").await;
    assert_eq!(status, 200);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["clusters"][0]["shards"][0]["nodes"][1]["role"], "replica", "{json:#}");
    assert_eq!(json["policies"][0]["loaded_at"], 0);
    assert_eq!(json["sessions"]["pinned"], 1);
    assert_eq!(get(&admin, "/nothing", "").await.0, 404);
}

#[tokio::test]
async fn a_token_guards_all_but_health() {
    let source = Fake::new("token_file = \"t\"");
    let admin = started(&source).await;
    for (path, headers, expected) in [
        ("/healthz", "", 200),
        ("/readyz", "", 200),
        ("/metrics", "", 401),
        ("/", "", 401),
        ("/api/v1/status", "Authorization: Bearer wrong\r\n", 401),
        ("/metrics", "Authorization: Bearer t0ken\r\n", 200),
        ("/", "Authorization: Basic YW55OnQwa2Vu\r\n", 200),
        ("/nothing", "", 404),
    ] {
        assert_eq!(get(&admin, path, headers).await.0, expected, "{path} {headers}");
    }
    // Why it is not ready is for those with the token.
    source.draining.store(true, Ordering::Relaxed);
    assert_eq!(get(&admin, "/readyz", "").await, (503, "not ready\n".to_owned()));
}

#[tokio::test]
async fn a_taken_address_is_named_with_its_setting() {
    let source = Fake::new("");
    let first = started(&source).await;
    let mut admin = source.live.config.admin.clone().unwrap();
    admin.listen =
        config_from(&format!("[admin]\nlisten = \"{}\"\n[clusters.m]\nprimary = \"a:1\"\n", first.address()))
            .admin
            .unwrap()
            .listen;
    let error = start(&admin, source).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("admin.listen: {}: ", first.address())), "{error}");
}
