//! A unit as a policy sees it: its statements with their texts and bound values.
//!
//! Invariant: everything borrows from the client's own bytes.
//! Deliberately absent: the meaning of values.

use super::{Op, Session, Unit, What};
use crate::policy::{Bound, Format, Parameter, Parameters};
use crate::sql::{Analysis, Kind, Shape, Statement};
use crate::wire::frame::HEADER_LEN;
use crate::wire::frontend;

/// One statement of a unit.
pub struct Part<'a> {
    /// Its text, without the NUL.
    pub text: &'a [u8],
    /// What the text means.
    pub analysis: &'a Analysis,
    /// The values bound to it, if the unit binds them.
    pub bind: Option<BoundValues<'a>>,
    /// Whether it came as a Query.
    pub simple: bool,
}

impl Session {
    /// What the unit runs, in order: a Query, else what is bound, else what is parsed or described. Empty where nothing is
    /// known of it.
    pub fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let any_bound = self.unit.ops.iter().any(|op| matches!(op.what, What::Bind { .. }));
        let mut at = 0;
        self.unit.ops.iter().filter_map(move |op| {
            let frame = &self.input[at..at + op.len];
            at += op.len;
            part(op, frame, any_bound)
        })
    }

    /// The arguments of a FunctionCall, which are laid out as a Bind's values are.
    pub fn arguments(&self) -> Option<BoundValues<'_>> {
        const FUNCTION: usize = size_of::<u32>();
        // It is the unit's last message.
        let op = self.unit.ops.last().filter(|op| matches!(op.what, What::Function))?;
        let end = self.unit.ops.iter().map(|op| op.len).sum::<usize>();
        let rest = self.input.get(end - op.len + HEADER_LEN + FUNCTION..end)?;
        Some(BoundValues { rest, whole: op.rest == 0, types: &[] })
    }

    /// What is known of each text that the unit runs, binds, prepares or describes.
    pub fn shapes(&self) -> impl Iterator<Item = &Shape> + Clone {
        self.unit.ops.iter().filter_map(|op| match &op.what {
            What::Query(analysis) => Some(&*analysis.shape),
            What::Parse { statement, .. }
            | What::Bind { statement: Some(statement), .. }
            | What::DescribeStatement { statement: Some(statement) } => Some(&*statement.analysis.shape),
            _ => None,
        })
    }

    /// Whether the unit at hand takes a snapshot before it does anything else, as a DISCARD ahead of it would.
    #[must_use]
    pub fn begins_with_snapshot(&self) -> bool {
        self.snapshots().next().unwrap_or(false)
    }

    /// Whether anything in it is known to.
    #[must_use]
    pub fn takes_snapshot(&self) -> bool {
        self.snapshots().any(|takes| takes)
    }

    /// Of each statement whether it takes one, left out what is only prepared or described and is known to take none.
    fn snapshots(&self) -> impl Iterator<Item = bool> {
        self.unit.ops.iter().flat_map(|op| {
            let (shape, only_read) = match &op.what {
                What::Query(analysis) => (Some(&*analysis.shape), false),
                What::Bind { statement: Some(statement), .. } => (Some(&*statement.analysis.shape), false),
                What::Parse { statement, .. } | What::DescribeStatement { statement: Some(statement) } => {
                    (Some(&*statement.analysis.shape), true)
                }
                _ => (None, false),
            };
            let statements = shape.into_iter().flat_map(|shape| &shape.statements);
            statements.map(|statement| statement.kind).filter_map(move |kind| {
                if only_read { kind.is_read_under_snapshot().then_some(true) } else { Some(kind.takes_snapshot()) }
            })
        })
    }

    /// Whether it is the first of a transaction block.
    #[must_use]
    pub fn begins_block(&self) -> bool {
        self.deferred.active() || self.shapes().flat_map(|shape| &shape.statements).any(|s| s.kind == Kind::Begin)
    }

    /// Whether the unit at hand gives a setting a value, by whatever statement.
    #[must_use]
    pub fn gives(&self, setting: &str) -> bool {
        let names = |statement: &Statement| statement.settings.iter().any(|name| **name == *setting);
        self.shapes().flat_map(|shape| &shape.statements).any(|s| s.kind != Kind::Reset && names(s))
    }
}

