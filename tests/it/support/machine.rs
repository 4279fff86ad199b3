//! Tells when the machine itself stood still, so that a test which failed then can be told from one that fails.
//!
//! Tests measure: that a flood leaves another user's statements below three seconds, that no replica was unfit. On a
//! virtual machine that is paused, or whose disk does not answer, such a measure says nothing. A thread looks for three
//! signs: that it is woken late, `steal` of proc(5), and `full` of the kernel's pressure stall information. Each goes to
//! standard error and to the file that `POINTSMAN_TEST_DISTURBANCES` names; `scripts/test.sh` reads it.

use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime};

/// How often the thread looks.
const LOOK: Duration = Duration::from_millis(20);
/// Over how long each sign is counted.
const WINDOW: Duration = Duration::from_secs(1);
/// What part of a window makes a sign. In a quiet run of the whole suite on two cores each stays below 0.15.
const PART: f64 = 0.3;

/// Starts the thread. It lives as long as the process.
pub(super) fn watch() {
    std::thread::Builder::new().name("machine".to_owned()).spawn(look).expect("a thread can be started");
}

fn look() {
    let (mut last, mut last_wall) = (Instant::now(), SystemTime::now());
    let (mut window, mut late, mut stolen, mut waited) = (last, Duration::ZERO, stolen_seconds(), waited_seconds());
    loop {
        std::thread::sleep(LOOK);
        // The monotonic clock of a machine that was paused may go on where it was.
        let (now, wall) = (Instant::now(), SystemTime::now());
        let gap = (now - last).max(wall.duration_since(last_wall).unwrap_or_default());
        (last, last_wall) = (now, wall);
        late += gap.saturating_sub(LOOK);
        let length = now - window;
        if length < WINDOW && late.as_secs_f64() <= PART {
            continue;
        }
        let (stolen_now, waited_now) = (stolen_seconds(), waited_seconds());
        let more = |now: Option<f64>, before: Option<f64>| now.zip(before).map(|(now, before)| now - before);
        for (seconds, what) in [
            (Some(late.as_secs_f64()), "a thread that sleeps was woken late, in all"),
            (more(stolen_now, stolen), "the processors were given to other machines for"),
            (more(waited_now, waited), "all that had work waited for the disk for"),
        ] {
            if let Some(seconds) = seconds.filter(|seconds| *seconds > PART * length.as_secs_f64()) {
                tell(&format!("{what} {seconds:.1} s of {:.1} s", length.as_secs_f64()));
            }
        }
        (window, late, stolen, waited) = (now, Duration::ZERO, stolen_now, waited_now);
    }
}

/// Seconds of processor time, over all processors, that went to other machines. None where the kernel does not say.
fn stolen_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let ticks: f64 = text.lines().next()?.split_whitespace().nth(8)?.parse().ok()?;
    // USER_HZ is 100 on every architecture that the tests run on.
    Some(ticks / 100.0)
}

/// Seconds in which all that had work waited for the disk (the kernel's `Documentation/accounting/psi.rst`). None where
/// the kernel does not say.
fn waited_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/pressure/io").ok()?;
    let full = text.lines().find(|line| line.starts_with("full"))?;
    let micros: f64 = full.rsplit_once("total=")?.1.parse().ok()?;
    Some(micros / 1e6)
}

fn tell(what: &str) {
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() % 86_400;
    let line = format!("{:02}:{:02}:{:02} UTC {what}\n", clock / 3600, clock / 60 % 60, clock % 60);
    // Not through `eprintln!`: the harness would keep that for the end.
    let _ = std::io::stderr().write_all(format!("machine: {line}").as_bytes());
    if let Some(path) = std::env::var_os("POINTSMAN_TEST_DISTURBANCES") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}
