//! Sends each statement to the shard of its tenant.
//!
//! The tenant comes from what the statement says of its key column (an equality with a literal or a bound value, the
//! values of an INSERT) or from a session attribute (`SET pointsman.tenant = 'acme'`). All that is said must agree.
//! A statement on sharded tables without a tenant is refused: guessing would show or change the wrong rows. Where the
//! session names the tenant, what a statement says in any other way (`IN`, `OR`, computed values, COPY) is not looked into:
//! let a CHECK constraint on each shard keep the rows of others out.
//!
//! ```toml
//! columns   = ["tenant_id"]            # key columns, any of which names the tenant
//! type      = "text"                   # of the key: "int", "text" (default) or "uuid"
//! attribute = "tenant"                 # session attribute pointsman.tenant; "" for none
//! global    = ["countries"]            # tables that every shard has whole
//! sharded   = ["orders", "app.items"]  # optional: the tables that have the key, views of them too; all others count as global
//! consistency = true                   # a tenant's reads see what any session wrote for it through this gateway; default false
//! default   = "s0"                     # optional: the shard of tenants that are not listed; without it they are refused
//!
//! [tenants]                            # tenant -> shard
//! acme   = "s0"
//! globex = "s1"
//! ```
//!
//! In place of `[tenants]`, `hash = ["s0", "s1", "s2"]` places each tenant as PostgreSQL's hash partitioning would:
//! the shard's position in the list is the partition's remainder.
//!
//! Within the shard, what is proven to read goes to a replica and all else to the primary.

use std::collections::BTreeMap;

use pointsman_policy::key::KeyType;
use pointsman_policy::{
    Access, Decision, Depends, Effects, Kind, Manifest, Needs, Policy, Query, Rejection, Role, Settings, Shards,
    Target, Value,
};

/// What was worked out of a statement's shape is kept for so many shapes.
const PLANS: usize = 1024;
/// Bytes that a consistency key may have.
const KEY: usize = 256;
/// Tables of these schemas are the same everywhere.
const SYSTEM: [&str; 2] = ["pg_catalog", "information_schema"];

/// The policy under its settings.
pub struct TenantRouter {
    columns: Vec<String>,
    key: KeyType,
    attribute: String,
    global: Vec<String>,
    sharded: Vec<String>,
    placement: Placement,
    default: Option<String>,
    /// Whether the tenant is the consistency key of its statements.
    consistency: bool,
    /// By the shape, and by whether it calls what is not known and only reads: the gateway may learn more of that.
    plans: BTreeMap<(u128, bool, bool), Plan>,
    /// Positions of shards by name, under one version of the topology.
    positions: (u64, BTreeMap<String, Option<u32>>),
}

/// How a tenant finds its shard.
enum Placement {
    Listed(BTreeMap<String, String>),
    Hashed(Vec<String>),
}

/// What texts of one shape have in common.
#[derive(Clone)]
enum Plan {
    /// Nothing sharded: session state, transactions, constants.
    NoTables,
    /// Only tables that every shard has; `true` if one is written.
    Global(bool),
    /// Sharded tables. The equalities of key columns, and the first table that has none.
    Sharded { values: Vec<u32>, without: Option<String> },
    /// It cannot be told from the text which tables are used.
    Opaque,
}

impl Policy for TenantRouter {
    fn configure(settings: &Settings) -> Result<(Self, Manifest), String> {
        settings.only(&[
            "columns",
            "type",
            "attribute",
            "global",
            "sharded",
            "consistency",
            "default",
            "tenants",
            "hash",
        ])?;
        let columns = settings.strings("columns")?;
        if columns.is_empty() {
            return Err("`columns` must name at least one key column, such as columns = [\"tenant_id\"]".into());
        }
        let kind = settings.string("type")?.unwrap_or("text");
        let key = KeyType::parse(kind)
            .ok_or_else(|| format!("`type` must be \"int\", \"text\" or \"uuid\", not \"{kind}\""))?;
        let policy = Self {
            columns,
            key,
            attribute: settings.string("attribute")?.unwrap_or("tenant").into(),
            global: settings.strings("global")?,
            sharded: settings.strings("sharded")?,
            placement: placement(settings, key, kind)?,
            default: settings.string("default")?.map(Into::into),
            consistency: settings.flag("consistency")?.unwrap_or(false),
            plans: BTreeMap::new(),
            positions: (0, BTreeMap::new()),
        };
        let needs = Needs::SHAPE | Needs::VALUES | Needs::SESSION | Needs::TOPOLOGY;
        Ok((policy, Manifest { version: env!("CARGO_PKG_VERSION"), needs, depends: Depends::Values }))
    }

    fn route(&mut self, query: &Query) -> Decision {
        let role = if query.may_use_replica() { Role::Replica } else { Role::Primary };
        let decided = match self.plan(query) {
            Plan::NoTables => self.anywhere(query, role),
            Plan::Global(written) => self.global(query, role, written),
            Plan::Sharded { values, without } => self.sharded(query, role, &values, without.as_deref()),
            Plan::Opaque => self.opaque(query, role),
        };
        decided.unwrap_or_else(Decision::Reject)
    }
}

