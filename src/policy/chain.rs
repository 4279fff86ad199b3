//! The chain: policies in order, each asked until one decides.
//!
//! Invariant: [`Chain::route`] always answers, and never with [`Decision::Pass`]. It is immutable; a change of any
//! policy makes another chain with another identity.

use std::sync::Arc;

use super::cache::{DecisionCache, Key};
use super::{Decision, Depends, Fault, Manifest, Needs, Policy, Query, ReadWriteSplit, SqlState, Target};

/// What stands for the answer of a policy that faulted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnFault {
    /// An error with SQLSTATE 58000: no statement goes where the policy might not have sent it.
    #[default]
    Reject,
    /// The primary of the default shard.
    Primary,
    /// The next link decides.
    Pass,
}

/// One policy in a chain.
#[derive(Clone)]
pub struct Link {
    /// Who is asked.
    pub policy: Arc<dyn Policy>,
    /// What follows when it faults.
    pub on_fault: OnFault,
}

/// Policies in order, and a built-in rule behind the last.
pub struct Chain {
    id: u64,
    links: Box<[Link]>,
    manifest: Manifest,
    net: ReadWriteSplit,
}

/// A chain's answer and whose it is.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Never [`Decision::Pass`].
    pub decision: Decision,
    /// The position of the link that decided; `None` when the rule behind the last link did.
    pub link: Option<u16>,
    /// A fault on the way, for logs: the last one, with the position of its link.
    pub fault: Option<Box<(u16, Fault)>>,
    /// It was kept from an earlier query.
    pub cached: bool,
}

impl Chain {
    /// A chain of these links. `id` must be unique for the life of the process, for it keys kept decisions.
    #[must_use]
    pub fn new(id: u64, links: Vec<Link>) -> Self {
        let manifest = links.iter().fold(Manifest { needs: Needs::NONE, depends: Depends::Statement }, |all, link| {
            let one = link.policy.manifest();
            Manifest { needs: all.needs.with(one.needs), depends: all.depends.max(one.depends) }
        });
        Self { id, links: links.into(), manifest, net: ReadWriteSplit::default() }
    }

    /// The chain's identity; larger is later.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What all its policies need together, and what their decisions depend on together.
    #[must_use]
    pub fn manifest(&self) -> Manifest {
        self.manifest
    }

    /// The links in order.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Name and generation of whoever gave an answer, for traces.
    #[must_use]
    pub fn origin(&self, answer: &Answer) -> &dyn Policy {
        let link = answer.link.and_then(|index| self.links.get(usize::from(index)));
        link.map_or(&self.net, |link| &*link.policy)
    }

    /// Asks the links in order.
    #[must_use]
    pub fn route(&self, query: &Query<'_>) -> Answer {
        let mut fault = None;
        for (index, link) in (0u16..).zip(&self.links) {
            let decision = match link.policy.route(query) {
                Ok(Decision::Pass) => continue,
                Ok(decision) => decision,
                Err(found) => {
                    let replaced = replacement(link, &found);
                    fault = Some(Box::new((index, found)));
                    match replaced {
                        Some(decision) => decision,
                        None => continue,
                    }
                }
            };
            return Answer { decision, link: Some(index), fault, cached: false };
        }
        Answer { decision: self.net.decide(query), link: None, fault, cached: false }
    }

    /// As [`Self::route`], but keeps and reuses decisions where every policy of the chain promised what they depend on.
    #[must_use]
    pub fn route_cached(&self, query: &Query<'_>, cache: &mut DecisionCache) -> Answer {
        let Some(key) = Key::of(self, query) else { return self.route(query) };
        if let Some(answer) = cache.find(&key) {
            self.origin(&answer).served_from_cache();
            return answer;
        }
        let answer = self.route(query);
        // A fault says nothing about the next time.
        if answer.fault.is_none() {
            cache.keep(key, &answer);
        }
        answer
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.links.iter().map(|link| link.policy.name()).collect();
        f.debug_struct("Chain").field("id", &self.id).field("links", &names).finish_non_exhaustive()
    }
}

/// The decision in place of a faulted policy's; `None` hands on to the next link.
fn replacement(link: &Link, fault: &Fault) -> Option<Decision> {
    match link.on_fault {
        OnFault::Pass => None,
        OnFault::Primary => Some(Decision::Route(Target::PRIMARY)),
        OnFault::Reject => Some(Decision::reject(
            SqlState::SYSTEM_ERROR,
            format!("routing policy \"{}\" failed ({})", link.policy.name(), fault.kind),
            Some("The statement was not sent to any server. The gateway's log has the details.".into()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, Fixed};
    use super::*;
    use crate::policy::{FaultKind, Role};
    use crate::sql::Access;

    fn chain(links: &[(Result<Decision, Fault>, OnFault)]) -> Chain {
        let links = links
            .iter()
            .map(|(answer, on_fault)| Link { policy: Arc::new(Fixed::new(answer.clone())), on_fault: *on_fault });
        Chain::new(1, links.collect())
    }

    #[test]
    fn the_first_opinion_counts() {
        let broken = || Err(Fault::new(FaultKind::Trap, "unreachable"));
        let replica = || Ok(Decision::Route(Target::REPLICA));
        let primary = Decision::Route(Target::PRIMARY);
        // links, the decision's role (None: refused), who decided, whose fault
        type Row<'a> = (&'a [(Result<Decision, Fault>, OnFault)], Option<Role>, Option<u16>, Option<u16>);
        let table: &[Row<'_>] = &[
            (&[], Some(Role::Replica), None, None),
            (&[(Ok(Decision::Pass), OnFault::Reject)], Some(Role::Replica), None, None),
            (
                &[(Ok(primary.clone()), OnFault::Reject), (replica(), OnFault::Reject)],
                Some(Role::Primary),
                Some(0),
                None,
            ),
            (
                &[(Ok(Decision::Pass), OnFault::Reject), (replica(), OnFault::Reject)],
                Some(Role::Replica),
                Some(1),
                None,
            ),
            (&[(broken(), OnFault::Reject), (replica(), OnFault::Reject)], None, Some(0), Some(0)),
            (&[(broken(), OnFault::Primary), (replica(), OnFault::Reject)], Some(Role::Primary), Some(0), Some(0)),
            (&[(broken(), OnFault::Pass), (replica(), OnFault::Reject)], Some(Role::Replica), Some(1), Some(0)),
            (&[(broken(), OnFault::Pass)], Some(Role::Replica), None, Some(0)),
        ];
        for (number, (links, role, by, fault)) in table.iter().enumerate() {
            let chain = chain(links);
            let answer = Case::of(Access::Read).ask(|query| chain.route(query));
            let found = match &answer.decision {
                Decision::Route(target) => Some(target.role),
                Decision::Reject(rejection) => {
                    assert_eq!(rejection.sqlstate.as_str(), "58000");
                    None
                }
                Decision::Pass => panic!("row {number}: a chain passed"),
            };
            assert_eq!(found, *role, "row {number}");
            assert_eq!(answer.link, *by, "row {number}");
            assert_eq!(answer.fault.map(|fault| fault.0), *fault, "row {number}");
        }
    }
}
