//! What statements touch, read once and remembered.
//!
//! A reading is remembered under the statement's literal-free key and everything else that it
//! depends on: database, catalog, search_path, role, string settings. So a stale answer cannot be served.

use std::sync::Arc;

use moka::sync::Cache;
use pgwitness_index::record::{Certainty, Class, Shape};
use pgwitness_protocol::conversation::{Alters, Origin};
use sha2::{Digest, Sha256};

use super::accuracy::Check;
use super::databases::Sight;
use super::state::Settings;
use super::transaction::Control;
use super::walsender;
use crate::catalog::{Relation, Schema};
use crate::grammar::Processes;
use crate::sql::{self, Analysis, Change, Effect, Key, Own, Scan};

/// Memory for readings, bytes.
const MAX_BYTES: u64 = 64 << 20;

/// One statement, read under one context.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) shape: Arc<Shape>,
    pub(super) effect: Effect,
    pub(super) control: Control,
    pub(super) redefines: Redefines,
    /// It may set parameters, or make temporary tables, out of sight.
    pub(super) unsettling: bool,
    /// What it does to relations that only the session sees, or only it does until it commits.
    pub(super) changes: Vec<Change>,
    /// All that it may do to relations is among the changes.
    pub(super) followed: bool,
    /// Compared with the server's word.
    pub(super) check: Check,
    /// For PREPARE: the statement inside.
    inner: Option<Inner>,
}

/// A statement inside another: how it is read here, and its text, to read it again where names mean something else.
#[derive(Debug, Clone)]
struct Inner {
    reading: Arc<Reading>,
    /// None beyond `MAX_INNER_TEXT`.
    text: Option<Arc<[u8]>>,
}

/// The longest text of a prepared statement that is kept to be read again, bytes.
const MAX_INNER_TEXT: usize = 16 * 1024;

/// Whether a statement may change what the catalog says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Redefines {
    #[default]
    No,
    /// Out of sight, or nothing that readings depend on.
    Perhaps,
    /// Names may mean something else afterwards.
    Names,
}

impl Redefines {
    /// Commands after which names mean what they meant. An event trigger may do more.
    const MINOR: &[&str] = &[
        "COMMENT",
        "CREATE INDEX",
        "CREATE STATISTICS",
        "DROP INDEX",
        "DROP STATISTICS",
        "GRANT",
        "REINDEX",
        "REVOKE",
        "SECURITY LABEL",
    ];

    fn of(analysis: &Analysis) -> Self {
        // What a session makes for itself is known without the catalog.
        let own = || {
            let temporary = |change: &Change| change.schema == "pg_temp";
            analysis.followed && !analysis.changes.is_empty() && analysis.changes.iter().all(temporary)
        };
        match analysis.effect {
            Effect::Ddl if Self::MINOR.contains(&&*analysis.command) || own() => Redefines::Perhaps,
            Effect::Ddl => Redefines::Names,
            Effect::MayHideDdl => Redefines::Perhaps,
            _ => Redefines::No,
        }
    }
}

impl Reading {
    /// The statement that PREPARE names; else the statement itself.
    pub(super) fn inner(self: &Arc<Self>) -> &Arc<Reading> {
        self.inner.as_ref().map_or(self, |inner| &inner.reading)
    }

    /// The text of the statement that PREPARE names, if it is kept.
    pub(super) fn inner_text(&self) -> Option<&Arc<[u8]>> {
        self.inner.as_ref()?.text.as_ref()
    }

