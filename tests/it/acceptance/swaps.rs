//! Policies swapped under load: nothing fails, and the new one serves at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Load, Probe, WHERE, ask, components, either, figure, fill, milliseconds, percentile, probe, role_of};
use crate::support::{Gateway, POLICIES, Raw, database, direct, eventually};

/// Clients of pgbench, and those that ask which node they are on.
const CLIENTS: usize = 16;
const PROBERS: usize = 3;
/// Between two questions of a prober.
const PAUSE: Duration = Duration::from_millis(1);

/// A policy was put in place of another between these moments.
struct Swap {
    before: Instant,
    after: Instant,
    role: u32,
}

/// What the probers saw while `script` swapped policies under pgbench for at most so many seconds.
fn under_load(
    label: &str,
    seconds: u64,
    script: impl FnOnce(&Gateway<'_>, &str) -> Vec<Swap>,
) -> (Vec<Swap>, Vec<Probe>) {
    let database = database(label);
    let gateway = Gateway::setup().more(POLICIES).policy("p", &components::reads(0, 0)).start();
    fill(&gateway, &database);
    let stop = AtomicBool::new(false);
    let mixed = ["-b", "tpcb-like@1", "-b", "select-only@4", "-M", "prepared", "-T", &seconds.to_string()];
    let load = Load::start(&gateway, &database, CLIENTS, &mixed);
    let (swaps, probes) = thread::scope(|scope| {
        let probers: Vec<_> =
            (0..PROBERS).map(|_| scope.spawn(|| probe(gateway.port, &database, PAUSE, &stop))).collect();
        let swaps = script(&gateway, &database);
        stop.store(true, Ordering::Relaxed);
        let mut probes: Vec<_> = probers.into_iter().flat_map(|prober| prober.join().unwrap()).collect();
        probes.sort_unstable_by_key(|probe| probe.begun);
        (swaps, probes)
    });
    let told = gateway.log();
    let took = told
        .lines()
        .filter_map(|line| line.rsplit_once(") in ").or_else(|| line.rsplit_once(" in "))?.1.strip_suffix(" ms"));
    let took: Vec<u64> = took.filter_map(|took| took.parse().ok()).collect();
    figure(format!(
        "{label}: loading a policy took at most {} ms by the gateway's log",
        took.iter().max().unwrap_or(&0)
    ));
    let transactions = load.finish().latencies.len();
    figure(format!("{label}: pgbench -c {CLIENTS}: {transactions} transactions, none failed; {} probes", probes.len()));
    assert!(probes.iter().all(|probe| probe.node.is_ok()), "a prober's transaction failed");
    (swaps, probes)
}

/// Waits until the policy that sends reads to `role` serves, and a moment more.
fn serves(gateway: &Gateway<'_>, database: &str, role: u32) {
    let mut raw = Raw::log_in(gateway.port, "demo", database);
    eventually("a policy to serve", || role_of(&ask(&mut raw, WHERE).unwrap()) == role);
    thread::sleep(Duration::from_millis(100));
}

fn role(probe: &Probe) -> u32 {
    role_of(probe.node.as_deref().unwrap_or_default())
}

#[test]
fn a_swap_to_a_known_policy_takes_effect_at_once() {
    if direct() {
        return;
    }
    // The promise; and what a machine that does much else at once must still do.
    let bound = Duration::from_millis(either(600, 100));
    // One hundred milliseconds each on average. Uneven, for with even ones either policy would be right at any time.
    let pauses = either([700, 700, 1100], [80, 80, 140]).map(Duration::from_millis);
    let count = either(6, 200);
    let (swaps, probes) = under_load("swaps", either(6, 22), |gateway, database| {
        let known = [components::reads(0, 0), components::reads(1, 0)];
        for (role, policy) in [(1, &known[1]), (0, &known[0])] {
            gateway.replace_policy("p", policy);
            serves(gateway, database, role);
        }
        let began = Instant::now();
        let swap = |number: usize| {
            let role = 1 - number % 2;
            let (before, after) = gateway.replace_policy("p", &known[role]);
            thread::sleep(pauses[number % 3].saturating_sub(after.elapsed()));
            Swap { before, after, role: role as u32 }
        };
        let swaps: Vec<Swap> = (0..count).map(swap).collect();
        thread::sleep(bound);
        figure(format!("swaps: {count} in {:.1} s", began.elapsed().as_secs_f64()));
        swaps
    });
    // The old policy is right until `bound` after the swap, the new one from the swap on.
    let late = |probe: &&Probe| {
        let last = swaps.iter().rposition(|swap| swap.before <= probe.ended);
        let Some(last) = last else { return false };
        let right = (0..=last).any(|index| {
            let replaced = swaps.get(index + 1).map(|next| next.after + bound);
            swaps[index].role == role(probe) && replaced.is_none_or(|replaced| probe.begun <= replaced)
        });
        !right && swaps[0].after + bound < probe.begun
    };
    let violations: Vec<String> = probes
        .iter()
        .filter(late)
        .map(|probe| {
            let index = swaps.iter().rposition(|swap| swap.after <= probe.begun).unwrap_or(0);
            format!("swap {index} + {}", milliseconds(probe.begun - swaps[index].after))
        })
        .collect();
    // How old the swap was when the last transaction under the old policy began, before the next swap.
    let mut delays = Vec::new();
    let mut judged = 0;
    for (index, swap) in swaps.iter().enumerate() {
        let next = swaps.get(index + 1).map_or(swap.after + bound * 2, |next| next.before);
        let during: Vec<&Probe> =
            probes.iter().filter(|probe| probe.begun > swap.after && probe.ended < next).collect();
        judged += during.iter().filter(|probe| probe.begun > swap.after + bound).count();
        if during.iter().any(|probe| role(probe) == swap.role) {
            let old = during.iter().rev().find(|probe| role(probe) != swap.role);
            delays.push(old.map_or(Duration::ZERO, |old| old.begun - swap.after));
        }
    }
    delays.sort_unstable();
    figure(format!(
        "swaps: {} of {count} seen before the next; the old policy's last transaction began after it: median {}, p99 {}, most {}",
        delays.len(),
        milliseconds(percentile(&delays, 0.5)),
        milliseconds(percentile(&delays, 0.99)),
        milliseconds(percentile(&delays, 1.0)),
    ));
    figure(format!(
        "swaps: {judged} probes began more than {} after a swap, {} of them under the old policy",
        milliseconds(bound),
        violations.len()
    ));
    assert!(violations.is_empty(), "under the old policy later than {bound:?}: {violations:?}");
    assert!(judged >= either(20, 200), "{judged} transactions are too few to judge by");
    assert!(delays.len() * 10 >= count * 9, "{} of {count} swaps were seen", delays.len());
}

#[test]
fn a_policy_never_seen_is_taken_up_within_half_a_second() {
    if direct() {
        return;
    }
    let rounds = either(2, 20);
    let shipped = include_bytes!("../../../plugins/artifacts/read-write-split.wasm");
    // Half a second is promised for the small one. The other is more than twice as large and compiles for as much longer.
    let kinds: [(&str, u64, Vec<Vec<u8>>); 2] = [
        ("21 KB", 500, (0..rounds).map(|round| components::sized(1, round, 21 << 10)).collect()),
        ("the shipped one", 1500, (0..rounds).map(|round| components::salted(shipped, round)).collect()),
    ];
    for (what, bound, policies) in kinds.into_iter().take(either(1, 2)) {
        let bound = Duration::from_millis(either(5000, bound));
        let sizes: Vec<usize> = policies.iter().map(Vec::len).collect();
        let (swaps, probes) = under_load("unseen", either(10, 30), |gateway, database| {
            let mut swaps = Vec::new();
            for policy in &policies {
                let (before, after) = gateway.replace_policy("p", policy);
                swaps.push(Swap { before, after, role: 1 });
                serves(gateway, database, 1);
                gateway.replace_policy("p", &components::reads(0, 0));
                serves(gateway, database, 0);
            }
            swaps
        });
        let mut delays: Vec<Duration> = Vec::new();
        for swap in &swaps {
            let first = probes.iter().find(|probe| probe.begun > swap.after && role(probe) == swap.role);
            let first = first.unwrap_or_else(|| panic!("{what}: it never served"));
            let old = probes.iter().rev().find(|probe| probe.begun < first.begun && probe.begun > swap.before);
            delays.push(old.map_or(Duration::ZERO, |old| old.begun.saturating_duration_since(swap.after)));
        }
        delays.sort_unstable();
        figure(format!(
            "unseen, {what}, {} bytes: the old policy's last transaction began after the rename: median {}, most {} ({} times)",
            sizes.first().unwrap_or(&0),
            milliseconds(percentile(&delays, 0.5)),
            milliseconds(percentile(&delays, 1.0)),
            delays.len()
        ));
        assert!(delays.last().is_some_and(|most| *most <= bound), "{what}: {delays:?}");
    }
}
