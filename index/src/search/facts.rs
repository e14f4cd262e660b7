//! What the plain reading of a query needs to know of one record, from a merged view or from the
//! record itself: making a view of each record in memory would cost more than the rest.

use std::net::Ipv6Addr;

use serde_json::Value;

use super::draft::Draft;
use super::field::Field;
use super::{matches, value};
use crate::record::{Certainty, Class, Completion, Event, Outcome, Param, Shape};
use crate::view::{self, View};

/// One record, field by field.
pub(crate) trait Facts {
    /// Shows the texts of a field until `see` says that it has seen enough; whether it did. Only a
    /// parameter can be an empty text.
    fn any_text(&self, field: Field, see: &mut dyn FnMut(&str) -> bool) -> bool;

    /// The value of a count or duration.
    fn number(&self, field: Field) -> Option<u64>;

    /// Microseconds since the epoch.
    fn time(&self) -> Option<i64>;

    /// The client's address.
    fn ip(&self) -> Option<Ipv6Addr>;

    /// Which shared value alone decides the texts of a field, if one does: for as long as it lives,
    /// the same number means the same texts.
    fn shared(&self, field: Field) -> Option<usize>;
}

impl Facts for View {
    fn any_text(&self, field: Field, see: &mut dyn FnMut(&str) -> bool) -> bool {
        match field {
            Field::Params => matches::texts(self, field).iter().any(|text| see(text)),
            _ => matches::strings(self, field).any(see),
        }
    }

    fn number(&self, field: Field) -> Option<u64> {
        self.get(field.name()).and_then(Value::as_u64)
    }

    fn time(&self) -> Option<i64> {
        matches::time(self)
    }

    fn ip(&self) -> Option<Ipv6Addr> {
        matches::ip(self)
    }

    fn shared(&self, _: Field) -> Option<usize> {
        None
    }
}

/// A record that is still in memory, under its number.
pub(crate) struct Numbered<'a>(pub(crate) u64, pub(crate) &'a Draft);

impl Numbered<'_> {
    fn end(&self) -> Option<&Completion> {
        self.1.end()
    }

    /// What is touched; only statements say.
    fn shape(&self) -> Option<&Shape> {
        self.1.record().shape.as_deref()
    }

    fn outcome(&self) -> Outcome {
        self.end().map_or(Outcome::Unknown, |end| end.outcome)
    }

    fn command(&self) -> &str {
        let named = self.shape().map_or("", |shape| &shape.command);
        match self.end() {
            Some(end) if named.is_empty() && self.1.is_statement() => &end.command,
            _ => named,
        }
    }

    fn analysis(&self) -> Option<Certainty> {
        let sure = self.shape().map_or(Certainty::Unresolved, |shape| shape.analysis);
        let doubted = self.end().is_some_and(|end| !end.notes.is_empty());
        self.1.is_statement().then_some(match sure {
            Certainty::Exact if doubted => Certainty::Partial,
            sure => sure,
        })
    }

    fn any_is(&self, see: &mut dyn FnMut(&str) -> bool) -> bool {
        let class = self.shape().map_or(&[][..], |shape| &shape.class);
        let outcome = self.outcome();
        let facts = view::Facts {
            failed: outcome == Outcome::Error,
            denied: outcome == Outcome::Denied
                || matches!(self.1.record().event, Event::Denied | Event::RoleDenied),
            ddl: class.contains(&Class::Ddl),
            write: class.contains(&Class::Write),
            rows: self.number(Field::Rows).unwrap_or(0),
            tagged: self.shape().is_some_and(|shape| !shape.tags.is_empty()),
            unparsed: self.analysis() == Some(Certainty::Unresolved),
        };
        facts.is().any(see)
    }

    fn any_of_shape(&self, field: Field, see: &mut dyn FnMut(&str) -> bool) -> bool {
        let Some(shape) = self.shape() else { return false };
        let mut list = |names: &[String]| names.iter().any(|name| !name.is_empty() && see(name));
        match field {
            Field::Fingerprint => list(std::slice::from_ref(&shape.fingerprint)),
            Field::Class => shape.class.iter().any(|class| see(class.as_str())),
            Field::Tables => list(&shape.tables),
            Field::Columns => list(&shape.reads) || list(&shape.filters) || list(&shape.writes),
            Field::Reads => list(&shape.reads),
            Field::Filters => list(&shape.filters),
            Field::Writes => list(&shape.writes),
            Field::Via => list(&shape.via),
            Field::Tags => list(&shape.tags),
            _ => false,
        }
    }

    fn any_of_who(&self, field: Field, see: &mut dyn FnMut(&str) -> bool) -> bool {
        let who = &*self.1.record().who;
        let one = match field {
            Field::Groups => return who.groups.iter().any(|group| !group.is_empty() && see(group)),
            Field::User => &who.user,
            Field::Sub => &who.sub,
            Field::Iss => &who.iss,
            Field::Login => &who.login,
            Field::Session => &who.session,
            Field::Role => &who.role,
            Field::Db => &who.db,
            Field::Upstream => &who.upstream,
            Field::SearchPath => &who.search_path,
            Field::Ip => &who.ip,
            Field::App => &who.app,
            Field::Device => &who.device,
            _ => return false,
        };
        !one.is_empty() && see(one)
    }
}