    /// The same, but not sure: it may touch what another reading of it tells instead.
    pub(super) fn doubted(&self, note: &str, instead: &Self) -> Self {
        let (mut shape, other) = ((*self.shape).clone(), &instead.shape);
        for (names, more) in [
            (&mut shape.tables, &other.tables),
            (&mut shape.reads, &other.reads),
            (&mut shape.filters, &other.filters),
            (&mut shape.writes, &other.writes),
            (&mut shape.via, &other.via),
        ] {
            names.extend_from_slice(more);
            names.sort_unstable();
            names.dedup();
        }
        if shape.analysis == Certainty::Exact {
            shape.analysis = Certainty::Partial;
        }
        shape.analysis_notes.push(note.to_owned());
        Self {
            shape: Arc::new(shape),
            effect: self.effect.clone(),
            control: self.control.clone(),
            changes: self.changes.clone(),
            check: Check::default(),
            inner: self.inner.clone(),
            ..*self
        }
    }

    /// What a statement that nobody runs would do to its session. No catalog will tell of what it commits.
    pub(super) fn explained(analysis: &Analysis) -> Self {
        let mut changes = analysis.changes.clone();
        changes.iter_mut().for_each(|change| change.until_commit = false);
        let unknown = Readings::unknown(&analysis.command, "");
        Self {
            shape: unknown.shape.clone(),
            effect: analysis.effect.clone(),
            control: Control::None,
            redefines: Redefines::No,
            unsettling: analysis.unsettling,
            changes,
            followed: analysis.followed,
            check: Check::default(),
            inner: None,
        }
    }

    pub(super) fn is_sure(&self) -> bool {
        self.shape.analysis == Certainty::Exact
    }

    /// Whether it names a relation that the catalog does not know.
    pub(super) fn misses_a_name(&self) -> bool {
        self.shape.analysis_notes.iter().any(|note| note.starts_with("unknown relation"))
    }

    /// Whether it does nothing to the session, and is a statement by itself.
    pub(super) fn is_plain(&self) -> bool {
        self.effect == Effect::None && !self.changes_session()
    }

    pub(super) fn changes_session(&self) -> bool {
        let unseen = self.unsettling || !self.changes.is_empty();
        unseen || self.sets() || self.redefines == Redefines::Names
    }

    /// Whether it says itself what it changes.
    fn sets(&self) -> bool {
        !matches!(
            self.effect,
            Effect::None
                | Effect::Ddl
                | Effect::MayHideDdl
                | Effect::Begin
                | Effect::TransactionModes
                | Effect::ExecutePrepared { .. }
                | Effect::Fetch { .. }
                | Effect::Move { .. }
                | Effect::CopyFromStdin
                | Effect::CopyToStdout
                | Effect::CopyServerSide
        )
    }

    /// What later messages must not be read without knowing the end of.
    pub(super) fn alters(&self) -> Option<Alters> {
        Some(match &self.effect {
            Effect::DiscardAll => Alters::Everything,
            Effect::Deallocate { name: None } => Alters::Statements,
            Effect::Deallocate { name: Some(name) } | Effect::Prepare { name, .. } => {
                Alters::Statement(name.clone().into_bytes())
            }
            Effect::CloseCursor { cursor: None } => Alters::Portals,
            Effect::CloseCursor { cursor: Some(cursor) } | Effect::Declare { cursor, .. } => {
                Alters::Portal(cursor.clone().into_bytes())
            }
            // Whether a Sync among its data is one, only its end tells.
            Effect::CopyFromStdin => Alters::Meaning,
            Effect::Ddl | Effect::DiscardTemp => Alters::Meaning,
            _ if self.sets() => Alters::Meaning,
            _ => return None,
        })
    }

    fn weight(&self) -> u32 {
        let shape = &self.shape;
        let names =
            [&shape.tables, &shape.reads, &shape.filters, &shape.writes, &shape.via, &shape.analysis_notes];
        let inner = self.inner_text().map_or(0, |text| text.len());
        let bytes: usize = inner + names.into_iter().flatten().map(|name| name.len() + 24).sum::<usize>();
        u32::try_from(bytes + 512).unwrap_or(u32::MAX)
    }
}

/// Everything besides the text that a reading depends on.
#[derive(Debug, Clone)]
pub(super) struct Context {
    id: u128,
    sight: Sight,
    path: Option<Vec<String>>,
    strings_standard: bool,
    encoding: Encoding,
    doubt: Doubt,
    own: Arc<Own>,
    /// Where row security makes a difference.
    role: Option<Arc<str>>,
    replica: bool,
}

