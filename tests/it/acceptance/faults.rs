//! Files and components made to break the gateway, under load: it lives, others do not notice, the last good serves.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Load, Loaded, WHERE, ask, components, either, figure, fill, milliseconds, percentile, role_of};
use crate::support::{Gateway, POLICIES, Raw, database, direct, eventually};

/// Statements that a policy may fail before it is retired.
const FAULTS: usize = 3;
/// A case is run again if a time was too long: the machine is at fault sometimes, the gateway would be each time.
const ATTEMPTS: usize = 3;
/// Clients of pgbench on each of the two databases, and their transactions a second.
const CLIENTS: usize = 4;
const RATE: &str = "150";

/// What is put in the place of a good policy.
struct Case {
    what: &'static str,
    bytes: Vec<u8>,
    /// What the error must say.
    words: &'static str,
    /// It shows what it is when it serves; the others, when they are tried.
    latent: bool,
}

fn cases() -> Vec<Case> {
    let case = |latent| move |(what, bytes, words)| Case { what, bytes, words, latent };
    let eager = [
        "endless loop in route",
        "endless loop at the start",
        "memory that grows and grows",
        "four gigabytes at once",
        "a trap on every call",
        "half a file",
        "one bit flipped",
        "another world",
        "twelve megabytes of answer",
    ];
    let mut cases: Vec<Case> = components::unloadable().into_iter().map(case(false)).collect();
    cases.retain(|case| eager.contains(&case.what));
    assert_eq!(cases.len(), eager.len());
    let latent = ["trap", "loop", "memory", "recursion", "twelve megabytes"];
    cases.extend(components::latent_reads().into_iter().filter(|(what, ..)| latent.contains(what)).map(case(true)));
    assert_eq!(cases.len(), eager.len() + latent.len());
    let short = ["endless loop at the start", "another world", "loop", "twelve megabytes"];
    cases.retain(|case| either(short.contains(&case.what), true));
    cases
}

/// A gateway with a database whose chain holds the policy `p` and one whose chain does not.
struct Stage {
    gateway: Gateway<'static>,
    uses: String,
    other: String,
}

impl Stage {
    fn set() -> Self {
        let (uses, other) = (database("faults_uses"), database("faults_other"));
        let chains = format!(
            "{POLICIES}\n[databases.{uses}]\npolicies = [\"p\", \"read-write-split\"]\n\
             [databases.{other}]\npolicies = [\"read-write-split\"]\n"
        );
        let gateway = Gateway::setup().more(&chains).policy("p", &components::reads(0, 0)).start();
        for database in [&uses, &other] {
            fill(&gateway, database);
        }
        Self { gateway, uses, other }
    }

    /// pgbench on the two databases: those that the policy concerns, and the others.
    fn load(&self) -> [Load; 2] {
        let seconds = either("2", "4");
        let mixed = ["-b", "simple-update@1", "-b", "select-only@4", "-R", RATE, "-T", seconds];
        [&self.uses, &self.other].map(|database| Load::start(&self.gateway, database, CLIENTS, &mixed))
    }

    fn policy(&self) -> Value {
        let status = self.gateway.status();
        let policies = status["policies"].as_array().unwrap();
        policies.iter().find(|policy| policy["name"] == "p").unwrap().clone()
    }

    fn role(&self) -> u32 {
        let mut raw = Raw::log_in(self.gateway.port, "demo", &self.uses);
        role_of(&ask(&mut raw, WHERE).unwrap())
    }

    /// Puts the good policy back.
    fn restore(&self) {
        self.gateway.replace_policy("p", &components::reads(0, 0));
        eventually("the good policy", || self.policy()["state"] == "serving" && self.role() == 0);
    }

    /// Meets the faults that a policy shows when it serves, from several clients at once; how many there were, and the longest
    /// time that a statement took that met one.
    fn trigger(&self) -> (usize, Duration) {
        let asked = std::thread::scope(|scope| {
            let ask_five = || {
                let mut raw = Raw::log_in(self.gateway.port, "demo", &self.uses);
                let notify = |_| {
                    let begun = Instant::now();
                    (ask(&mut raw, "NOTIFY probe"), begun.elapsed())
                };
                (0..5).map(notify).collect::<Vec<_>>()
            };
            let clients: Vec<_> = (0..4).map(|_| scope.spawn(ask_five)).collect();
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>()
        });
        let failed: Vec<_> = asked.iter().filter_map(|(answer, took)| Some((answer.as_ref().err()?, *took))).collect();
        assert!(failed.iter().all(|(state, _)| *state == "58000"), "{failed:?}");
        (failed.len(), failed.iter().map(|(_, took)| *took).max().unwrap_or_default())
    }
}

fn times(loaded: &Loaded) -> String {
    let most = percentile(&loaded.latencies, 1.0);
    format!("p99 {} (most {})", milliseconds(loaded.p99()), milliseconds(most))
}

#[test]
fn a_hostile_policy_harms_nobody_else() {
    if direct() {
        return;
    }
    let bound = Duration::from_millis(either(250, 10));
    let stage = Stage::set();
    let [uses, other] = stage.load().map(Load::finish);
    figure(format!("faults: nothing hostile: the policy's database {}; the other {}", times(&uses), times(&other)));
    for case in cases() {
        let mut slow = Vec::new();
        while slow.last().is_none_or(|p99| *p99 > bound) {
            assert!(slow.len() < ATTEMPTS, "{}: the p99 of statements that it does not concern: {slow:?}", case.what);
            slow.push(meet(&stage, &case));
        }
    }
}

/// Meets one hostile policy under load; the p99 of the statements that it does not concern.
fn meet(stage: &Stage, Case { what, bytes, words, latent }: &Case) -> Duration {
    let before = stage.policy();
    let load = stage.load();
    let began = Instant::now();
    stage.gateway.replace_policy("p", bytes);
    let mut faults = (0, Duration::ZERO);
    if *latent {
        eventually(what, || stage.role() == 1);
        faults = stage.trigger();
        assert!((1..=FAULTS).contains(&faults.0), "{what}: {} statements failed", faults.0);
    }
    eventually(what, || stage.policy()["state"] == "last_good");
    let settled = began.elapsed();
    let policy = stage.policy();
    let error = policy["error"].as_str().unwrap_or_default().to_owned();
    assert_eq!(policy["digest"], before["digest"], "{what}: the last good generation serves");
    assert_eq!(stage.role(), 0, "{what}: the last good generation answers");
    assert_eq!(stage.trigger().0, 0, "{what}: and none fails any more");
    // The breaker says that it was retired; each fault was told to a client.
    let expected = if *latent { "failed too often" } else { *words };
    assert!(error.contains(expected), "{what}: {error}");
    assert!(stage.gateway.log().contains(expected), "{what}");
    let [uses, other] = load.map(Load::finish);
    figure(format!(
        "faults: {}{what}: settled after {}, {} statements failed (longest {}); the policy's database {}; the other {}; \"{error}\"",
        if *latent { "once it serves: " } else { "" },
        milliseconds(settled),
        faults.0,
        milliseconds(faults.1),
        times(&uses),
        times(&other),
    ));
    stage.restore();
    uses.p99().max(other.p99())
}
