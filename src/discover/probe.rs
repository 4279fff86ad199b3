//! The question that a node is asked, and its answer.
//!
//! Invariant: one round trip, no right beyond `CONNECT`, the same text on primaries and standbys of versions 13 to 18.
//! Deliberately absent: what follows from an answer.
//!
//! The timeline has no function of its own. A primary names it in the first eight digits of a segment's name
//! (`pg_walfile_name`, `GetWALInsertionTimeLine` in `xlogfuncs.c`; a standby refuses that function). A standby follows the
//! timeline that its receiver asks for (`pg_stat_wal_receiver.received_tli`), which only `pg_read_all_stats` may see; its
//! control file is open to all and may name an earlier one until the next restartpoint. An earlier one only makes the
//! standby seem not to have what it has. `pg_control_checkpoint` of a primary is of no use: after a promotion it names the
//! old timeline until the first checkpoint.

use std::time::Duration;

use crate::topology::{Lsn, Position};
use crate::upstream::Column;

/// Seven columns: recovery, server start, timeline, position, durable or received position, replay age, receiver.
///
/// On a primary: the timeline in 8 digits, the position's offset in its segment, and the size of a page, parted by colons;
/// insert position (bounds every commit acknowledged before, also one with `synchronous_commit = off`); flush position
/// (what standbys can have).
/// On a standby: the timeline in decimal, replay position, receive position, seconds since the commit of the last
/// transaction replayed, whether a receiver runs.
pub(super) const FULL: &str = "SELECT r, \
    EXTRACT(epoch FROM pg_catalog.pg_postmaster_start_time()), \
    CASE WHEN r THEN GREATEST(\
        (SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver), \
        (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()), \
        (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()))::text \
        ELSE (SELECT pg_catalog.concat(pg_catalog.substr(file_name, 1, 8), ':', file_offset, ':', \
            pg_catalog.current_setting('wal_block_size')) FROM pg_catalog.pg_walfile_name_offset(p)) END, \
    p, \
    CASE WHEN r THEN pg_catalog.pg_last_wal_receive_lsn() ELSE pg_catalog.pg_current_wal_flush_lsn() END, \
    CASE WHEN r THEN EXTRACT(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp()) END, \
    CASE WHEN r THEN EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver) END \
    FROM (SELECT r, CASE WHEN r THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_insert_lsn() END \
        FROM (SELECT pg_catalog.pg_is_in_recovery() OFFSET 0) AS _ (r) OFFSET 0) AS _ (r, p)";

/// What a standby is asked while somebody waits for it: recovery and replay position.
pub(super) const REPLAYED: &str = "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.pg_last_wal_replay_lsn()";

/// What a primary is asked while tickets wait: timeline and position as in [`FULL`], both NULL on a standby.
pub(super) const INSERTED: &str = "SELECT pg_catalog.concat(pg_catalog.substr(file_name, 1, 8), ':', file_offset, ':', \
    pg_catalog.current_setting('wal_block_size')), p \
    FROM (SELECT CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_wal_insert_lsn() END OFFSET 0) \
        AS _ (p), LATERAL pg_catalog.pg_walfile_name_offset(p)";

/// What the names in a question mean, the operators and types above all: whoever had a borrowed connection last may have put his
/// own ahead of PostgreSQL's, as an account or a database may have. A temporary schema that is not named would be searched first.
pub(super) const SEARCH_PATH: &str = "search_path = pg_catalog, pg_temp";

/// Around a question on a borrowed connection: its client may have left `default_transaction_isolation` at serializable,
/// which a standby refuses.
pub(super) const PLAIN_BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL jit = off";
/// The other end of [`PLAIN_BEGIN`].
pub(super) const PLAIN_END: &str = "COMMIT";

/// What a node said of itself.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Report {
    /// `pg_postmaster_start_time`, as text: another text is another run of the server.
    pub(super) started: String,
    pub(super) state: State,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum State {
    Primary {
        /// Where its log ends.
        inserted: Position,
        /// What it may have sent.
        flushed: Lsn,
    },
    Standby {
        /// 0: not known.
        timeline: u32,
        /// `None`: nothing replayed yet.
        replayed: Option<Lsn>,
        words: Words,
    },
}

/// What a standby says of its own lag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Words {
    /// A receiver runs, and all that it received is replayed.
    pub(super) caught_up: bool,
    /// Since the commit of the last transaction replayed.
    pub(super) age: Option<Duration>,
}

/// Reads the row that [`FULL`] brings.
pub(super) fn report(row: &[Column]) -> Option<Report> {
    let [recovery, started, timeline, position, second, age, receiver] = row else { return None };
    let position = position.as_deref().and_then(Lsn::parse);
    let second = second.as_deref().and_then(Lsn::parse);
    let timeline = timeline.as_deref();
    let state = match recovery.as_deref()? {
        "f" => State::Primary { inserted: end_of_records(timeline?, position?)?, flushed: second? },
        "t" => {
            let timeline = timeline.and_then(|timeline| timeline.parse().ok()).unwrap_or(0);
            let connected = receiver.as_deref() == Some("t");
            let caught_up = connected && second.is_some() && position >= second;
            let age = age.as_deref().and_then(|age| age.parse::<f64>().ok());
            // A standby's clock that is behind its primary's makes ages negative.
            let age = age.and_then(|age| Duration::try_from_secs_f64(age.max(0.0)).ok());
            State::Standby { timeline, replayed: position, words: Words { caught_up, age } }
        }
        _ => return None,
    };
    Some(Report { started: started.clone()?, state })
}