/// What is not sure of the session.
#[derive(Debug, Clone, Copy)]
struct Doubt {
    /// Role or path may have been changed out of sight.
    settings: bool,
    /// The role was set to what only the server knows.
    unknown: bool,
    /// The open transaction has changed the catalog, unseen by others.
    redefined: bool,
}

/// How bytes of statements are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Utf8,
    /// One byte a character, ASCII below 128.
    OneByte,
    /// Others: a byte below 128 may be the second half of a character.
    Unsafe,
}

impl Encoding {
    fn read(name: &str) -> Self {
        let name: String =
            name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect();
        match name.as_str() {
            "UTF8" | "UNICODE" => Encoding::Utf8,
            "SQLASCII" | "ALT" | "ABC" | "TCVN" | "VSCII" | "KOI8" => Encoding::OneByte,
            name if ["LATIN", "WIN", "ISO8859", "KOI8", "EUC"].iter().any(|p| name.starts_with(p)) => {
                Encoding::OneByte
            }
            _ => Encoding::Unsafe,
        }
    }
}

impl Context {
    pub(super) fn new(place: (&str, &str), sight: Sight, settings: &Settings) -> Self {
        let schema = sight.schema.as_ref();
        let path = schema.and_then(|schema| settings.schemas(schema));
        let encoding = Encoding::read(&settings.encoding);
        let doubt = Doubt {
            settings: settings.is_doubtful(),
            unknown: settings.role.is_none(),
            redefined: settings.redefined,
        };
        let mut hash = Sha256::new();
        let lists = path.iter().flatten().map(String::as_str);
        for part in [place.0, place.1].into_iter().chain(lists) {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update(schema.map_or(0, |schema| schema.digest()).to_le_bytes());
        hash.update([
            u8::from(path.is_some()),
            u8::from(schema.is_some()),
            u8::from(settings.strings_standard),
            encoding as u8,
            u8::from(doubt.settings),
            u8::from(doubt.unknown),
            u8::from(doubt.redefined),
            u8::from(sight.outdated),
            u8::from(settings.replica),
        ]);
        settings.own.digest(|bytes| hash.update(bytes));
        let role = settings.role.clone().filter(|_| schema.is_some_and(|schema| schema.has_policies()));
        hash.update(role.as_deref().unwrap_or_default());
        let digest: [u8; 32] = hash.finalize().into();
        let id = digest.first_chunk().map_or(0, |half| u128::from_le_bytes(*half));
        Self {
            id,
            sight,
            path,
            strings_standard: settings.strings_standard,
            encoding,
            doubt,
            own: settings.own.clone(),
            role,
            replica: settings.replica,
        }
    }

    /// The schemas searched, in order.
    pub(super) fn path(&self) -> Option<&[String]> {
        self.path.as_deref()
    }

    /// Whether a relation of this full name is there.
    pub(super) fn has_relation(&self, full: &str) -> bool {
        let kept = |relation: &Relation| !self.own.is_gone(&relation.schema, &relation.name);
        let mut known = self.sight.schema.iter().flat_map(|schema| schema.relations());
        self.own.relations().any(|relation| relation.full_name() == full)
            || known.any(|relation| relation.full_name() == full && kept(relation))
    }

    /// A column by what the server calls it; none that only the server knows.
    pub(super) fn column_of(&self, origin: Origin) -> Option<String> {
        let schema = self.sight.schema.as_deref()?;
        self.own
            .column(origin.table, origin.column)
            .or_else(|| schema.column_by_oid(origin.table, origin.column))
    }

    /// The statements of a query string.
    pub(super) fn scan(&self, text: &[u8]) -> Scan {
        if self.encoding == Encoding::Unsafe && !text.is_ascii() {
            // Where a statement ends cannot be told: it stays one, and is not resolved.
            return Scan::whole(text, self.strings_standard);
        }
        Scan::new(text, self.strings_standard)
    }

    /// A statement without its passwords; `None` if it holds none.
    pub(super) fn redact(&self, text: &[u8]) -> Option<Vec<u8>> {
        sql::redact(text, self.strings_standard)
    }

    /// A statement without its constants; `None` if where they end cannot be told.
    pub(super) fn without_constants(&self, text: &[u8]) -> Option<Vec<u8>> {
        let readable = self.encoding != Encoding::Unsafe || text.is_ascii();
        readable.then(|| sql::without_constants(text, self.strings_standard))
    }

    /// A key knows how strings are read: the server reads all statements of a string before it runs
    /// the first, so a setting that one of them changes is not yet in force.
    pub(super) fn analyze(&self, text: &[u8], strings_standard: bool, grammar: &Processes) -> Analysis {
        let settings = sql::Settings {
            search_path: self.path.as_deref().unwrap_or_default(),
            standard_conforming_strings: strings_standard,
            own: &self.own,
            role: self.role.as_deref(),
            replica: self.replica,
            grammar,
        };
        let empty = Schema::default();
        let schema = self.sight.schema.as_deref().unwrap_or(&empty);
        let mut analysis = match (std::str::from_utf8(text), self.encoding) {
            (Ok(text), Encoding::Utf8) => sql::analyze(text, schema, &settings),
            (Ok(text), _) if text.is_ascii() => sql::analyze(text, schema, &settings),
            (_, Encoding::OneByte) => {
                let text: String = text.iter().map(|byte| char::from(*byte)).collect();
                let mut analysis = sql::analyze(&text, schema, &settings);
                doubt(&mut analysis, "the client's encoding is not UTF-8: names beyond ASCII may be misread");
                analysis
            }
            _ => {
                let mut analysis = sql::analyze("", schema, &settings);
                analysis.certainty = sql::Certainty::Unresolved;
                analysis.notes = vec!["the text cannot be read in the client's encoding".into()];
                analysis
            }
        };
        self.doubt(&mut analysis);
        analysis
    }

    /// Marks what is not sure, and says why.
    fn doubt(&self, analysis: &mut Analysis) {
        if self.sight.schema.is_none() {
            doubt(analysis, "the database's catalog is not available");
        } else if self.path.is_none() || self.doubt.unknown {
            doubt(analysis, "the search_path or role of the session is not known");
        }
        if self.doubt.settings {
            doubt(
                analysis,
                "a function or block may have changed the role or search_path, or made temporary tables",
            );
        }
        if analysis.tables.is_empty() && analysis.functions.is_empty() {
            return;
        }
        if self.doubt.redefined {
            doubt(analysis, "names may have a new meaning, given in this transaction");
        }
        if self.sight.outdated {
            doubt(analysis, "the database's catalog has changed, and could not be read again");
        }
    }
}

fn doubt(analysis: &mut Analysis, note: &str) {
    if analysis.certainty == sql::Certainty::Exact {
        analysis.certainty = sql::Certainty::Partial;
    }
    analysis.notes.push(note.to_owned());
}

/// Readings of all sessions.
#[derive(Debug)]
pub(super) struct Readings {
    known: Cache<(u128, u128), Arc<Reading>>,
    tags: Vec<(String, Vec<String>)>,
    grammar: Processes,
}

impl Readings {
    /// `tags`: name, and patterns of columns that carry it.
    pub(super) fn new(tags: Vec<(String, Vec<String>)>) -> Self {
        let known =
            Cache::builder().max_capacity(MAX_BYTES).weigher(|_, r: &Arc<Reading>| r.weight()).build();
        Self { known, tags, grammar: Processes::default() }
    }

