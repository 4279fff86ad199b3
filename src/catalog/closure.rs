//! From the rows that a server gives to what calling, reading, writing and naming may bring, through whatever these run
//! in turn.
//!
//! Invariant: what runs something is at least as bad as what it runs; a function that nothing is known of may do
//! anything. Names in a source mean all functions, relations, types and operators so called, in any schema.
//!
//! Deliberately absent: what a source says (`screen`), and the functions of PostgreSQL's own (`conduct`).

use std::collections::{BTreeSet, HashMap, HashSet};

use foldhash::fast::RandomState;

use super::conduct::{Conduct, Outcome, PROCESS, of_extension, text_effects};
use super::custom::collect;
use super::functions::Functions;
use super::queries::{DefinitionRow, RelationRow};
use super::relations::Relations;
use super::screen::{Place, Source, screen};
use crate::sql::{Effects, node_local_relation};

/// What runs although no call, table or command names it.
#[derive(Debug, Default)]
pub(super) struct Unnamed {
    /// Types with casts and domains, operators, functions of one row.
    pub(super) by_name: HashMap<Box<str>, Mention, RandomState>,
    /// Of any expression: implicit casts, operators that keywords stand for.
    pub(super) expressions: Conduct,
    /// Of any value that is stored: casts on assignment.
    pub(super) assignments: Conduct,
    /// Of any definition: event triggers.
    pub(super) definitions: Conduct,
}

/// What naming something may bring, by where the name stands.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mention {
    attribute: Outcome,
    cast: Outcome,
    anywhere: Outcome,
}

impl Mention {
    pub(super) fn outcome(self, place: Place) -> Outcome {
        match place {
            Place::Attribute => self.attribute.with(self.anywhere),
            Place::Cast => self.cast.with(self.anywhere),
            Place::Elsewhere => self.anywhere,
        }
    }
}

