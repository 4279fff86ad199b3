//! `column = constant` conditions that must hold, from conjunctions that nothing can weaken.
//!
//! Invariant: an equality is left out rather than given wrongly. A condition under OR, NOT, an outer join's ON, a branch
//! of a set operation, or on a column whose table may be an outer query's is left out; so is a constant whose value a
//! cast, a sign or an operator changes. Deliberately absent: conditions that follow from others (`a.k = b.k`).

use smallvec::SmallVec;
use sqlparser::ast::{
    Assignment, AssignmentTarget, BinaryOperator, DataType, Delete, Expr, FromTable, Ident, Insert, Join,
    JoinConstraint, JoinOperator, OnConflictAction, OnInsert, Select, SetExpr, TableFactor, TableObject,
    TableWithJoins, TypedString, Update, UpdateTableFromKind, Value, ValueWithSpan,
};

use super::analysis::{Equality, Literal, Operand};
use super::literal;
use super::names;
use super::tree::{Source, Walk, fold, parts};

/// Most equalities of one statement; an INSERT beyond it has none.
const LIMIT: usize = 4096;

/// What a column's qualifier may mean in one FROM.
struct Item {
    alias: Option<Box<str>>,
    schema: Option<Box<str>>,
    name: Option<Box<str>>,
    /// `None`: a subquery, a function, a common table expression.
    table: Option<u16>,
}

pub(crate) fn of_select(walk: &mut Walk<'_>, select: &Select) {
    if !walk.holds() {
        return;
    }
    let mut scope = Scope::new(walk.correlated());
    for from in &select.from {
        scope.add(walk, from);
    }
    for from in &select.from {
        inner_joins(walk, &scope, from);
    }
    if let Some(condition) = &select.selection {
        conjunction(walk, &scope, condition);
    }
}

pub(crate) fn of_delete(walk: &mut Walk<'_>, delete: &Delete) {
    let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
    let mut scope = Scope::new(false);
    let all = || from.iter().chain(delete.using.iter().flatten());
    all().for_each(|item| scope.add(walk, item));
    all().for_each(|item| inner_joins(walk, &scope, item));
    if let Some(condition) = &delete.selection {
        conjunction(walk, &scope, condition);
    }
}

pub(crate) fn of_update(walk: &mut Walk<'_>, update: &Update) {
    let mut scope = Scope::new(false);
    let more = match &update.from {
        Some(UpdateTableFromKind::BeforeSet(from) | UpdateTableFromKind::AfterSet(from)) => from.as_slice(),
        None => &[],
    };
    let all = || std::iter::once(&update.table).chain(more);
    all().for_each(|item| scope.add(walk, item));
    let first = walk.facts.equalities.len();
    all().for_each(|item| inner_joins(walk, &scope, item));
    if let Some(condition) = &update.selection {
        conjunction(walk, &scope, condition);
    }
    let TableFactor::Table { name, .. } = &update.table.relation else { return };
    let target = walk.table_at(name);
    assigned(walk, first, target, &update.assignments, false);
}

pub(crate) fn of_insert(walk: &mut Walk<'_>, insert: &Insert) {
    let TableObject::TableName(name) = &insert.table else { return };
    let Some(source) = &insert.source else { return };
    let SetExpr::Values(values) = &*source.body else { return };
    let target = walk.table_at(name);
    let first = walk.facts.equalities.len();
    if values.rows.len().saturating_mul(insert.columns.len()) > LIMIT || target.is_none() {
        return;
    }
    for (i, column) in insert.columns.iter().enumerate() {
        // `column[1]` and `column.field` set a part only.
        let (1, Some((_, column))) = (column.0.len(), parts(column)) else { continue };
        let operands: Option<SmallVec<[Operand; 8]>> =
            values.rows.iter().map(|row| operand(walk.source, row.get(i)?)).collect();
        for value in operands.into_iter().flatten() {
            push(walk, Equality { table: target, column: column.clone(), value });
        }
    }
    if let Some(OnInsert::OnConflict(on)) = &insert.on
        && let OnConflictAction::DoUpdate(update) = &on.action
    {
        assigned(walk, first, target, &update.assignments, true);
    }
}