    /// Reads one statement, of which `key` came from its scan, or remembers it.
    pub(super) fn read(&self, text: &[u8], key: Key<'_>, context: &Context) -> Arc<Reading> {
        let place = (context.id, key.digest());
        if let Some(known) = self.known.get(&place) {
            return known;
        }
        let work = || self.make(text, key, context);
        let reading = if text.len() > sql::INLINE_TEXT_MAX {
            // Milliseconds of work: the other tasks of this thread move on.
            tokio::task::block_in_place(work)
        } else {
            work()
        };
        self.known.insert(place, reading.clone());
        reading
    }

    fn make(&self, text: &[u8], key: Key<'_>, context: &Context) -> Arc<Reading> {
        let analysis = context.analyze(text, key.strings_standard(), &self.grammar);
        let inner = match &analysis.effect {
            Effect::Prepare { text: inside, .. } => text.get(inside.clone()).and_then(|inside| {
                let scan = Scan::whole(inside, key.strings_standard());
                let (_, key) = scan.iter().next()?;
                let text = (inside.len() <= MAX_INNER_TEXT).then(|| inside.into());
                Some(Inner { reading: self.read(inside, key, context), text })
            }),
            _ => None,
        };
        let control = match &analysis.effect {
            Effect::Commit { .. } => Control::Commit,
            Effect::Rollback { .. } => Control::Rollback,
            Effect::PrepareTransaction => Control::Prepare,
            Effect::Savepoint { name } => Control::Savepoint(name.clone()),
            Effect::RollbackTo { name } => Control::RollbackTo(name.clone()),
            Effect::Release { name } => Control::Release(name.clone()),
            _ => Control::None,
        };
        let effect = analysis.effect.clone();
        let fingerprint = sql::fingerprint(text, key.strings_standard()).shape_hex();
        let redefines = Redefines::of(&analysis);
        let (unsettling, changes, followed) =
            (analysis.unsettling, analysis.changes.clone(), analysis.followed);
        let shape = Arc::new(self.shape(analysis, fingerprint));
        Arc::new(Reading {
            shape,
            effect,
            control,
            redefines,
            unsettling,
            changes,
            followed,
            check: Check::default(),
            inner,
        })
    }

