//! Clusters: the short forms become shards and nodes.
//!
//! Invariant: node names and addresses are unique in their cluster, a shard has at least one node
//! that may be its primary and at most one that is said to be.

use std::collections::BTreeMap;

use super::Checker;
use crate::config::address::Address;
use crate::config::decode::{At, Field, List, Map};
use crate::config::leaves::Text;
use crate::config::problem::Span;
use crate::config::raw::{
    NodeSpec, RawCluster, RawEjection, RawMonitor, RawNode, RawShard, RawTemplate, RawUpstreamTls, Replicas,
};
use crate::config::types::{
    ClientCertificate, Cluster, Ejection, Monitor, MonitorAccount, Node, RoleSetting, Shard, UpstreamTls,
    UpstreamTlsMode,
};

/// The port of a server whose address names none; PostgreSQL's own.
const SERVER_PORT: u16 = 5432;

/// The keys that name servers, of a cluster or of a shard.
struct Servers<'r> {
    primary: &'r Field<NodeSpec>,
    replicas: &'r Field<Replicas>,
    nodes: &'r Field<List<NodeSpec>>,
    span: &'r Span,
    path: &'r str,
}

/// Names and addresses seen in one cluster.
#[derive(Default)]
struct Seen {
    names: BTreeMap<String, String>,
    addresses: BTreeMap<Address, String>,
}

impl Checker<'_, '_> {
    pub(super) fn cluster(&mut self, name: &str, at: &At<RawCluster>) -> Cluster {
        let raw = &at.value;
        Cluster {
            shards: self.shards(name, at),
            tls: self.upstream_tls(&raw.tls),
            monitor: self.monitor(&super::part(&raw.monitor)),
            read_your_writes: raw.read_your_writes.get(),
            max_lag: raw.max_lag.get().0,
            ejection: self.ejection(&raw.ejection),
        }
    }

    fn shards(&mut self, name: &str, at: &At<RawCluster>) -> Vec<Shard> {
        let RawCluster { primary, replicas, nodes, shards, .. } = &at.value;
        let mut seen = Seen::default();
        let plain = Servers { primary, replicas, nodes, span: &at.span, path: &at.path };
        if shards.is_absent() {
            return vec![Shard { name: name.to_owned(), nodes: self.nodes(&plain, &mut seen) }];
        }
        let Some(shards) = shards.given() else { return Vec::new() };
        if !(primary.is_absent() && replicas.is_absent() && nodes.is_absent()) {
            let message = "cannot stand beside `primary`, `replicas` or `nodes`";
            let help = "move those servers into a shard, or leave `shards` out".to_owned();
            self.problems.error(&shards.span, &shards.path, message, help);
        }
        if shards.value.0.is_empty() {
            self.problems.error(&shards.span, &shards.path, "has no shard", None);
        }
        let mut checked: Vec<Shard> = Vec::new();
        for shard in &shards.value.0 {
            let RawShard { name, primary, replicas, nodes } = &shard.value;
            let servers = Servers { primary, replicas, nodes, span: &shard.span, path: &shard.path };
            let nodes = self.nodes(&servers, &mut seen);
            match name.given() {
                Some(name) => {
                    if checked.iter().any(|other| other.name == name.value.0) {
                        let message = format!("another shard is named {:?}", name.value.0);
                        self.problems.error(&name.span, &name.path, message, None);
                    }
                    checked.push(Shard { name: name.value.0.clone(), nodes });
                }
                None if name.is_absent() => {
                    let help = format!("write name = \"s{}\"", checked.len());
                    self.problems.error(&shard.span, &shard.path, "needs a `name`", help);
                }
                None => {}
            }
        }
        checked
    }

