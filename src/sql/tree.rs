//! A walk over the syntax tree: tables, functions, access.
//!
//! Invariants: every place that names a table is one entry; a common table expression hides a table only where
//! PostgreSQL would see it (not in its own query unless RECURSIVE, not in its predecessors, never as a target of a
//! write); every call is listed. Deliberately absent: equalities (see `equality`), views, the search path.

use std::ops::ControlFlow;

use smallvec::SmallVec;
use sqlparser::ast::{
    Expr, FromTable, Function as Call, FunctionArguments, Ident, Insert, ObjectName, ObjectNamePart, Query, Select,
    SetExpr, Statement as Tree, TableFactor, TableObject, Visit, Visitor,
};

use super::analysis::{Access, Effects, Equality, Function, Table};
use super::equality;
use super::literal;
use super::names;
use super::tokens::Spot;

/// What the tree's offsets refer to.
pub(crate) struct Source<'t> {
    pub(crate) text: &'t str,
    pub(crate) spots: &'t [Spot],
    pub(crate) literals: &'t [(u32, u32)],
    pub(crate) standard_conforming_strings: bool,
}

/// What a tree says.
pub(crate) struct Facts {
    pub(crate) access: Access,
    pub(crate) effects: Effects,
    pub(crate) tables: Vec<Table>,
    pub(crate) functions: Vec<Function>,
    pub(crate) equalities: Vec<Equality>,
}

/// The facts of one statement; `None` for what the walk does not know.
pub(crate) fn facts(tree: &Tree, source: &Source<'_>) -> Option<Facts> {
    let mut walk = Walk {
        source,
        facts: Facts {
            access: Access::Read,
            effects: Effects::NONE,
            tables: Vec::new(),
            functions: Vec::new(),
            equalities: Vec::new(),
        },
        targets: SmallVec::new(),
        calls: SmallVec::new(),
        places: SmallVec::new(),
        frames: Vec::new(),
        branches: SmallVec::new(),
        branch_depth: 0,
        independent: SmallVec::new(),
    };
    match tree.visit(&mut walk) {
        ControlFlow::Continue(()) => Some(walk.facts),
        ControlFlow::Break(()) => None,
    }
}

/// An address in the tree, which does not move while it is walked.
pub(crate) type Address = usize;

pub(crate) fn address<T>(node: &T) -> Address {
    std::ptr::from_ref(node).addr()
}

/// A query that is being walked.
struct Frame {
    query: Address,
    /// Names of common table expressions that can be seen.
    visible: Vec<Box<str>>,
    /// Those that become visible when their query is done.
    pending: Vec<(Address, Box<str>)>,
    first_table: usize,
    /// May refer to columns of an outer query.
    correlated: bool,
    branch: bool,
}

pub(crate) struct Walk<'s> {
    pub(crate) source: &'s Source<'s>,
    pub(crate) facts: Facts,
    /// Names that are targets of a write.
    targets: SmallVec<[Address; 4]>,
    /// Names of functions in FROM, which the visitor calls relations.
    calls: SmallVec<[Address; 4]>,
    /// Names that became entries of `facts.tables`.
    places: SmallVec<[(Address, u16); 8]>,
    frames: Vec<Frame>,
    /// SELECTs and queries that are branches of a set operation.
    branches: SmallVec<[Address; 4]>,
    branch_depth: usize,
    /// Queries in FROM and WITH, which see no outer columns by themselves.
    independent: SmallVec<[Address; 4]>,
}