    fn shape(&self, analysis: Analysis, fingerprint: String) -> Shape {
        let columns = || analysis.reads.iter().chain(&analysis.filters).chain(&analysis.writes);
        let tags = self
            .tags
            .iter()
            .filter(|(_, patterns)| columns().any(|column| patterns.iter().any(|p| matches(p, column))))
            .map(|(name, _)| name.clone())
            .collect();
        let mut via = analysis.via;
        via.extend(analysis.functions);
        via.sort_unstable();
        via.dedup();
        Shape {
            fingerprint,
            command: analysis.command,
            class: analysis.class.into_iter().map(class).collect(),
            tables: analysis.tables,
            reads: analysis.reads,
            filters: analysis.filters,
            writes: analysis.writes,
            via,
            analysis: match analysis.certainty {
                sql::Certainty::Exact => Certainty::Exact,
                sql::Certainty::Partial => Certainty::Partial,
                sql::Certainty::Unresolved => Certainty::Unresolved,
            },
            analysis_notes: analysis.notes,
            tags,
        }
    }

    /// A statement that leans on another (EXECUTE, FETCH): it touches what that one touches.
    pub(super) fn leaning(reading: &Arc<Reading>, on: Option<&Arc<Reading>>) -> Arc<Reading> {
        let own = &reading.shape;
        let mut shape = match on {
            Some(on) => Shape { via: own.via.clone(), ..(*on.shape).clone() },
            None => Shape {
                analysis: Certainty::Unresolved,
                analysis_notes: vec!["the statement or cursor it names was not seen being made".into()],
                ..(**own).clone()
            },
        };
        shape.fingerprint.clone_from(&own.fingerprint);
        shape.command.clone_from(&own.command);
        // What the statement does, it does when it is executed; what is not known may do anything.
        let executed = on.filter(|_| matches!(reading.effect, Effect::ExecutePrepared { .. }));
        let sets = executed.filter(|on| matches!(on.effect, Effect::Set(_) | Effect::MayHideDdl));
        Arc::new(Reading {
            shape: Arc::new(shape),
            effect: sets.unwrap_or(reading).effect.clone(),
            control: Control::None,
            redefines: on.map_or(Redefines::Perhaps, |_| sets.unwrap_or(reading).redefines),
            unsettling: on.is_none_or(|on| on.unsettling),
            changes: Vec::new(),
            followed: false,
            check: Check::default(),
            inner: None,
        })
    }

