//! The page for people: the status at a glance, renewed every few seconds.
//!
//! Invariant: it needs nothing but itself: no script, no font, no other host; every text that came from outside is escaped.
//! Deliberately absent: anything to press.

use std::fmt::{self, Display, Write as _};

use super::Policy;
use super::status::{ClusterStatus, NodeStatus, ShardStatus, Status};

/// Seconds between two renewals.
const RENEW: u32 = 3;

const STYLE: &str = "\
:root{color-scheme:light dark}body{font:15px/1.45 system-ui,sans-serif;max-width:70rem;margin:1.5rem auto;padding:0 1rem}\
h1{font-size:1.3rem;margin:0}h2{font-size:1.05rem;margin:1.6rem 0 .3rem}table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.25rem .7rem .25rem 0;border-bottom:1px solid #8884;vertical-align:top}\
th{font-weight:600;opacity:.65}.n{text-align:right;font-variant-numeric:tabular-nums}.good{color:#2a8a3e}.bad{color:#c33;font-weight:600}\
.dim{opacity:.65}p{margin:.3rem 0}code{font-size:.9em}";

/// The whole page.
pub(super) fn render(status: &Status) -> String {
    let mut out = String::with_capacity(8 << 10);
    // Writing to a String cannot fail.
    let _ = write(&mut out, status);
    out
}

fn write(out: &mut String, status: &Status) -> fmt::Result {
    write!(
        out,
        "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content={RENEW}>\
         <meta name=viewport content=\"width=device-width\"><title>pointsman</title><style>{STYLE}</style>\
         <h1>pointsman <span class=dim>{} · up {}</span></h1>",
        status.version,
        humantime::format_duration(std::time::Duration::from_secs(status.uptime)),
    )?;
    if status.unready.is_empty() {
        out.push_str("<p class=good>ready");
    }
    for reason in &status.unready {
        write!(out, "<p class=bad>{}", Escaped(reason))?;
    }
    let sessions = &status.sessions;
    write!(
        out,
        "<p>{} of {} clients: {} idle, {} active, {} waiting, {} pinned; {} of {} server connections",
        status.clients,
        status.max_clients,
        sessions.idle,
        sessions.active,
        sessions.waiting,
        sessions.pinned,
        status.servers,
        status.max_servers
    )?;
    if !sessions.pins.is_empty() {
        let causes: Vec<_> = sessions.pins.iter().map(|(cause, count)| format!("{count} {cause}")).collect();
        write!(out, "<p class=dim>pinned by {}", causes.join(", "))?;
    }
    for cluster in &status.clusters {
        write_cluster(out, cluster)?;
    }
    write_policies(out, &status.policies)?;
    out.push_str(
        "<p class=dim><a href=metrics>metrics</a> · <a href=api/v1/status>status</a> · <a href=healthz>healthz</a> · \
         <a href=readyz>readyz</a></html>\n",
    );
    Ok(())
}

fn write_cluster(out: &mut String, cluster: &ClusterStatus) -> fmt::Result {
    write!(
        out,
        "<h2>Cluster {}</h2><table><tr><th>shard<th>node<th>role<th>standing<th class=n>lag<th class=n>weight\
         <th class=n>in flight<th class=n>statements",
        Escaped(&cluster.name)
    )?;
    for ShardStatus { name, nodes } in &cluster.shards {
        for NodeStatus { name: node, role, standing, lag, weight, in_flight, failures, statements } in nodes {
            let class = if *standing == "up" { "good" } else { "bad" };
            write!(out, "<tr><td>{}<td>{}<td>{role}<td class={class}>{standing}", Escaped(name), Escaped(node))?;
            if *failures > 0 {
                write!(out, " ({failures} failures)")?;
            }
            let lag = lag.map_or_else(|| "–".to_owned(), |lag| format!("{lag:.1} s"));
            write!(out, "<td class=n>{lag}<td class=n>{weight}<td class=n>{in_flight}<td class=n>{statements}")?;
        }
    }
    out.push_str("</table>");
    if cluster.pools.is_empty() {
        return Ok(());
    }
    out.push_str(
        "<table><tr><th>pool<th>user<th>node<th>mode<th class=n>idle<th class=n>lent<th class=n>size<th class=n>waiting",
    );
    for pool in &cluster.pools {
        write!(
            out,
            "<tr><td>{}<td>{}<td>{}<td>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=\"n{}\">{}",
            Escaped(&pool.database),
            Escaped(&pool.user),
            Escaped(&pool.node),
            pool.mode,
            pool.idle,
            pool.lent,
            pool.size,
            if pool.waiting > 0 { " bad" } else { "" },
            pool.waiting
        )?;
    }
    out.push_str("</table>");
    Ok(())
}

fn write_policies(out: &mut String, policies: &[Policy]) -> fmt::Result {
    out.push_str(
        "<h2>Policies</h2><table><tr><th>policy<th>state<th>version<th>digest<th class=n>calls<th class=n>kept<th>decisions\
         <th>faults",
    );
    for policy in policies {
        let class = if policy.state == "serving" { "good" } else { "bad" };
        write!(
            out,
            "<tr><td>{}<td class={class}>{}<td>{}<td><code>{}</code><td class=n>{}<td class=n>{}<td>{}<td>{}",
            Escaped(&policy.name),
            policy.state,
            Escaped(&policy.version),
            Escaped(&policy.digest),
            policy.calls,
            policy.cached,
            pairs(&policy.decisions),
            pairs(&policy.faults),
        )?;
        if let Some(error) = &policy.error {
            write!(out, "<tr><td><td colspan=7 class=bad>{}", Escaped(error))?;
        }
    }
    out.push_str("</table>");
    Ok(())
}

fn pairs(pairs: &[(&'static str, u64)]) -> String {
    let happened = pairs.iter().filter(|(_, count)| *count > 0);
    happened.map(|(word, count)| format!("{word} {count}")).collect::<Vec<_>>().join(", ")
}

/// Text in HTML.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '&' => f.write_str("&amp;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            c => f.write_char(c),
        })
    }
}