/// The position that a standby reaches which has replayed every record before the insert position `lsn`; `place` is the
/// timeline, the offset in the segment and the size of a page, as [`FULL`] brings them.
///
/// Where the last record ends with its page, the insert position is behind the next page's header (24 bytes; 40 at the start
/// of a segment: `xlog_internal.h`), and a standby stays before it until another record comes: for ever, if the primary
/// is idle.
fn end_of_records(place: &str, lsn: Lsn) -> Option<Position> {
    const SHORT_HEADER: u64 = 24;
    const LONG_HEADER: u64 = 40;
    let mut parts = place.split(':');
    let timeline = u32::from_str_radix(parts.next()?, 16).ok()?;
    let (offset, page): (u64, u64) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let header = match offset {
        LONG_HEADER => LONG_HEADER,
        _ if page != 0 && offset % page == SHORT_HEADER => SHORT_HEADER,
        _ => 0,
    };
    Some(Position { timeline, lsn: Lsn(lsn.0.saturating_sub(header)) })
}

/// Reads the row that [`INSERTED`] brings; `None` also if the node is no primary any more.
pub(super) fn inserted(row: &[Column]) -> Option<Position> {
    match row {
        [Some(place), Some(lsn)] => end_of_records(place, Lsn::parse(lsn)?),
        _ => None,
    }
}

/// Reads the row that [`REPLAYED`] brings; `None` also if the node is no standby any more.
pub(super) fn replayed(row: &[Column]) -> Option<Lsn> {
    match row {
        [Some(recovery), Some(lsn)] if recovery == "t" => Lsn::parse(lsn),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_as_the_servers_write_them() {
        let check = |row: &[&str], expected: Option<State>| {
            let row: Vec<Column> = row.iter().map(|column| (*column != "-").then(|| (*column).to_owned())).collect();
            assert_eq!(report(&row).map(|report| report.state), expected, "{row:?}");
        };
        let inserted = |timeline, lsn| Position { timeline, lsn: Lsn(lsn) };
        check(
            &["f", "1.5", "0000001A:48:8192", "0/30", "0/20", "-", "-"],
            Some(State::Primary { inserted: inserted(26, 0x30), flushed: Lsn(0x20) }),
        );
        // Behind the header of a segment's first page, and of another page.
        check(
            &["f", "1.5", "0000001A:40:8192", "1/2000028", "1/2000000", "-", "-"],
            Some(State::Primary { inserted: inserted(26, 0x1_0200_0000), flushed: Lsn(0x1_0200_0000) }),
        );
        check(
            &["f", "1.5", "0000001A:8216:8192", "1/2002018", "1/2000000", "-", "-"],
            Some(State::Primary { inserted: inserted(26, 0x1_0200_2000), flushed: Lsn(0x1_0200_0000) }),
        );
        check(
            &["f", "1.5", "0000001A:8232:8192", "1/2002028", "1/2000000", "-", "-"],
            Some(State::Primary { inserted: inserted(26, 0x1_0200_2028), flushed: Lsn(0x1_0200_0000) }),
        );
        check(&["f", "1.5", "0000001A", "0/30", "0/20", "-", "-"], None);
        let standby = |timeline, replayed: u64, caught_up, age: Option<u64>| {
            let words = Words { caught_up, age: age.map(Duration::from_millis) };
            Some(State::Standby { timeline, replayed: Some(Lsn(replayed)), words })
        };
        check(&["t", "1.5", "26", "0/30", "0/30", "12.25", "t"], standby(26, 0x30, true, Some(12_250)));
        check(&["t", "1.5", "26", "0/20", "0/30", "-0.1", "t"], standby(26, 0x20, false, Some(0)));
        check(&["t", "1.5", "26", "0/30", "0/30", "-", "f"], standby(26, 0x30, false, None));
        check(&["t", "1.5", "26", "0/30", "-", "1", "t"], standby(26, 0x30, false, Some(1000)));
        check(&["t", "1.5", "-", "0/30", "0/30", "1", "t"], standby(0, 0x30, true, Some(1000)));
        check(&["f", "1.5", "-", "0/30", "0/20", "-", "-"], None);
        check(&["x", "1.5", "1", "0/30", "0/20", "-", "-"], None);
        check(&["f", "1.5", "1"], None);
    }

    #[test]
    fn a_demoted_primary_has_no_position_to_promise() {
        let row = |place: &str, lsn: Option<&str>| [Some(place.to_owned()), lsn.map(str::to_owned)];
        let at = |lsn| Some(Position { timeline: 2, lsn: Lsn(lsn) });
        assert_eq!(inserted(&row("00000002:40:8192", Some("0/5000028"))), at(0x500_0000));
        assert_eq!(inserted(&row("00000002:41:8192", Some("0/5000029"))), at(0x500_0029));
        assert_eq!(inserted(&row("::8192", None)), None);
    }

    #[test]
    fn a_promoted_standby_has_no_replay_position_to_wait_for() {
        let row = |recovery: &str, lsn: &str| [Some(recovery.to_owned()), Some(lsn.to_owned())];
        assert_eq!(replayed(&row("t", "1/0")), Some(Lsn(1 << 32)));
        assert_eq!(replayed(&row("f", "1/0")), None);
        assert_eq!(replayed(&[Some("t".to_owned()), None]), None);
    }
}