/// A column that a statement also assigns: what is assigned must be a constant too, or nothing is known of the row that
/// is written.
fn assigned(walk: &mut Walk<'_>, first: usize, target: Option<u16>, assignments: &[Assignment], excluded: bool) {
    for assignment in assignments {
        let columns = match &assignment.target {
            AssignmentTarget::ColumnName(name) => std::slice::from_ref(name),
            AssignmentTarget::Tuple(names) => names.as_slice(),
        };
        let single = columns.len() == 1;
        for column in columns {
            // The first part is the column: PostgreSQL takes no qualifier here.
            let Some(sqlparser::ast::ObjectNamePart::Identifier(ident)) = column.0.first() else { continue };
            let column_name = fold(ident);
            // The row that an INSERT proposed has the constant that the columns have.
            let proposed = excluded
                && matches!(&assignment.value, Expr::CompoundIdentifier(path)
                    if path.len() == 2 && &*fold(&path[0]) == "excluded" && fold(&path[1]) == column_name);
            if proposed {
                continue;
            }
            let known = |e: &Equality| (e.table == target || e.table.is_none()) && e.column == column_name;
            if !walk.facts.equalities[first..].iter().any(known) {
                continue;
            }
            let value = operand(walk.source, &assignment.value).filter(|_| single && column.0.len() == 1);
            if let Some(value) = value {
                push(walk, Equality { table: target, column: column_name, value });
                continue;
            }
            let mut i = 0;
            walk.facts.equalities.retain(|e| {
                i += 1;
                i <= first || !known(e)
            });
        }
    }
}

struct Scope {
    items: SmallVec<[Item; 4]>,
    correlated: bool,
}

impl Scope {
    fn new(correlated: bool) -> Self {
        Self { items: SmallVec::new(), correlated }
    }

    fn add(&mut self, walk: &Walk<'_>, from: &TableWithJoins) {
        self.add_factor(walk, &from.relation);
        for join in &from.joins {
            self.add_factor(walk, &join.relation);
        }
    }

    fn add_factor(&mut self, walk: &Walk<'_>, factor: &TableFactor) {
        match factor {
            TableFactor::Table { name, alias, .. } => {
                let Some((schema, table)) = parts(name) else { return };
                // A list of column names may rename what a condition names.
                let renamed = alias.as_ref().is_some_and(|a| !a.columns.is_empty());
                self.items.push(Item {
                    alias: alias.as_ref().map(|a| fold(&a.name)),
                    schema,
                    name: Some(table),
                    table: walk.table_at(name).filter(|_| !renamed),
                });
            }
            TableFactor::NestedJoin { table_with_joins, alias: None } => self.add(walk, table_with_joins),
            TableFactor::NestedJoin { alias: Some(alias), .. }
            | TableFactor::Derived { alias: Some(alias), .. }
            | TableFactor::Function { alias: Some(alias), .. }
            | TableFactor::TableFunction { alias: Some(alias), .. }
            | TableFactor::UNNEST { alias: Some(alias), .. } => {
                self.items.push(Item { alias: Some(fold(&alias.name)), schema: None, name: None, table: None });
            }
            _ => self.items.push(Item { alias: None, schema: None, name: None, table: None }),
        }
    }

    /// The table of a column: `None` if nothing is to be said, `Some(None)` if it is one of those in FROM.
    #[expect(clippy::option_option, reason = "nothing to say, not certain which, this one")]
    fn table_of(&self, qualifier: &[Ident]) -> Option<Option<u16>> {
        let (schema, name) = match qualifier {
            [] if self.correlated => return None,
            [] => {
                return match self.items.as_slice() {
                    [one] => one.table.map(Some),
                    [] => None,
                    many => many.iter().all(|i| i.table.is_some()).then_some(None),
                };
            }
            [name] => (None, fold(name)),
            [.., schema, name] => (Some(fold(schema)), fold(name)),
        };
        let mut found = self.items.iter().filter(|item| match (&item.alias, &schema) {
            (Some(alias), None) => *alias == name,
            (Some(_), Some(_)) => false,
            (None, None) => item.name.as_ref() == Some(&name),
            (None, Some(schema)) => item.name.as_ref() == Some(&name) && item.schema.as_ref() == Some(schema),
        });
        let first = found.next()?;
        if found.next().is_some() { None } else { first.table.map(Some) }
    }
}

/// Conditions of joins that keep only rows that meet them.
fn inner_joins(walk: &mut Walk<'_>, scope: &Scope, from: &TableWithJoins) {
    if let TableFactor::NestedJoin { table_with_joins, alias: None } = &from.relation {
        inner_joins(walk, scope, table_with_joins);
    }
    for Join { relation, join_operator, .. } in &from.joins {
        if let TableFactor::NestedJoin { table_with_joins, alias: None } = relation {
            inner_joins(walk, scope, table_with_joins);
        }
        if let JoinOperator::Join(JoinConstraint::On(on)) | JoinOperator::Inner(JoinConstraint::On(on)) = join_operator
        {
            conjunction(walk, scope, on);
        }
    }
}