fn placement(settings: &Settings, key: KeyType, kind: &str) -> Result<Placement, String> {
    let hashed = settings.strings("hash")?;
    let listed = settings.table("tenants")?;
    if !hashed.is_empty() {
        if !listed.is_empty() {
            return Err("`hash` and `[tenants]` exclude each other: keep the one that places your tenants".into());
        }
        return Ok(Placement::Hashed(hashed));
    }
    let normal = |(tenant, shard): (&str, &str)| match key.normal(tenant) {
        Some(tenant) => Ok((tenant, shard.to_owned())),
        None => Err(format!("`tenants.{tenant}`: \"{tenant}\" is not of type {kind}")),
    };
    listed.into_iter().map(normal).collect::<Result<_, _>>().map(Placement::Listed)
}

impl TenantRouter {
    /// The plan of the query's shape, kept.
    fn plan(&mut self, query: &Query) -> Plan {
        let key = (query.fingerprint(), calls_unknown(query), query.access() == Access::Read);
        if let Some(plan) = self.plans.get(&key) {
            return plan.clone();
        }
        let plan = self.make_plan(query);
        if self.plans.len() >= PLANS {
            self.plans.clear();
        }
        self.plans.insert(key, plan.clone());
        plan
    }

    fn make_plan(&self, query: &Query) -> Plan {
        let controls = matches!(
            query.kind(),
            Kind::Set
                | Kind::Reset
                | Kind::Show
                | Kind::Begin
                | Kind::Commit
                | Kind::Rollback
                | Kind::Savepoint
                | Kind::Release
                | Kind::RollbackTo
                | Kind::SetTransaction
                | Kind::SetConstraints
                | Kind::Deallocate
                | Kind::Fetch
                | Kind::Close
                | Kind::Listen
                | Kind::Unlisten
                | Kind::Notify
                | Kind::Discard
        );
        if controls && !query.has_several_statements() {
            return Plan::NoTables;
        }
        if !query.is_parsed() || calls_unknown(query) {
            return Plan::Opaque;
        }
        if query.kind() == Kind::Ddl && query.effects().any(Effects::TEMPORARY) {
            // It belongs to the session, not to every shard.
            return Plan::Opaque;
        }
        let tables = query.tables();
        if tables.is_empty() {
            let plain = query.access() == Access::Read || matches!(query.kind(), Kind::Select | Kind::Values);
            return if plain { Plan::NoTables } else { Plan::Opaque };
        }
        let sharded = |index: &usize| self.is_sharded(tables[*index].schema.as_deref(), &tables[*index].name);
        let concerned: Vec<usize> = (0..tables.len()).filter(sharded).collect();
        if concerned.is_empty() {
            return Plan::Global(query.access() != Access::Read);
        }
        let equalities = query.equalities();
        let keys: Vec<usize> =
            (0..equalities.len()).filter(|index| self.columns.contains(&equalities[*index].column)).collect();
        let has_key = |table: usize| keys.iter().any(|key| equalities[*key].table == u32::try_from(table).ok());
        let without = concerned.iter().find(|table| !has_key(**table)).map(|table| tables[*table].name.clone());
        // A key of a global table says nothing; one of an unknown table may.
        let counts = |key: &usize| match equalities[*key].table {
            Some(table) => concerned.contains(&(table as usize)),
            None => true,
        };
        Plan::Sharded {
            values: keys.into_iter().filter(counts).filter_map(|key| u32::try_from(key).ok()).collect(),
            without,
        }
    }

    fn is_sharded(&self, schema: Option<&str>, name: &str) -> bool {
        if schema.is_some_and(|schema| SYSTEM.contains(&schema)) || schema.is_none() && name.starts_with("pg_") {
            return false;
        }
        let among = |names: &[String]| {
            names.iter().any(|wanted| match wanted.rsplit_once('.') {
                None => wanted == name,
                Some((in_schema, wanted)) => wanted == name && schema.is_none_or(|schema| schema == in_schema),
            })
        };
        if self.sharded.is_empty() { !among(&self.global) } else { among(&self.sharded) }
    }

    /// The tenant that the session names.
    fn session_tenant(&self, query: &Query) -> Result<Option<String>, Rejection> {
        if self.attribute.is_empty() {
            return Ok(None);
        }
        match query.session().attribute(&self.attribute).filter(|tenant| !tenant.is_empty()) {
            None => Ok(None),
            Some(tenant) => self.normal(&tenant).map(Some),
        }
    }

    fn normal(&self, tenant: &str) -> Result<String, Rejection> {
        self.key.normal(tenant).ok_or_else(|| {
            Rejection::new("22023", format!("\"{}\" is not a valid tenant", shortened(tenant)))
                .hint("Give the tenant as the key column's type wants it.")
        })
    }