    fn nodes(&mut self, servers: &Servers<'_>, seen: &mut Seen) -> Vec<Node> {
        let Servers { primary, replicas, nodes, span, path } = servers;
        let mut checked = Vec::new();
        if let Some(nodes) = nodes.given() {
            if !(primary.is_absent() && replicas.is_absent()) {
                let help = "put all servers under `nodes`, or use `primary` and `replicas` alone".to_owned();
                let message = "cannot stand beside `primary` or `replicas`";
                self.problems.error(&nodes.span, &nodes.path, message, help);
            }
            for node in &nodes.value.0 {
                checked.extend(self.node(node, None, seen));
            }
            self.one_primary_at_most(nodes, &checked);
            return checked;
        }
        if primary.is_absent() && nodes.is_absent() {
            let (span, path, message) = match replicas.given() {
                Some(replicas) => (&replicas.span, replicas.path.as_str(), "has no `primary` beside it"),
                None => (*span, *path, "has no servers"),
            };
            let help =
                "write primary = \"HOST:PORT\"; or nodes = [\"HOST:PORT\", …], and the gateway finds the primary";
            self.problems.error(span, path, message, help.to_owned());
        }
        if let Some(primary) = primary.given() {
            checked.extend(self.node(primary, Some(RoleSetting::Primary), seen));
        }
        match replicas.given().map(|replicas| (&replicas.value, replicas)) {
            Some((Replicas::Listed(list), _)) => {
                for node in &list.0 {
                    checked.extend(self.node(node, Some(RoleSetting::Replica), seen));
                }
            }
            Some((Replicas::Template(template), at)) => self.template(template, at, seen, &mut checked),
            None => {}
        }
        checked
    }

    fn one_primary_at_most(&mut self, list: &At<List<NodeSpec>>, nodes: &[Node]) {
        let primaries = nodes.iter().filter(|node| node.role == RoleSetting::Primary).count();
        if list.value.0.is_empty() {
            let help = "write nodes = [\"HOST:PORT\", …]".to_owned();
            self.problems.error(&list.span, &list.path, "has no servers", help);
        } else if primaries > 1 {
            let message = format!("{primaries} servers have role = \"primary\"");
            let help = "leave `role` out and the gateway finds the primary; servers with data of their own are shards";
            self.problems.error(&list.span, &list.path, message, help.to_owned());
        } else if !nodes.is_empty() && nodes.iter().all(|node| node.role == RoleSetting::Replica) {
            let help = "leave `role` out and the gateway finds the primary".to_owned();
            self.problems.error(&list.span, &list.path, "every server has role = \"replica\"", help);
        }
    }

    fn node(&mut self, at: &At<NodeSpec>, role: Option<RoleSetting>, seen: &mut Seen) -> Option<Node> {
        let raw = match &at.value {
            NodeSpec::Address(text) => {
                let mut raw = RawNode::default();
                raw.address.put(Some(At { value: text.clone(), span: at.span.clone(), path: at.path.clone() }));
                Box::new(raw)
            }
            NodeSpec::Table(raw) => raw.clone(),
        };
        if let (Some(_), Some(given)) = (role, raw.role.given()) {
            let message = "is for servers under `nodes`; here the role is known";
            self.problems.error(&given.span, &given.path, message, "leave it out".to_owned());
        }
        let Some(text) = raw.address.given() else {
            if raw.address.is_absent() {
                let help = "write address = \"HOST:PORT\"".to_owned();
                self.problems.error(&at.span, &at.path, "needs an `address`", help);
            }
            return None;
        };
        let address = self.server_address(text)?;
        let name = raw.name.value().map_or_else(|| address.to_string(), |name| name.0.clone());
        let node = Node {
            name,
            address,
            role: role.or(raw.role.value().copied()).unwrap_or(RoleSetting::Auto),
            weight: raw.weight.get().0,
            labels: labels(&raw.labels),
        };
        self.unique(&node, raw.name.given().unwrap_or(text), text, seen);
        Some(node)
    }

