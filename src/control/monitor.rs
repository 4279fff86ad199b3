//! What the monitor is given of a cluster.
//!
//! Invariant: the monitor learns of databases and lenders only through accounts in use, which a server has let in.
//! Deliberately absent: probing itself (`discover`).

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Cluster;
use crate::catalog::{Catalog, Definitions};
use crate::config;
use crate::discover::{Source, Vacated};
use crate::pool::{Connector, Pool};
use crate::topology::{Node, Topology};

/// Accounts tried for one question: each may be refused by the node.
const LENDERS: usize = 4;

impl Source for Cluster {
    fn name(&self) -> &str {
        &self.name
    }

    fn config(&self) -> &config::Cluster {
        &self.config
    }

    fn topology(&self) -> &Topology {
        &self.topology
    }

    fn connector(&self, node: &Node, dbname: Option<&str>) -> Option<Connector> {
        self.monitor_connector(node, dbname)
    }

    fn lenders(&self, node: &Arc<Node>, dbname: Option<&str>) -> Vec<Arc<Pool>> {
        let accounts = self.accounts();
        let fitting = accounts.iter().filter(|account| dbname.is_none_or(|name| *account.dbname == *name));
        fitting.take(LENDERS).map(|account| Arc::clone(account.pool(node))).collect()
    }

    fn catalogs(&self) -> Vec<(Box<str>, Arc<ArcSwap<Catalog>>)> {
        let names: BTreeSet<Box<str>> = self.accounts().iter().map(|account| account.dbname.clone()).collect();
        names.into_iter().map(|name| (name.clone(), self.catalog(&name))).collect()
    }

    fn next_catalog(&self) -> u64 {
        self.catalog_number()
    }

    fn definitions(&self) -> Definitions {
        Cluster::definitions(self)
    }

    fn schema_changed(&self) {
        Self::schema_changed(self);
    }

    fn vacated(&self) -> &Vacated {
        &self.vacated
    }

    fn database_gone(&self, dbname: &str) {
        self.forget(dbname);
    }
}