    /// A function called by its OID, which may touch anything.
    pub(super) fn called(name: Option<&str>) -> Arc<Reading> {
        let note = "called by its OID over the function-call protocol: it may touch more";
        let mut shape = Self::no_text("FUNCTION CALL", note);
        shape.class = vec![Class::Function];
        if let Some(name) = name {
            shape.via = vec![name.to_owned()];
            shape.analysis = Certainty::Partial;
        }
        let unsettling =
            name.is_none_or(|name| !name.starts_with("pg_catalog.") || name.ends_with(".set_config"));
        Self::without_text(Arc::new(shape), unsettling)
    }

    fn without_text(shape: Arc<Shape>, unsettling: bool) -> Arc<Reading> {
        Arc::new(Reading {
            shape,
            effect: Effect::MayHideDdl,
            control: Control::None,
            redefines: Redefines::Perhaps,
            unsettling,
            changes: Vec::new(),
            followed: false,
            check: Check::default(),
            inner: None,
        })
    }

    /// A command of the replication protocol.
    pub(super) fn replication(command: &walsender::Command) -> Arc<Reading> {
        const NOTE: &str = "a replication command names no tables: everything in the database, or in all \
                            databases of the server, may be read by it";
        let facts = command.reach == walsender::Reach::Facts;
        let reading = Self::unknown(command.name, NOTE);
        let mut shape = (*reading.shape).clone();
        if facts {
            shape.analysis = Certainty::Exact;
            shape.analysis_notes.clear();
        } else {
            shape.class = vec![Class::Read];
        }
        Arc::new(Reading {
            shape: Arc::new(shape),
            effect: Effect::None,
            control: Control::None,
            redefines: Redefines::No,
            unsettling: false,
            changes: Vec::new(),
            followed: false,
            check: Check::default(),
            inner: None,
        })
    }

    /// An execution of which no text is known.
    pub(super) fn unknown(command: &str, note: &str) -> Arc<Reading> {
        let shape = Arc::new(Self::no_text(command, note));
        Self::without_text(shape, true)
    }

    fn no_text(command: &str, note: &str) -> Shape {
        Shape {
            fingerprint: String::new(),
            command: command.to_owned(),
            class: vec![Class::Misc],
            tables: Vec::new(),
            reads: Vec::new(),
            filters: Vec::new(),
            writes: Vec::new(),
            via: Vec::new(),
            analysis: Certainty::Unresolved,
            analysis_notes: vec![note.to_owned()],
            tags: Vec::new(),
        }
    }
}

fn class(class: sql::Class) -> Class {
    match class {
        sql::Class::Read => Class::Read,
        sql::Class::Write => Class::Write,
        sql::Class::Function => Class::Function,
        sql::Class::Role => Class::Role,
        sql::Class::Ddl => Class::Ddl,
        sql::Class::Misc => Class::Misc,
    }
}

/// Whether `schema.table.column` fits a pattern: parts from the right, each a name or `*`.
fn matches(pattern: &str, column: &str) -> bool {
    let mut parts = column.rsplit('.');
    pattern.rsplit('.').all(|wanted| parts.next().is_some_and(|part| wanted == "*" || wanted == part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_patterns_fit_from_the_right() {
        assert!(matches("*.email", "public.customers.email"));
        assert!(matches("billing.cards.*", "billing.cards.last4"));
        assert!(!matches("billing.cards.*", "public.cards.last4"));
        assert!(!matches("*.email", "public.customers.email_hash"));
    }
}