impl Walk<'_> {
    /// The table that a name became, if it became one.
    pub(crate) fn table_at(&self, name: &ObjectName) -> Option<u16> {
        let wanted = address(name);
        self.places.iter().find(|(place, _)| *place == wanted).map(|(_, index)| *index)
    }

    /// Whether conditions here hold for the statement as a whole.
    pub(crate) fn holds(&self) -> bool {
        self.branch_depth == 0
    }

    pub(crate) fn correlated(&self) -> bool {
        self.frames.last().is_some_and(|f| f.correlated)
    }

    fn write(&mut self) {
        self.facts.access = Access::Write;
    }

    fn hidden(&self, name: &str) -> bool {
        self.frames.iter().any(|f| f.visible.iter().any(|v| &**v == name))
    }

    fn add_table(&mut self, name: &ObjectName, access: Access) -> bool {
        let Some((schema, table)) = parts(name) else { return false };
        let Ok(index) = u16::try_from(self.facts.tables.len()) else { return false };
        if schema.as_deref().is_some_and(|s| s.starts_with("pg_temp")) {
            self.facts.effects |= Effects::TEMPORARY;
        }
        self.places.push((address(name), index));
        self.facts.tables.push(Table { schema, name: table, access });
        true
    }

    fn add_call(&mut self, name: &ObjectName) -> bool {
        let Some((schema, function)) = parts(name) else { return false };
        let plain = name.0.len() == 1 && matches!(&name.0[0], ObjectNamePart::Identifier(i) if i.quote_style.is_none());
        if plain && names::syntax_function(&function) {
            return true;
        }
        let function = Function { schema, name: function };
        if !self.facts.functions.contains(&function) {
            self.facts.functions.push(function);
        }
        true
    }

    /// Marks the SELECTs and queries that a set operation joins. Its depth is bounded before the grammar.
    fn mark_branches(&mut self, body: &SetExpr, inside: bool) -> bool {
        let mut stack: SmallVec<[(&SetExpr, bool); 8]> = SmallVec::new();
        stack.push((body, inside));
        while let Some((expr, inside)) = stack.pop() {
            match expr {
                SetExpr::SetOperation { left, right, .. } => {
                    stack.push((left, true));
                    stack.push((right, true));
                }
                SetExpr::Select(select) if inside => self.branches.push(address(&**select)),
                SetExpr::Query(query) => {
                    // Parentheses alone make no query of their own.
                    self.independent.push(address(&**query));
                    if inside {
                        self.branches.push(address(&**query));
                    }
                }
                // TABLE loses how its name was quoted.
                SetExpr::Table(_) => return false,
                _ => {}
            }
        }
        true
    }

    fn insert_target(&mut self, insert: &Insert) -> ControlFlow<()> {
        match &insert.table {
            TableObject::TableName(name) => self.targets.push(address(name)),
            _ => return ControlFlow::Break(()),
        }
        if let Some(source) = &insert.source {
            self.independent.push(address(&**source));
        }
        ControlFlow::Continue(())
    }

    fn target(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, .. } => self.targets.push(address(name)),
            _ => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }
}