    fn template(&mut self, raw: &RawTemplate, at: &At<Replicas>, seen: &mut Seen, nodes: &mut Vec<Node>) {
        if raw.count.is_absent() || raw.address.is_absent() {
            let help = "write count = 2 and address = \"db-replica-{n}:5432\"".to_owned();
            self.problems.error(&at.span, &at.path, "needs `count` and `address`", help);
        }
        let (Some(count), Some(address)) = (raw.count.given(), raw.address.given()) else { return };
        for text in [Some(address), raw.name.given()].into_iter().flatten() {
            if count.value.0 > 1 && !text.value.0.contains("{n}") {
                let help = "write for example \"db-replica-{n}:5432\"; {n} is 1, 2, …".to_owned();
                self.problems.error(&text.span, &text.path, "needs {n}, or all replicas are the same", help);
                return;
            }
        }
        for n in 1..=count.value.0 {
            let numbered = |text: &At<Text>| At {
                value: Text(text.value.0.replace("{n}", &n.to_string())),
                span: text.span.clone(),
                path: text.path.clone(),
            };
            let text = numbered(address);
            // A malformed template is malformed for every n; one error says it.
            let Some(address) = self.server_address(&text) else { return };
            let name = raw.name.given().map(numbered);
            let node = Node {
                name: name.as_ref().map_or_else(|| address.to_string(), |name| name.value.0.clone()),
                address,
                role: RoleSetting::Replica,
                weight: raw.weight.get().0,
                labels: labels(&raw.labels),
            };
            self.unique(&node, name.as_ref().unwrap_or(&text), &text, seen);
            nodes.push(node);
        }
    }

    fn server_address(&mut self, text: &At<Text>) -> Option<Address> {
        let address = self.address(text, SERVER_PORT)?;
        if address.port() == 0 {
            self.problems.error(&text.span, &text.path, "port 0 is no server's", None);
            return None;
        }
        Some(address)
    }

    fn unique(&mut self, node: &Node, name: &At<Text>, address: &At<Text>, seen: &mut Seen) {
        if let Some(other) = seen.addresses.insert(node.address.clone(), address.path.clone()) {
            let message = format!("{} is already at {other}", node.address);
            self.problems.error(&address.span, &address.path, message, None);
        } else if let Some(other) = seen.names.insert(node.name.clone(), name.path.clone()) {
            let message = format!("{:?} is already the name of {other}", node.name);
            self.problems.error(&name.span, &name.path, message, None);
        }
    }

    pub(super) fn upstream_tls(&mut self, field: &Field<RawUpstreamTls>) -> UpstreamTls {
        let raw: RawUpstreamTls = super::part(field);
        let mode = raw.mode.get();
        let verifies = matches!(mode, UpstreamTlsMode::VerifyCa | UpstreamTlsMode::VerifyFull);
        if let Some(at) = field.given() {
            if verifies && raw.ca.is_absent() {
                let help = "write ca = \"ca.crt\"".to_owned();
                self.problems.error(&at.span, &at.path, "needs `ca` to verify against", help);
            }
            if raw.cert.is_absent() != raw.key.is_absent() {
                self.problems.error(&at.span, &at.path, "needs `cert` and `key` together", None);
            }
        }
        let ca = self.file(&raw.ca);
        let cert = self.file(&raw.cert);
        let key = self.file(&raw.key);
        UpstreamTls { mode, ca, client: cert.zip(key).map(|(cert, key)| ClientCertificate { cert, key }) }
    }

    fn monitor(&mut self, raw: &RawMonitor) -> Monitor {
        let password = self.secret(&raw.password);
        if let (Some(at), true) = (raw.password.given(), raw.user.is_absent()) {
            let help = "write user = \"…\" beside it".to_owned();
            self.problems.error(&at.span, &at.path, "needs a `user`", help);
        }
        Monitor {
            account: raw.user.value().map(|user| MonitorAccount {
                user: user.0.clone(),
                password,
                database: raw.database.get().0,
            }),
            interval: raw.interval.get().0,
            timeout: raw.timeout.get().0,
        }
    }

    fn ejection(&mut self, field: &Field<RawEjection>) -> Ejection {
        let raw: RawEjection = super::part(field);
        let ejection = Ejection {
            failures: raw.failures.get().0,
            back_off: raw.back_off.get().0,
            max_back_off: raw.max_back_off.get().0,
        };
        if let (Some(at), true) = (field.given(), ejection.back_off > ejection.max_back_off) {
            self.problems.error(&at.span, &at.path, "`back_off` is above `max_back_off`", None);
        }
        ejection
    }
}

fn labels(field: &Field<Map<Text>>) -> BTreeMap<String, String> {
    let given = field.value().into_iter().flat_map(|map| &map.0);
    given.map(|(key, text)| (key.clone(), text.value.0.clone())).collect()
}