fn conjunction(walk: &mut Walk<'_>, scope: &Scope, condition: &Expr) {
    let mut stack: SmallVec<[&Expr; 16]> = SmallVec::new();
    stack.push(condition);
    while let Some(expr) = stack.pop() {
        match expr {
            Expr::Nested(inner) => stack.push(inner),
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                stack.push(right);
                stack.push(left);
            }
            Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
                if let (Expr::Tuple(columns), Expr::Tuple(values)) = (&**left, &**right) {
                    if columns.len() == values.len() {
                        columns.iter().zip(values).for_each(|(c, v)| equal(walk, scope, c, v));
                    }
                } else {
                    equal(walk, scope, left, right);
                }
            }
            Expr::InList { expr, list, negated: false } => {
                if let [only] = list.as_slice() {
                    equal(walk, scope, expr, only);
                }
            }
            _ => {}
        }
    }
}

fn equal(walk: &mut Walk<'_>, scope: &Scope, left: &Expr, right: &Expr) {
    for (column, value) in [(left, right), (right, left)] {
        let Some((qualifier, name)) = column_of(column) else { continue };
        let Some(value) = operand(walk.source, value) else { continue };
        let Some(table) = scope.table_of(qualifier) else { continue };
        push(walk, Equality { table, column: fold(name), value });
    }
}

fn push(walk: &mut Walk<'_>, equality: Equality) {
    if walk.facts.equalities.len() < LIMIT {
        walk.facts.equalities.push(equality);
    }
}

fn column_of(mut expr: &Expr) -> Option<(&[Ident], &Ident)> {
    while let Expr::Nested(inner) = expr {
        expr = inner;
    }
    match expr {
        Expr::Identifier(ident) if ident.quote_style.is_none() && names::not_a_column(&fold(ident)) => None,
        Expr::Identifier(ident) => Some((&[], ident)),
        Expr::CompoundIdentifier(path) => path.split_last().map(|(name, qualifier)| (qualifier, name)),
        _ => None,
    }
}

/// A constant or parameter whose value is what it says.
fn operand(source: &Source<'_>, expr: &Expr) -> Option<Operand> {
    match expr {
        Expr::Nested(inner) => operand(source, inner),
        Expr::Value(value) => constant(source, value),
        Expr::Cast { expr, data_type, format: None, .. } if keeps_value(data_type) => {
            let mut inner = &**expr;
            while let Expr::Nested(deeper) = inner {
                inner = deeper;
            }
            match inner {
                Expr::Value(value) => cast(source, value),
                _ => None,
            }
        }
        Expr::TypedString(TypedString { data_type, value, .. }) if keeps_value(data_type) => cast(source, value),
        _ => None,
    }
}

/// Types whose input and output of such a constant is the same value.
fn keeps_value(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Int(None)
            | DataType::Integer(None)
            | DataType::BigInt(None)
            | DataType::SmallInt(None)
            | DataType::Int2(None)
            | DataType::Int4(None)
            | DataType::Int8(None)
            | DataType::Text
            | DataType::Varchar(None)
            | DataType::CharacterVarying(None)
            | DataType::Uuid
    )
}

/// A constant under a cast: a fraction would be rounded, and TRUE becomes 1.
fn cast(source: &Source<'_>, value: &ValueWithSpan) -> Option<Operand> {
    match &value.value {
        Value::Number(digits, _) if !digits.bytes().all(|b| b.is_ascii_digit()) => None,
        Value::Boolean(_) => None,
        _ => constant(source, value),
    }
}

fn constant(source: &Source<'_>, value: &ValueWithSpan) -> Option<Operand> {
    match &value.value {
        // `0x1F` and `1_000` mean something else before PostgreSQL 16.
        Value::Number(digits, _)
            if digits.bytes().any(|b| matches!(b, b'_' | b'x' | b'X' | b'o' | b'O' | b'b' | b'B')) =>
        {
            None
        }
        Value::Number(..)
        | Value::SingleQuotedString(_)
        | Value::EscapedStringLiteral(_)
        | Value::DollarQuotedString(_) => literal_at(source, value.span.start.column),
        Value::Boolean(true) => Some(Operand::Constant("true".into())),
        Value::Boolean(false) => Some(Operand::Constant("false".into())),
        Value::Null => Some(Operand::Constant("null".into())),
        Value::Placeholder(name) => name.strip_prefix('$')?.parse().ok().map(Operand::Parameter),
        _ => None,
    }
}

/// The literal whose token starts at `offset`: by its index if normalisation dropped it, else by its value.
fn literal_at(source: &Source<'_>, offset: u64) -> Option<Operand> {
    let offset = u32::try_from(offset).ok()?;
    if let Ok(index) = source.literals.binary_search_by_key(&offset, |(start, _)| *start) {
        return u16::try_from(index).ok().map(Operand::Literal);
    }
    let spot = source.spots.binary_search_by_key(&offset, |spot| spot.start).ok()?;
    let token = source.spots[spot].text(source.text).as_bytes();
    let value = match literal::decode(token, source.standard_conforming_strings)? {
        Literal::Number(digits) => digits.into(),
        Literal::String(s) => s.into(),
    };
    Some(Operand::Constant(value))
}