/// Operators that are applied where a text does not show them: IN, BETWEEN, LIKE, CASE, joins and their like.
const HIDDEN_OPERATORS: [&str; 14] =
    ["=", "<>", "<", ">", "<=", ">=", "~", "!~", "~*", "~~", "!~~", "~~*", "!~~*", "^@"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Thing {
    Function(u32),
    Reading(u32),
    Writing(u32),
}

/// Things, what each does by itself, and who runs it.
#[derive(Default)]
struct Graph {
    places: HashMap<Thing, usize, RandomState>,
    outcomes: Vec<Outcome>,
    /// Whether one surely runs it, or has its name in a string.
    users: Vec<Vec<(usize, bool)>>,
}

impl Graph {
    /// The place of a thing. A function is unknown until it is said what it does.
    fn place(&mut self, thing: Thing) -> usize {
        let next = self.outcomes.len();
        let place = *self.places.entry(thing).or_insert(next);
        if place == next {
            let unknown = matches!(thing, Thing::Function(_));
            self.outcomes.push(if unknown { Outcome::UNKNOWN } else { Outcome::default() });
            self.users.push(Vec::new());
        }
        place
    }

    fn does(&mut self, thing: Thing, outcome: Outcome) {
        let place = self.place(thing);
        self.outcomes[place] = self.outcomes[place].with(outcome);
    }

    fn runs(&mut self, user: Thing, used: Thing) {
        let (user, used) = (self.place(user), self.place(used));
        self.users[used].push((user, true));
    }

    /// What makes statements of strings has this name in one.
    fn may_run(&mut self, user: Thing, used: Thing) {
        let (user, used) = (self.place(user), self.place(used));
        self.users[used].push((user, false));
    }

    fn outcome(&self, thing: Thing) -> Outcome {
        self.places.get(&thing).map_or(Outcome::UNKNOWN, |place| self.outcomes[*place])
    }

    /// Carries each outcome up to all that run it. An outcome can only grow, a few times, so this ends.
    fn close(&mut self) {
        let mut changed: Vec<usize> = (0..self.outcomes.len()).collect();
        while let Some(used) = changed.pop() {
            let outcome = self.outcomes[used];
            for at in 0..self.users[used].len() {
                let (user, surely) = self.users[used][at];
                let total = self.outcomes[user].with(if surely { outcome } else { outcome.taken() });
                if total != self.outcomes[user] {
                    self.outcomes[user] = total;
                    changed.push(user);
                }
            }
        }
    }
}

/// A function as a row names it: one of a user's, or what one of PostgreSQL's own does.
enum Callee {
    Function(Thing),
    Own(Outcome),
}

fn callee(detail: &str, own: &Functions) -> Callee {
    match detail.parse() {
        Ok(oid) => Callee::Function(Thing::Function(oid)),
        Err(_) => Callee::Own(own.inside(detail)),
    }
}

/// Adds to `functions`, which holds PostgreSQL's own, those of users, and says what else there is.
pub(super) fn close(
    functions: &mut Functions,
    definitions: &[DefinitionRow],
    relations: &[RelationRow],
) -> (Relations, Unnamed) {
    let mut graph = Graph::default();
    for row in relations {
        relation(&mut graph, row, functions);
    }
    let tables: HashSet<&str> = relations.iter().map(|row| row.name.as_str()).collect();
    // A table's name stands in many places where its row's type is not meant.
    let only_cast = |row: &DefinitionRow| row.kind == 'c' || row.kind == 'y' && tables.contains(row.name.as_str());
    let named = names(definitions.iter().filter(|row| !only_cast(row)), relations);
    let cast = names(definitions.iter().filter(|row| only_cast(row)), &[]);
    for row in definitions.iter().filter(|row| row.kind == 'f') {
        function(&mut graph, row, [&named, &cast], functions);
    }
    graph.close();

    let mut unnamed = Unnamed::default();
    for row in definitions {
        let outcome = match (row.kind, callee(&row.detail, functions)) {
            ('f', _) => graph.outcome(Thing::Function(row.oid)),
            (_, Callee::Function(function)) => graph.outcome(function),
            (_, Callee::Own(outcome)) => outcome,
        };
        let conduct = outcome.conduct;
        if row.kind == 'e' {
            unnamed.definitions = unnamed.definitions.max(conduct);
        }
        if matches!(row.kind, 'i') || row.kind == 'o' && HIDDEN_OPERATORS.contains(&row.name.as_str()) {
            unnamed.expressions = unnamed.expressions.max(conduct);
        }
        if row.kind == 'a' {
            unnamed.assignments = unnamed.assignments.max(conduct);
        }
        if conduct == Conduct::Harmless && !outcome.effects.any(Effects::SETS_INSIDE) {
            continue;
        }
        let mut mention = Mention::default();
        match row.kind {
            'f' if row.detail.contains('r') => mention.attribute = outcome,
            'i' | 'a' => mention.cast = outcome,
            _ if only_cast(row) => mention.cast = outcome,
            'o' | 'y' => mention.anywhere = outcome,
            _ => continue,
        }
        let known = unnamed.by_name.entry(row.name.as_str().into()).or_default();
        known.attribute = known.attribute.with(mention.attribute);
        known.cast = known.cast.with(mention.cast);
        known.anywhere = known.anywhere.with(mention.anywhere);
    }
    for row in definitions.iter().filter(|row| row.kind == 'f') {
        functions.add(&row.schema, &row.name, graph.outcome(Thing::Function(row.oid)));
    }
    let mut known = Relations::default();
    for row in relations {
        let outcome = |thing| graph.places.get(&thing).map_or_else(Outcome::default, |place| graph.outcomes[*place]);
        let (reading, writing) = (outcome(Thing::Reading(row.oid)), outcome(Thing::Writing(row.oid)));
        known.add(row, reading, writing.with(reading));
    }
    (known, unnamed)
}

/// What a name in a source may stand for.
type Named<'r> = HashMap<&'r str, Vec<Callee>, RandomState>;

fn names<'r>(definitions: impl Iterator<Item = &'r DefinitionRow>, relations: &'r [RelationRow]) -> Named<'r> {
    let mut named = Named::default();
    for row in definitions {
        let oid = if row.kind == 'f' { Some(row.oid) } else { row.detail.parse().ok() };
        if let Some(oid) = oid {
            named.entry(&row.name).or_default().push(Callee::Function(Thing::Function(oid)));
        } else {
            // A cast or an operator with a volatile function of PostgreSQL's own: nobody has seen one.
            named.entry(&row.name).or_default().push(Callee::Own(Outcome::UNKNOWN));
        }
    }
    let mut seen = HashSet::new();
    for row in relations {
        if seen.insert(row.oid) {
            let things = named.entry(&row.name).or_default();
            things.push(Callee::Function(Thing::Reading(row.oid)));
            things.push(Callee::Function(Thing::Writing(row.oid)));
        }
    }
    named
}

fn relation(graph: &mut Graph, row: &RelationRow, own: &Functions) {
    let (reading, writing) = (Thing::Reading(row.oid), Thing::Writing(row.oid));
    let node_local = Outcome { effects: Effects::NODE_LOCAL, ..Outcome::default() };
    let other = row.detail.parse::<u32>().ok();
    match (row.fact, other) {
        ('f' | 't', _) => {
            let thing = if row.fact == 'f' { reading } else { writing };
            match callee(&row.detail, own) {
                Callee::Function(function) => graph.runs(thing, function),
                Callee::Own(outcome) => graph.does(thing, outcome),
            }
        }
        ('u' | 'e', _) => graph.does(reading, node_local),
        ('n', _) if node_local_relation(&row.name) => {
            graph.does(reading, node_local);
            if row.name == "pg_settings" {
                // Its rule sets what an UPDATE says.
                graph.does(writing, Outcome { conduct: Conduct::Unknown, ..Outcome::default() });
            }
        }
        ('m', _) => graph.does(reading, Outcome { conduct: Conduct::Known, ..Outcome::default() }),
        ('v', Some(other)) => graph.runs(reading, Thing::Reading(other)),
        ('w', Some(other)) => {
            graph.runs(writing, Thing::Reading(other));
            graph.runs(writing, Thing::Writing(other));
        }
        _ => {}
    }
}

/// `named`: what a name may stand for anywhere, and in a cast.
fn function(graph: &mut Graph, row: &DefinitionRow, [named, cast]: [&Named<'_>; 2], own: &Functions) {
    let thing = Thing::Function(row.oid);
    let (volatile, keeps) = (row.detail.contains('v'), row.detail.contains('p'));
    let place = graph.place(thing);
    let with = |conduct| Outcome { conduct, effects: Effects::NONE };
    let declared = if volatile { Conduct::Known } else { Conduct::Harmless };
    if row.detail.contains('c') {
        // C is taken at its word, where it says that it is not volatile.
        graph.outcomes[place] = match of_extension(&row.name) {
            _ if !volatile && text_effects(&row.name) != Effects::NONE => {
                Outcome { conduct: Conduct::Harmless, effects: text_effects(&row.name) }
            }
            _ if !volatile => with(Conduct::Harmless),
            Some(outcome) => outcome,
            None if keeps => PROCESS,
            None => Outcome::UNKNOWN,
        };
        return;
    }
    if row.detail.contains('x') {
        if keeps {
            graph.outcomes[place] = PROCESS;
        }
        graph.does(thing, Outcome { effects: Effects::RUNS_TEXT, ..Outcome::default() });
        if row.detail.contains('g') {
            graph.does(thing, Outcome { effects: Effects::SETS_INSIDE, ..Outcome::default() });
        }
        if row.detail.contains('a') {
            graph.does(thing, Outcome { effects: Effects::TAKES_ADVISORY, ..Outcome::default() });
        }
        return;
    }
    let Source { names, casts, said, leaves_state, executes, effects } = screen(&row.source);
    graph.outcomes[place] = with(if leaves_state { Conduct::Unknown } else { declared });
    let runs_text = if executes { Effects::RUNS_TEXT } else { Effects::NONE };
    graph.does(thing, Outcome { effects: effects | runs_text, ..Outcome::default() });
    if collect(&row.source, &mut BTreeSet::new()) {
        graph.does(thing, Outcome { conduct: Conduct::Unknown, effects: Effects::COMPUTED_SETTING });
    }
    for name in &names {
        graph.does(thing, own.inside(name));
    }
    let used = names.iter().filter_map(|name| named.get(&**name));
    for used in used.chain(casts.iter().filter_map(|name| cast.get(&**name))).flatten() {
        match used {
            // PostgreSQL lets only volatile functions write.
            Callee::Function(Thing::Writing(_)) if !volatile => {}
            Callee::Function(used) => graph.runs(thing, *used),
            Callee::Own(outcome) => graph.does(thing, *outcome),
        }
    }
    for name in &said {
        graph.does(thing, own.inside(name).taken());
        for used in named.get(&**name).into_iter().flatten() {
            match used {
                Callee::Function(Thing::Writing(_)) | Callee::Own(_) => {}
                Callee::Function(used) => graph.may_run(thing, *used),
            }
        }
    }
}