    fn sharded(
        &mut self,
        query: &Query,
        role: Role,
        values: &[u32],
        without: Option<&str>,
    ) -> Result<Decision, Rejection> {
        let mut tenant = self.session_tenant(query)?;
        let from_session = tenant.is_some();
        for index in values {
            let found = match query.equality_value(*index) {
                Value::Text(found) => self.normal(&found)?,
                // The client only prepares: it may do that on any node of the right kind.
                Value::Unknown if query.is_parameters_unknown() => return Ok(Target::role(role).into()),
                Value::Null => return Err(self.refusal("the tenant is NULL")),
                Value::Unknown => return Err(self.refusal("the tenant's value cannot be read here")),
            };
            match &tenant {
                Some(tenant) if *tenant != found => {
                    let message = format!(
                        "the statement concerns two tenants, \"{}\" and \"{}\"",
                        shortened(tenant),
                        shortened(&found)
                    );
                    return Err(self.refusal(&message));
                }
                _ => tenant = Some(found),
            }
        }
        if let Some(table) = without
            && !from_session
        {
            let message =
                format!("the statement does not say which tenant's rows of \"{}\" it means", shortened(table));
            return Err(self.refusal(&message));
        }
        let Some(tenant) = tenant else { return Err(self.refusal("the statement names no tenant")) };
        self.place(query, role, &tenant)
    }

    /// Any shard will do. The one of the session's tenant is best: a transaction, or what keeps the session on its server,
    /// may begin with this.
    fn anywhere(&mut self, query: &Query, role: Role) -> Result<Decision, Rejection> {
        let chooses = !query.in_transaction() || query.is_first();
        match self.session_tenant(query) {
            Ok(Some(tenant)) if chooses && !matches!(query.kind(), Kind::Set | Kind::Reset | Kind::Discard) => {
                Ok(self.place(query, role, &tenant).unwrap_or(Decision::Pass))
            }
            _ => Ok(Decision::Pass),
        }
    }

    /// Every shard has the table: reads go where the session is at home, writes must reach all.
    fn global(&mut self, query: &Query, role: Role, written: bool) -> Result<Decision, Rejection> {
        if written {
            return Ok(Target::primary().shards(Shards::All).into());
        }
        match self.session_tenant(query)? {
            Some(tenant) => self.place(query, role, &tenant),
            None => Ok(Decision::Pass),
        }
    }

    /// The text does not tell: only the session can.
    fn opaque(&mut self, query: &Query, role: Role) -> Result<Decision, Rejection> {
        match self.session_tenant(query)? {
            Some(tenant) => self.place(query, role, &tenant),
            None => Err(self.refusal("it cannot be told from the statement which tenant it concerns")),
        }
    }

    fn place(&mut self, query: &Query, role: Role, tenant: &str) -> Result<Decision, Rejection> {
        let placed = match &self.placement {
            Placement::Listed(tenants) => tenants.get(tenant).or(self.default.as_ref()),
            Placement::Hashed(shards) => {
                let hash = self.key.partition_hash(tenant).unwrap_or_default();
                shards.get(usize::try_from(hash % shards.len() as u64).unwrap_or_default())
            }
        };
        let Some(name) = placed.cloned() else {
            return Err(Rejection::new("42704", format!("tenant \"{}\" has no shard", shortened(tenant)))
                .hint("Add it under [tenants] in the settings of the policy tenant-router, or set `default` there."));
        };
        match self.position(query, &name) {
            Some(shard) => {
                let target = Target::role(role).shard(shard);
                // Of two long tenants that begin alike each sees the other's writes, too.
                let key = &tenant[..tenant.floor_char_boundary(KEY)];
                Ok(if self.consistency { target.consistency(key) } else { target }.into())
            }
            None => Err(Rejection::new("42704", format!("the cluster has no shard \"{}\"", shortened(&name)))
                .hint("The settings of the policy tenant-router name it; the gateway's configuration does not.")),
        }
    }

    fn position(&mut self, query: &Query, name: &str) -> Option<u32> {
        let (version, positions) = &mut self.positions;
        if *version != query.topology_version() {
            *version = query.topology_version();
            positions.clear();
        }
        if let Some(position) = positions.get(name) {
            return *position;
        }
        let position = query.topology().shard_named(name);
        positions.insert(name.to_owned(), position);
        position
    }

    fn refusal(&self, message: &str) -> Rejection {
        let column = &self.columns[0];
        let mut hint = format!("Compare {column} of every sharded table with one value");
        if !self.attribute.is_empty() {
            hint.push_str(&format!(", or SET pointsman.{} for the session", self.attribute));
        }
        hint.push('.');
        Rejection::new("0A000", message).hint(hint)
    }
}

fn calls_unknown(query: &Query) -> bool {
    query.effects().any(Effects::CALLS_UNKNOWN | Effects::OPAQUE)
}

/// What a message can hold of a name that a client chose.
fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(100)]
}

pointsman_policy::export_policy!(TenantRouter);