impl Facts for Numbered<'_> {
    fn any_text(&self, field: Field, see: &mut dyn FnMut(&str) -> bool) -> bool {
        let record = self.1.record();
        let mut one = |text: &str| !text.is_empty() && see(text);
        match field {
            Field::Id => one(record.id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer())),
            Field::Event => one(record.event.as_str()),
            Field::Outcome => one(self.outcome().as_str()),
            Field::TxnOutcome => one(self.1.txn_outcome().as_str()),
            Field::Sql => {
                record.sql.as_ref().is_some_and(|sql| one(&String::from_utf8_lossy(sql.as_bytes())))
            }
            Field::Params => self.1.is_statement() && record.params.iter().any(|param| any_param(param, see)),
            Field::Command => one(self.command()),
            Field::Analysis => self.analysis().is_some_and(|sure| one(sure.as_str())),
            Field::Sqlstate => self.end().is_some_and(|end| one(&end.sqlstate)),
            Field::Error => self.end().is_some_and(|end| one(&end.error)),
            Field::Is => self.any_is(see),
            _ => self.any_of_who(field, see) || self.any_of_shape(field, see),
        }
    }

    fn number(&self, field: Field) -> Option<u64> {
        match field {
            Field::Seq => Some(self.0),
            Field::Rows => self.end().filter(|_| self.1.is_statement()).and_then(|end| end.rows),
            Field::Bytes => self.end().filter(|_| self.1.is_statement()).map(|end| end.bytes),
            Field::Duration => self.end().map(|end| end.duration_us),
            _ => None,
        }
    }

    fn time(&self) -> Option<i64> {
        Some(view::clamped(self.1.record().time).0)
    }

    fn ip(&self) -> Option<Ipv6Addr> {
        value::address(&self.1.record().who.ip)
    }

    fn shared(&self, field: Field) -> Option<usize> {
        let record = self.1.record();
        match field {
            Field::Groups
            | Field::User
            | Field::Sub
            | Field::Iss
            | Field::Login
            | Field::Session
            | Field::Role
            | Field::Db
            | Field::Upstream
            | Field::SearchPath
            | Field::Ip
            | Field::App
            | Field::Device => Some(std::sync::Arc::as_ptr(&record.who).addr()),
            Field::Fingerprint
            | Field::Class
            | Field::Tables
            | Field::Columns
            | Field::Reads
            | Field::Filters
            | Field::Writes
            | Field::Via
            | Field::Tags => record.shape.as_ref().map(|shape| std::sync::Arc::as_ptr(shape).addr()),
            _ => None,
        }
    }
}

fn any_param(param: &Param, see: &mut dyn FnMut(&str) -> bool) -> bool {
    match param {
        Param::Text(text) => see(text),
        other => matches::param(&view::param(other)).is_some_and(|text| see(&text)),
    }
}
