//! The policy host against good, bad and hostile components, through the store and its folder as users meet it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::*;
use crate::policy::testing::{Case, Owned};
use crate::policy::{
    Answer, Chain, Decision, Fault, Format, OnFault, Phase, ReadWriteSplit, Role, ShardId, Shards, SplitSettings,
    Target, Transaction,
};
use crate::sql::{Access, Effects, Equality, Kind, Operand};

#[allow(clippy::needless_raw_string_hashes, reason = "shared with the integration tests")]
#[path = "../../tests/hostile/mod.rs"]
mod hostile;

const TENANT_ROUTER: &[u8] = include_bytes!("../../plugins/artifacts/tenant-router.wasm");

/// A folder, a store that watches it, and what the store told.
struct Fixture {
    folder: tempfile::TempDir,
    events: Arc<Mutex<Vec<PolicyEvent>>>,
    store: PolicyStore,
}

impl Fixture {
    fn start(files: &[(&str, &[u8])]) -> Self {
        Self::with(files, StoreConfig { workers: 2, ..StoreConfig::default() })
    }

    fn with(files: &[(&str, &[u8])], config: StoreConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        let events = Arc::new(Mutex::new(Vec::new()));
        let observer = {
            let events = Arc::clone(&events);
            move |event: &PolicyEvent| events.lock().push(event.clone())
        };
        let config = StoreConfig { directory: Some(folder.path().into()), ..config };
        let store = PolicyStore::start(config, Arc::new(observer)).unwrap();
        Self { folder, events, store }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// As editors and package managers do: a new file, renamed over the old.
    fn replace(&self, file: &str, bytes: &[u8]) {
        let new = self.path(&format!(".{file}.new"));
        std::fs::write(&new, bytes).unwrap();
        std::fs::rename(new, self.path(file)).unwrap();
    }

    fn chain(&self) -> Arc<Chain> {
        Arc::clone(self.store.chains().load().of("any"))
    }

    fn ask(&self, case: &Case) -> Answer {
        let chain = self.chain();
        case.ask(|query| chain.route(query))
    }

    fn role(&self) -> Role {
        role(&self.ask(&Case::of(Access::Read)))
    }

    fn status(&self, name: &str) -> Option<PolicyStatus> {
        self.store.status().into_iter().find(|status| &*status.name == name)
    }

    /// Waits for a condition; fails after ten seconds.
    #[track_caller]
    fn wait(&self, what: &str, mut holds: impl FnMut() -> bool) -> Duration {
        let began = Instant::now();
        while !holds() {
            assert!(
                began.elapsed() <= Duration::from_secs(20),
                "{what} did not come about; events: {:#?}",
                self.told()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        began.elapsed()
    }

    fn told(&self) -> Vec<String> {
        self.events.lock().iter().map(ToString::to_string).collect()
    }

    fn tells(&self, words: &str) -> usize {
        self.told().iter().filter(|event| event.contains(words)).count()
    }
}

fn role(answer: &Answer) -> Role {
    match &answer.decision {
        Decision::Route(target) => target.role,
        other => panic!("{other:?}, {:?}", answer.fault),
    }
}

fn trigger() -> Case {
    let mut case = Case::of(Access::Read);
    case.statement.kind = Kind::Notify;
    case
}

#[test]
fn the_embedded_policy_and_the_native_rule_agree() {
    let settings: &[u8] =
        b"primary_tables = [\"jobs\", \"audit.log\"]\nprimary_functions = [\"fresh\"]\nmax_lag = \"5s\"";
    let native = SplitSettings {
        primary_tables: vec!["jobs".into(), "audit.log".into()],
        primary_functions: vec!["fresh".into()],
        max_lag: Some(Duration::from_secs(5)),
    };
    let block = |read_only, serializable| Transaction::Block { read_only, serializable, first: true };
    let transactions =
        [Transaction::Idle, block(false, false), block(true, false), block(true, true), block(false, true)];
    let plain = || [Access::Read, Access::Write, Access::Unknown].map(Case::of);
    let mut cases: Vec<Case> = plain().into();
    cases.extend(plain().map(|case| case.table(None, "jobs")));
    cases.extend(plain().map(|case| case.table(Some("audit"), "log").table(None, "other")));
    cases.extend(plain().map(|case| case.table(Some("other"), "log")));
    cases.extend(plain().map(|case| case.function("fresh")));
    cases.extend((0..18).map(|bit| Case::of(Access::Read).effects(Effects(1 << bit))));
    for (files, native) in
        [(vec![], ReadWriteSplit::default()), (vec![("read-write-split.toml", settings)], ReadWriteSplit::new(native))]
    {
        let fixture = Fixture::start(&files);
        for case in &cases {
            for transaction in transactions {
                let case = case.clone().transaction(transaction);
                let answer = fixture.ask(&case);
                assert_eq!(answer.link, Some(0), "{:?}", answer.fault);
                assert_eq!(answer.decision, case.ask(|query| native.decide(query)), "{case:?}");
            }
        }
        assert_eq!(fixture.status("read-write-split").unwrap().state, PolicyState::Serving);
    }
}

#[test]
fn nothing_unloadable_ever_serves() {
    let fixture = Fixture::start(&[("p.wasm", &hostile::good(1, 0))]);
    let digest = fixture.status("p").unwrap().generation.unwrap().digest;
    for (what, bytes, words) in hostile::unloadable() {
        let before = fixture.told().len();
        fixture.replace("p.wasm", &bytes);
        fixture.wait(what, || fixture.told().len() > before);
        let told = fixture.told()[before..].join("\n");
        assert!(told.contains(words) && told.contains("p.wasm"), "{what}: {told}");
        assert!(told.contains(&format!("({digest})")) || told.contains(&digest.to_string()), "{what}: {told}");
        assert_eq!(fixture.role(), Role::Replica, "{what}");
        let status = fixture.status("p").unwrap();
        assert_eq!(status.state, PolicyState::LastGood, "{what}");
        assert_eq!(status.counts.faults, [], "{what}: no statement met it");
        fixture.store.rescan();
        fixture.store.rescan();
        assert_eq!(fixture.told().len(), before + 1, "{what}: said once");
    }
}

#[test]
fn a_damaged_copy_is_refused_or_harmless() {
    let fixture = Fixture::start(&[("p.wasm", &hostile::good(1, 0))]);
    for bytes in hostile::damaged() {
        let before = fixture.events.lock().len();
        fixture.replace("p.wasm", &bytes);
        fixture.store.rescan();
        // An empty file is waited for; what looks the same changes nothing.
        if !bytes.is_empty() && bytes != hostile::good(1, 0) {
            fixture.wait("an event", || fixture.events.lock().len() > before);
        }
        let answer = fixture.ask(&Case::of(Access::Read));
        assert!(matches!(answer.decision, Decision::Route(_) | Decision::Reject(_)));
        fixture.replace("p.wasm", &hostile::good(1, 0));
        fixture.store.rescan();
        fixture.wait("the good one", || fixture.role() == Role::Replica);
    }
}

#[test]
fn three_faults_and_the_last_good_generation_is_back() {
    for (what, bytes, kind) in hostile::latent() {
        let fixture = Fixture::start(&[("p.wasm", &hostile::good(0, 0))]);
        fixture.replace("p.wasm", &bytes);
        fixture.wait(what, || fixture.role() == Role::Replica);
        let mut faults = Vec::new();
        let mut slowest = Duration::ZERO;
        for _ in 0..10 {
            let began = Instant::now();
            let answer = fixture.ask(&trigger());
            slowest = slowest.max(began.elapsed());
            match answer.decision {
                Decision::Reject(rejection) => {
                    assert_eq!(rejection.sqlstate.as_str(), "58000");
                    faults.push(answer.fault.unwrap().1);
                }
                Decision::Route(target) => assert_eq!(target.role, Role::Primary, "{what}: the last good answers"),
                Decision::Pass => unreachable!(),
            }
        }
        let kinds: Vec<&str> = faults.iter().map(|fault: &Fault| fault.kind.as_str()).collect();
        assert_eq!(kinds, [kind; 3], "{what}: {faults:?}");
        assert!(slowest < Duration::from_millis(200), "{what}: {slowest:?}");
        fixture.wait(what, || fixture.tells("failed too often") == 1);
        fixture.wait(what, || fixture.role() == Role::Primary);
        let status = fixture.status("p").unwrap();
        assert_eq!(status.state, PolicyState::LastGood);
        fixture.store.rescan();
        assert_eq!(fixture.role(), Role::Primary, "{what}: the same content does not come back");
    }
}

#[test]
fn a_chain_that_is_held_reaches_the_last_good_generation_too() {
    let fixture = Fixture::start(&[("p.wasm", &hostile::good(0, 0))]);
    let (_, bytes, _) = hostile::latent().swap_remove(0);
    fixture.replace("p.wasm", &bytes);
    fixture.wait("swap", || fixture.role() == Role::Replica);
    let held = fixture.chain();
    let refused =
        (0..10).filter(|_| matches!(trigger().ask(|query| held.route(query)).decision, Decision::Reject(_))).count();
    assert_eq!(refused, 3);
    let answer = trigger().ask(|query| held.route(query));
    assert_eq!(role(&answer), Role::Primary);
}

#[test]
fn what_follows_a_fault_without_a_last_good_generation() {
    let (_, bytes, _) = hostile::latent().swap_remove(0);
    for (on_fault, expected) in
        [(OnFault::Reject, None), (OnFault::Primary, Some(Role::Primary)), (OnFault::Pass, Some(Role::Replica))]
    {
        let config = StoreConfig { on_fault, ..StoreConfig::default() };
        let fixture = Fixture::with(&[("p.wasm", &bytes)], config);
        for _ in 0..5 {
            let answer = fixture.ask(&trigger());
            let found = match answer.decision {
                Decision::Route(target) => Some(target.role),
                _ => None,
            };
            assert_eq!(found, expected, "{on_fault:?}");
            assert!(answer.fault.is_some());
        }
        fixture.wait("status", || fixture.status("p").unwrap().state == PolicyState::Broken);
    }
}

#[test]
fn broken_at_the_start_is_a_link_that_faults() {
    let fixture = Fixture::start(&[("p.wasm", b"nonsense")]);
    assert!(matches!(fixture.ask(&Case::of(Access::Read)).decision, Decision::Reject(_)));
    assert_eq!(fixture.status("p").unwrap().state, PolicyState::Broken);
    assert_eq!(fixture.tells("no earlier version"), 1);
    // One that appears later and is broken changes nothing.
    fixture.replace("p.wasm", &hostile::good(0, 0));
    fixture.wait("repair", || matches!(fixture.ask(&Case::of(Access::Read)).decision, Decision::Route(_)));
    fixture.replace("a.wasm", b"nonsense");
    fixture.wait("report", || fixture.status("a").is_some());
    assert_eq!(fixture.status("a").unwrap().state, PolicyState::Refused);
    assert_eq!(fixture.role(), Role::Primary);
}

#[test]
fn swaps_take_effect_however_files_are_written() {
    let fixture = Fixture::start(&[]);
    assert_eq!(fixture.role(), Role::Replica, "the built-in policy");
    let (primary, replica) = (hostile::good(0, 0), hostile::good(1, 0));

    fixture.replace("p.wasm", &primary);
    fixture.wait("rename, a new file", || fixture.role() == Role::Primary);
    fixture.replace("p.wasm", &replica);
    fixture.wait("rename over", || fixture.role() == Role::Replica);

    // Truncate, write in pieces with pauses shorter than the quiet time.
    {
        use std::io::Write as _;
        let mut file = std::fs::File::create(fixture.path("p.wasm")).unwrap();
        for piece in primary.chunks(primary.len() / 5 + 1) {
            file.write_all(piece).unwrap();
            file.flush().unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    fixture.wait("truncate and write", || fixture.role() == Role::Primary);
    assert_eq!(fixture.tells("not loaded"), 0);

    // A half-written file that keeps still is refused, and the rest of it is taken.
    std::fs::write(fixture.path("p.wasm"), &replica[..replica.len() / 2]).unwrap();
    fixture.wait("half a file", || fixture.tells("not loaded") == 1);
    assert_eq!(fixture.role(), Role::Primary);
    std::fs::write(fixture.path("p.wasm"), &replica).unwrap();
    fixture.wait("the whole file", || fixture.role() == Role::Replica);

    std::fs::write(fixture.path("p.wasm"), b"").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(fixture.role(), Role::Replica, "an empty file is no removal");
    assert!(fixture.status("p").is_some());

    std::fs::write(fixture.path("p.wasm"), &primary).unwrap();
    fixture.wait("written again", || fixture.role() == Role::Primary);
    std::fs::remove_file(fixture.path("p.wasm")).unwrap();
    fixture.wait("removal", || fixture.role() == Role::Replica && fixture.status("p").is_none());
    assert_eq!(fixture.tells("removed"), 1);
}

/// The files are links into `..data`, which is itself a link that kubelet renames over.
#[test]
fn a_config_map_swap() {
    let folder = tempfile::tempdir().unwrap();
    let version = |number: u32, role: u32| {
        let directory = folder.path().join(format!("..2024_{number}"));
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("p.wasm"), hostile::good(role, number)).unwrap();
        directory
    };
    let point = |to: &Path| {
        let new = folder.path().join("..data_tmp");
        std::os::unix::fs::symlink(to, &new).unwrap();
        std::fs::rename(new, folder.path().join("..data")).unwrap();
    };
    point(&version(1, 0));
    std::os::unix::fs::symlink("..data/p.wasm", folder.path().join("p.wasm")).unwrap();
    let config = StoreConfig { directory: Some(folder.path().into()), ..StoreConfig::default() };
    let store = PolicyStore::start(config, Arc::new(|_| {})).unwrap();
    let asked = || {
        let chain = Arc::clone(store.chains().load().of("any"));
        role(&Case::of(Access::Read).ask(|query| chain.route(query)))
    };
    assert_eq!(asked(), Role::Primary);
    point(&version(2, 1));
    std::fs::remove_dir_all(folder.path().join("..2024_1")).unwrap();
    let began = Instant::now();
    while asked() != Role::Replica {
        assert!(began.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn settings_are_part_of_the_unit() {
    let fixture = Fixture::start(&[]);
    let jobs = Case::of(Access::Read).table(None, "jobs");
    let asked = || role(&fixture.ask(&jobs));
    assert_eq!(asked(), Role::Replica);
    fixture.replace("read-write-split.toml", b"primary_tables = [\"jobs\"]");
    fixture.wait("settings appear", || asked() == Role::Primary);
    fixture.replace("read-write-split.toml", b"primary_tables = [\n");
    fixture.wait("malformed", || fixture.tells("read-write-split.toml: line ") == 1);
    assert_eq!(asked(), Role::Primary);
    fixture.replace("read-write-split.toml", b"primary_table = [\"jobs\"]");
    fixture.wait("unknown", || fixture.tells("`primary_table` is not a setting") == 1);
    assert_eq!(asked(), Role::Primary);
    std::fs::remove_file(fixture.path("read-write-split.toml")).unwrap();
    fixture.wait("settings go", || asked() == Role::Replica);
}

#[test]
fn a_policy_that_a_database_names_outlives_its_file() {
    let chains = BTreeMap::from([("app".into(), vec!["p".into(), "read-write-split".into()])]);
    let fixture = Fixture::with(&[("p.wasm", &hostile::good(0, 0))], StoreConfig { chains, ..StoreConfig::default() });
    std::fs::remove_file(fixture.path("p.wasm")).unwrap();
    fixture.wait("notice", || fixture.tells("its file is gone") == 1);
    let of = |database: &str| {
        let chain = Arc::clone(fixture.store.chains().load().of(database));
        role(&Case::of(Access::Read).ask(|query| chain.route(query)))
    };
    assert_eq!(of("app"), Role::Primary);
    assert_eq!(of("other"), Role::Replica, "the folder's own chain has it no more");
    // A name that never had a file faults; it is not skipped.
    let chains = BTreeMap::from([("app".into(), vec!["missing".into()])]);
    let config = StoreConfig { chains, directory: Some(fixture.folder.path().into()), ..StoreConfig::default() };
    fixture.store.reconfigure(config);
    let chain = Arc::clone(fixture.store.chains().load().of("app"));
    let answer = Case::of(Access::Read).ask(|query| chain.route(query));
    assert!(matches!(answer.decision, Decision::Reject(_)), "{answer:?}");
}

#[test]
fn a_transaction_keeps_its_generation() {
    let fixture = Fixture::start(&[("p.wasm", &hostile::good(0, 0))]);
    let held = fixture.chain();
    fixture.replace("p.wasm", &hostile::good(1, 0));
    fixture.wait("swap", || fixture.role() == Role::Replica);
    assert_eq!(role(&Case::of(Access::Read).ask(|query| held.route(query))), Role::Primary);
}

#[test]
fn an_instance_that_leaks_is_replaced_before_it_fails() {
    let fixture = Fixture::start(&[("p.wasm", &hostile::leaking())]);
    for _ in 0..1000 {
        assert_eq!(fixture.role(), Role::Replica);
    }
    let counts = fixture.status("p").unwrap().counts;
    assert_eq!((counts.asked, counts.faults.len()), (1000, 0));
    assert!(counts.recycled >= 3, "{counts:?}");
}

/// Two policies in turn, as the second point swaps them; asked from two threads all the while.
#[test]
fn known_policies_swap_within_the_quiet_time_and_a_little() {
    let two = [hostile::good(0, 0), hostile::good(1, 0)];
    let fixture = Fixture::start(&[("p.wasm", &two[0])]);
    let roles = [Role::Primary, Role::Replica];
    let mut times = Vec::new();
    for turn in 1..21 {
        fixture.replace("p.wasm", &two[turn % 2]);
        times.push(fixture.wait("swap", || fixture.role() == roles[turn % 2]));
    }
    times.sort();
    println!("swaps: first compiled {:?}; median {:?}, slowest known {:?}", times[19], times[10], times[18]);
    assert!(times[10] < Duration::from_millis(300), "{times:?}");
}

struct Tenants(Fixture);

impl Tenants {
    fn new(settings: &str) -> Self {
        let config = StoreConfig::default();
        Self(Fixture::with(
            &[("tenant-router.wasm", TENANT_ROUTER), ("tenant-router.toml", settings.as_bytes())],
            config,
        ))
    }

    #[track_caller]
    fn check(&self, case: &Case, expected: Result<(Role, Shards), &str>) {
        let answer = self.0.ask(case);
        assert!(answer.fault.is_none(), "{case:?}: {answer:?}, {:?}", self.0.told());
        match (&answer.decision, expected) {
            (Decision::Route(Target { role, shards, .. }), Ok(expected)) => {
                assert_eq!((*role, shards.clone()), expected, "{case:?}");
            }
            (Decision::Reject(rejection), Err(words)) => {
                let told = format!("{} {} {:?}", rejection.sqlstate, rejection.message, rejection.hint);
                assert!(told.contains(words), "{told}, wanted {words}; {case:?}");
            }
            (found, expected) => panic!("{found:?}, wanted {expected:?}; {case:?}"),
        }
    }
}

/// A statement on one table whose key column equals a value.
fn tenant(access: Access, values: &[Operand]) -> Case {
    let mut case = Case::of(access).table(None, "orders");
    let equality = |value: &Operand| Equality { table: Some(0), column: "tenant_id".into(), value: value.clone() };
    case.statement.equalities = values.iter().map(equality).collect();
    case.fingerprint = 100 + values.len() as u128 + 10 * access as u128;
    case
}

/// The same with literals.
fn literal(access: Access, literals: &[&str]) -> Case {
    let operands: Vec<Operand> =
        (0..literals.len()).map(|index| Operand::Literal(u16::try_from(index).unwrap())).collect();
    let mut case = tenant(access, &operands);
    case.text.clear();
    for literal in literals {
        let start = u32::try_from(case.text.len()).unwrap();
        case.text.extend_from_slice(literal.as_bytes());
        case.literals.push((start, u32::try_from(case.text.len()).unwrap()));
    }
    case
}

fn bound(format: Format, oid: u32, value: Option<&[u8]>) -> Case {
    let mut case = tenant(Access::Read, &[Operand::Parameter(1)]);
    case.phase = Phase::Bind;
    case.parameters = vec![Owned(format, oid, value.map(Into::into))];
    case.fingerprint = 999;
    case
}

const S0: Shards = Shards::One(ShardId(0));
const S1: Shards = Shards::One(ShardId(1));

#[test]
fn tenants_by_text() {
    let tenants = Tenants::new(
        "columns = [\"tenant_id\"]\nglobal = [\"countries\"]\n[tenants]\nacme = \"s0\"\nglobex = \"s1\"\nlost = \"s9\"",
    );
    let read = Access::Read;
    let session = |case: Case, tenant: &str| Case { attributes: vec![("tenant".into(), tenant.into())], ..case };
    let no_key = || Case { fingerprint: 7, ..Case::of(Access::Read).table(None, "orders") };
    let mut join = literal(read, &["'acme'"]).table(None, "items");
    join.fingerprint = 8;
    let mut unsure = literal(read, &["'acme'"]);
    unsure.statement.equalities[0].table = None;
    unsure.fingerprint = 9;
    let global = |access| Case { fingerprint: 20 + access as u128, ..Case::of(access).table(None, "countries") };
    let parse = Case { phase: Phase::Parse, ..tenant(read, &[Operand::Parameter(1)]) };
    let parse = Case { fingerprint: 30, ..parse };
    let mut opaque = Case { fingerprint: 31, ..Case::of(Access::Unknown) };
    opaque.statement.understood = crate::sql::Understood::Lexed;
    let mut set = opaque.clone();
    set.statement.kind = Kind::Set;
    set.fingerprint = 32;
    let mut null = tenant(Access::Write, &[Operand::Constant("NULL".into())]);
    null.fingerprint = 33;
    for (case, expected) in [
        (literal(read, &["'acme'"]), Ok((Role::Replica, S0))),
        (literal(read, &["'globex'"]), Ok((Role::Replica, S1))),
        (literal(Access::Write, &["'globex'"]), Ok((Role::Primary, S1))),
        (literal(Access::Write, &["'globex'", "'globex'"]), Ok((Role::Primary, S1))),
        (literal(Access::Write, &["'globex'", "'acme'"]), Err("0A000 the statement concerns two tenants")),
        (literal(read, &["'nobody'"]), Err("42704 tenant \"nobody\" has no shard")),
        (literal(read, &["'lost'"]), Err("42704 the cluster has no shard \"s9\"")),
        (
            no_key(),
            Err("0A000 the statement does not say which tenant's rows of \"orders\" it means Some(\"Compare tenant_id"),
        ),
        (session(no_key(), "globex"), Ok((Role::Replica, S1))),
        (session(literal(read, &["'acme'"]), "acme"), Ok((Role::Replica, S0))),
        (session(literal(read, &["'acme'"]), "globex"), Err("concerns two tenants")),
        (session(no_key(), ""), Err("0A000")),
        (join.clone(), Err("rows of \"items\"")),
        (session(join, "acme"), Ok((Role::Replica, S0))),
        (unsure.clone(), Err("rows of \"orders\"")),
        (session(unsure, "globex"), Err("concerns two tenants")),
        (global(read), Ok((Role::Replica, Shards::Default))),
        (session(global(read), "globex"), Ok((Role::Replica, S1))),
        (global(Access::Write), Ok((Role::Primary, Shards::All))),
        (parse, Ok((Role::Replica, Shards::Default))),
        (opaque.clone(), Err("it cannot be told")),
        (session(opaque, "globex"), Ok((Role::Primary, S1))),
        (set, Ok((Role::Primary, Shards::Default))),
        (null, Err("the tenant is NULL")),
        (bound(Format::Text, 25, Some(b"globex")), Ok((Role::Replica, S1))),
        (bound(Format::Binary, 25, Some(b"globex")), Ok((Role::Replica, S1))),
        (bound(Format::Binary, 1700, Some(b"\0\0")), Err("cannot be read")),
        (bound(Format::Text, 25, None), Err("NULL")),
    ] {
        tenants.check(&case, expected);
    }
}

#[test]
fn tenants_by_number_and_uuid() {
    let uuid = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    let bytes = crate::policy::value::parse_uuid(uuid).unwrap();
    let int = Tenants::new("columns = [\"tenant_id\"]\ntype = \"int\"\ndefault = \"s0\"\n[tenants]\n42 = \"s1\"");
    let by_uuid = Tenants::new(&format!("columns = [\"tenant_id\"]\ntype = \"uuid\"\n[tenants]\n{uuid} = \"s1\""));
    for (tenants, case, expected) in [
        (&int, literal(Access::Read, &["42"]), Ok((Role::Replica, S1))),
        (&int, literal(Access::Read, &["'042'"]), Ok((Role::Replica, S1))),
        (&int, literal(Access::Read, &["7"]), Ok((Role::Replica, S0))),
        (&int, literal(Access::Read, &["4.2"]), Err("22023")),
        (&int, bound(Format::Binary, 23, Some(&[0, 0, 0, 42])), Ok((Role::Replica, S1))),
        (&int, bound(Format::Binary, 20, Some(&[0, 0, 0, 0, 0, 0, 0, 42])), Ok((Role::Replica, S1))),
        (&int, bound(Format::Text, 0, Some(b" 42")), Ok((Role::Replica, S1))),
        (&int, bound(Format::Binary, 0, Some(&[0, 0, 0, 42])), Err("cannot be read")),
        (&by_uuid, bound(Format::Binary, 2950, Some(&bytes)), Ok((Role::Replica, S1))),
        (&by_uuid, literal(Access::Read, &["'{A0EEBC999C0B4EF8BB6D6BB9BD380A11}'"]), Ok((Role::Replica, S1))),
        (&by_uuid, literal(Access::Read, &["'nonsense'"]), Err("22023")),
    ] {
        tenants.check(&case, expected);
    }
}

#[test]
fn tenants_by_hash_and_bad_settings() {
    let tenants = Tenants::new("columns = [\"tenant_id\"]\ntype = \"int\"\nhash = [\"s0\", \"s1\"]");
    for number in 0..50_i64 {
        let shard = u32::try_from(crate::policy::hash::partition_int(number) % 2).unwrap();
        let case = literal(Access::Read, &[&number.to_string()]);
        tenants.check(&case, Ok((Role::Replica, Shards::One(ShardId(shard)))));
    }
    for (settings, words) in [
        ("", "`columns` must name at least one"),
        ("columns = \"x\"", "`columns` must be a list"),
        ("columns = [\"x\"]\ntype = \"float\"", "must be \"int\", \"text\" or \"uuid\""),
        ("columns = [\"x\"]\ntype = \"int\"\n[tenants]\nacme = \"s0\"", "\"acme\" is not of type int"),
        ("columns = [\"x\"]\nhash = [\"s0\"]\n[tenants]\na = \"s0\"", "exclude each other"),
        ("columns = [\"x\"]\ncolour = 1", "`colour` is not a setting"),
    ] {
        let before = tenants.0.told().len();
        tenants.0.replace("tenant-router.toml", settings.as_bytes());
        tenants.0.wait(settings, || tenants.0.told().len() > before);
        let told = tenants.0.told()[before..].join("\n");
        assert!(told.contains(words) && told.contains("tenant-router.toml"), "{told}");
    }
}