/// One message as a statement of the unit's, if it is one.
#[inline]
fn part<'a>(op: &'a Op, frame: &'a [u8], any_bound: bool) -> Option<Part<'a>> {
    match &op.what {
        What::Query(analysis) => {
            let text = frontend::query(frame).unwrap_or_default();
            Some(Part { text, analysis, bind: None, simple: true })
        }
        What::Bind { statement: Some(statement), values } => {
            let bind = frame.get(*values as usize..).map(|rest| BoundValues {
                rest,
                whole: op.rest == 0,
                types: statement.settled_types().get(2..).unwrap_or_default(),
            });
            Some(Part { text: &statement.text, analysis: &statement.analysis, bind, simple: false })
        }
        What::Parse { statement, .. } | What::DescribeStatement { statement: Some(statement) } if !any_bound => {
            Some(Part { text: &statement.text, analysis: &statement.analysis, bind: None, simple: false })
        }
        _ => None,
    }
}

impl Unit {
    /// Whether it only declares or describes one statement: nothing runs, and what comes next is that statement's use.
    #[must_use]
    pub fn declares_one(&self) -> bool {
        let mut only = None;
        self.ops.iter().all(|op| match &op.what {
            What::Parse { statement, .. } | What::DescribeStatement { statement: Some(statement) } => {
                *only.get_or_insert(statement.id) == statement.id
            }
            What::CloseStatement { .. } | What::Flush => true,
            _ => false,
        })
    }
}

/// The values of a Bind, read from its bytes when asked for.
#[derive(Debug, Clone, Copy)]
pub struct BoundValues<'a> {
    /// Formats, values and result formats, as sent.
    rest: &'a [u8],
    /// Whether all of the Bind is here.
    whole: bool,
    /// Type oids as Parse declared them, four bytes each.
    types: &'a [u8],
}

impl<'a> BoundValues<'a> {
    /// The format codes and what follows them.
    fn formats(&self) -> Option<(&'a [u8], &'a [u8])> {
        let (count, rest) = self.rest.split_at_checked(2)?;
        rest.split_at_checked(2 * usize::from(u16::from_be_bytes([count[0], count[1]])))
    }

    /// Whether it is known to carry no `$number`: a statement that has one fails at this Bind.
    #[must_use]
    pub fn lacks(&self, number: u32) -> bool {
        self.formats().is_some_and(|(_, rest)| rest.len() >= 2) && number > self.count()
    }
}

impl Parameters for BoundValues<'_> {
    fn count(&self) -> u32 {
        let count = self.formats().and_then(|(_, rest)| rest.get(..2));
        count.map_or(0, |count| u32::from(u16::from_be_bytes([count[0], count[1]])))
    }

    fn parameter(&self, number: u32) -> Option<Parameter<'_>> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        if number > self.count() {
            return None;
        }
        let (formats, rest) = self.formats()?;
        // No code: all text. One: for all. Else one each.
        let format = match formats.len() / 2 {
            0 => [0, 0],
            1 => [formats[0], formats[1]],
            _ => [*formats.get(2 * index)?, *formats.get(2 * index + 1)?],
        };
        let format = if format == [0, 1] { Format::Binary } else { Format::Text };
        let oid = self.types.get(4 * index..4 * index + 4);
        let type_oid = oid.map_or(0, |oid| u32::from_be_bytes([oid[0], oid[1], oid[2], oid[3]]));
        let streamed = Some(Parameter { format, type_oid, value: Bound::Streamed });
        let mut values = &rest[2..];
        for at in 0..=index {
            let Some((length, tail)) = values.split_at_checked(4) else {
                return if self.whole { None } else { streamed };
            };
            let length = i32::from_be_bytes([length[0], length[1], length[2], length[3]]);
            let Ok(length) = usize::try_from(length) else {
                if at == index {
                    return Some(Parameter { format, type_oid, value: Bound::Null });
                }
                values = tail;
                continue;
            };
            let Some((value, tail)) = tail.split_at_checked(length) else {
                return if self.whole { None } else { streamed };
            };
            if at == index {
                return Some(Parameter { format, type_oid, value: Bound::Bytes(value) });
            }
            values = tail;
        }
        None
    }
}