fn check(fine: bool) -> ControlFlow<()> {
    if fine { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

impl Visitor for Walk<'_> {
    type Break = ();

    fn pre_visit_statement(&mut self, tree: &Tree) -> ControlFlow<()> {
        match tree {
            Tree::Query(_) => return ControlFlow::Continue(()),
            Tree::Insert(insert) => self.insert_target(insert)?,
            Tree::Update(update) => self.target(&update.table.relation)?,
            Tree::Delete(delete) => {
                let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
                for table in from {
                    self.target(&table.relation)?;
                }
            }
            Tree::Merge(merge) => self.target(&merge.table)?,
            _ => {}
        }
        self.write();
        ControlFlow::Continue(())
    }

    fn post_visit_statement(&mut self, tree: &Tree) -> ControlFlow<()> {
        match tree {
            Tree::Insert(insert) => equality::of_insert(self, insert),
            Tree::Update(update) => equality::of_update(self, update),
            Tree::Delete(delete) => equality::of_delete(self, delete),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let here = address(query);
        let outer = self.frames.last();
        let correlated = outer.is_some_and(|f| f.correlated || !self.independent.contains(&here));
        let mut frame = Frame {
            query: here,
            visible: Vec::new(),
            pending: Vec::new(),
            first_table: self.facts.tables.len(),
            correlated,
            branch: self.branches.contains(&here),
        };
        if let Some(with) = &query.with {
            for cte in &with.cte_tables {
                let name = fold(&cte.alias.name);
                self.independent.push(address(&*cte.query));
                if with.recursive {
                    frame.visible.push(name);
                } else {
                    frame.pending.push((address(&*cte.query), name));
                }
            }
        }
        self.branch_depth += usize::from(frame.branch);
        self.frames.push(frame);
        if !query.locks.is_empty() {
            self.write();
        }
        check(self.mark_branches(&query.body, false))
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let Some(frame) = self.frames.pop() else { return ControlFlow::Break(()) };
        debug_assert_eq!(frame.query, address(query), "queries nest");
        self.branch_depth -= usize::from(frame.branch);
        if !query.locks.is_empty() {
            for table in &mut self.facts.tables[frame.first_table..] {
                table.access = Access::Write;
            }
        }
        if let Some(outer) = self.frames.last_mut()
            && let Some(i) = outer.pending.iter().position(|(a, _)| *a == frame.query)
        {
            let (_, name) = outer.pending.remove(i);
            outer.visible.push(name);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        self.branch_depth += usize::from(self.branches.contains(&address(select)));
        let Some(into) = &select.into else { return ControlFlow::Continue(()) };
        self.write();
        self.facts.effects |= Effects::DDL;
        if into.temporary {
            self.facts.effects |= Effects::TEMPORARY;
        }
        for target in &into.targets {
            let idents = match target {
                Expr::Identifier(ident) => std::slice::from_ref(ident),
                Expr::CompoundIdentifier(idents) => idents.as_slice(),
                _ => return ControlFlow::Break(()),
            };
            let [.., last] = idents else { return ControlFlow::Break(()) };
            let schema = idents.len().checked_sub(2).map(|i| fold(&idents[i]));
            self.facts.tables.push(Table { schema, name: fold(last), access: Access::Write });
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        equality::of_select(self, select);
        self.branch_depth -= usize::from(self.branches.contains(&address(select)));
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, args: Some(_), .. } => {
                self.calls.push(address(name));
                check(self.add_call(name))
            }
            TableFactor::Function { name, .. } => check(self.add_call(name)),
            TableFactor::Derived { lateral, subquery, .. } => {
                if !lateral {
                    self.independent.push(address(&**subquery));
                }
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
        let here = address(name);
        if self.calls.contains(&here) {
            return ControlFlow::Continue(());
        }
        if self.targets.contains(&here) {
            return check(self.add_table(name, Access::Write));
        }
        if let [ObjectNamePart::Identifier(ident)] = name.0.as_slice()
            && self.hidden(&fold(ident))
        {
            return ControlFlow::Continue(());
        }
        // Outside any query a relation is what a definition defines.
        let access = if self.frames.is_empty() && self.targets.is_empty() { Access::Write } else { Access::Read };
        check(self.add_table(name, access))
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let Expr::Function(call) = expr else { return ControlFlow::Continue(()) };
        let Call { name, args, parameters, .. } = call;
        // CURRENT_USER and its like are syntax.
        let bare = matches!(args, FunctionArguments::None) && matches!(parameters, FunctionArguments::None);
        check(bare || self.add_call(name))
    }
}

/// The name that PostgreSQL makes of an identifier.
pub(crate) fn fold(ident: &Ident) -> Box<str> {
    if ident.quote_style.is_some() { literal::fold_quoted(&ident.value) } else { literal::fold_word(&ident.value) }
}

/// Schema and name; of a name with a database the last two parts.
pub(crate) fn parts(name: &ObjectName) -> Option<(Option<Box<str>>, Box<str>)> {
    let ident = |part: &ObjectNamePart| match part {
        ObjectNamePart::Identifier(ident) => Some(fold(ident)),
        ObjectNamePart::Function(_) => None,
    };
    let last = ident(name.0.last()?)?;
    let schema = match name.0.len().checked_sub(2) {
        Some(i) => Some(ident(&name.0[i])?),
        None => None,
    };
    Some((schema, last))
}
