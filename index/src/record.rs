//! What is remembered: one [`Record`] for each thing that happened, and what became of it.
//!
//! A record is written when a thing starts; a [`Completion`] tells later how it ended, a
//! [`Settlement`] how the transaction around it ended. All three are journal entries; only records
//! take a [`Seq`], so `seq` is contiguous for whoever reads the log. This module holds values only:
//! no files, no clock.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

pub use seal::{ERASABLE_VALUES, Seal, Seals};
pub use template::{Spliced, Template, WrongHoles};

mod seal;
mod template;

/// Position of a record in the journal: contiguous, starting at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A SHA-256 value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Microseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

/// Declares an enum whose values have one fixed word each, used in the record and in queries.
/// The position in the list is the value's code on disk: only ever append.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vmeta])* $variant),+ }

        impl $name {
            /// Every value, in the order of its code on disk.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The word users meet.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }

            /// The value for a word, if it is one of ours.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some($name::$variant),)+ _ => None }
            }

            /// The code on disk.
            pub const fn code(self) -> u8 {
                self as u8
            }

            /// The value for a code on disk.
            pub fn from_code(code: u8) -> Option<Self> {
                Self::ALL.get(usize::from(code)).copied()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// What kind of thing happened.
    Event {
        /// A statement was executed, or would have been (outcome `skipped`).
        Query = "query",
        /// A person was shown a login link.
        LoginPrompted = "login.prompted",
        /// A login was approved and verified.
        LoginOk = "login.ok",
        /// A login ended without a verified identity.
        LoginFailed = "login.failed",
        /// The person or the provider said no.
        LoginDenied = "login.denied",
        /// Nobody approved in time.
        LoginExpired = "login.expired",
        /// Too many failures.
        LoginLocked = "login.locked",
        /// A database session began.
        SessionStart = "session.start",
        /// A database session ended.
        SessionEnd = "session.end",
        /// A cancel request was accepted or refused.
        Cancel = "cancel",
        /// Something was refused before it reached the database.
        Denied = "denied",
        /// The gateway was away; what ended meanwhile was not seen.
        Gap = "gap",
        /// Somebody searched the log.
        AuditSearch = "audit.search",
        /// Somebody exported from the log.
        AuditExport = "audit.export",
        /// The configuration was read again.
        ConfigReload = "config.reload",
        /// An alert rule matched.
        Alert = "alert",
        /// A login, or all of a person's, was ended by an administrator or its owner.
        LoginRevoked = "login.revoked",
        /// Somebody who had failed too often logged in.
        LoginUnlocked = "login.unlocked",
        /// The provider told of changes in a login.
        LoginRefreshed = "login.refreshed",
        /// Somebody who had logged in asked for a role, a database or a kind of connection that is not theirs.
        RoleDenied = "role.denied",
        /// What is kept was changed by a rule: texts dropped, records dropped, a legal hold set or lifted.
        Retention = "retention",
        /// Somebody had values of one record erased.
        AuditErase = "audit.erase",
    }
}

words! {
    /// How one execution ended, as the server answered it.
    Outcome {
        /// It ended well.
        Ok = "ok",
        /// The server answered with an error.
        Error = "error",
        /// We refused it.
        Denied = "denied",
        /// It was cancelled.
        Canceled = "canceled",
        /// It never ran: an earlier statement of its pipeline or string failed.
        Skipped = "skipped",
        /// The end was not seen.
        Unknown = "unknown",
    }
}

words! {
    /// How the transaction around an execution ended.
    TxnOutcome {
        /// Its effects stand.
        Committed = "committed",
        /// Its effects were undone.
        RolledBack = "rolled_back",
        /// The transaction had not ended yet.
        Open = "open",
        /// It was not part of a transaction (a login, a refusal).
        None = "none",
        /// The end was not seen.
        Unknown = "unknown",
    }
}

words! {
    /// How sure we are of tables and columns.
    Certainty {
        /// As the database itself would say.
        Exact = "exact",
        /// Something is missing or guessed; the notes say what.
        Partial = "partial",
        /// Not understood.
        Unresolved = "unresolved",
    }
}

words! {
    /// pgaudit's words for kinds of statements.
    Class {
        /// SELECT, and COPY from a table.
        Read = "read",
        /// INSERT, UPDATE, DELETE, MERGE, TRUNCATE, and COPY to a table.
        Write = "write",
        /// Function calls and DO.
        Function = "function",
        /// Roles and privileges.
        Role = "role",
        /// Everything that changes the schema, except roles.
        Ddl = "ddl",
        /// The rest: SET, BEGIN, FETCH, VACUUM...
        Misc = "misc",
    }
}

/// Who did it and from where: shared by the records of one connection until one of the facts
/// changes (role, search_path, application_name may). Empty strings and lists mean "not known".
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Who {
    /// The verified name (by default the e-mail claim).
    pub user: String,
    /// The provider's own id of the person.
    pub sub: String,
    /// The provider.
    pub iss: String,
    /// Verified groups.
    pub groups: Vec<String>,
    /// Id of the approval.
    pub login: String,
    /// Id of the connection.
    pub session: String,
    /// How the login was verified, as pairs in the order to show them: mode, amr, acr, auth_time,
    /// iat, exp, jti, kid, email, email_verified, groups_sha256; for a session also tls, the client's
    /// certificate and the rule that gave the role.
    pub auth: Vec<(String, String)>,
    /// The effective database role at execution.
    pub role: String,
    /// Database name.
    pub db: String,
    /// Name of the upstream in the configuration.
    pub upstream: String,
    /// The session's search_path at execution.
    pub search_path: String,
    /// Client address, without the port.
    pub ip: String,
    /// Client's application_name.
    pub app: String,
    /// Device id.
    pub device: String,
}

/// What a statement touches: shared by all executions of statements of one shape under one catalog.
/// Lists are sorted and without doubles.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Literal-free hash of the text, lower-case hex.
    pub fingerprint: String,
    /// The command as the text names it (`SELECT`, `CREATE TABLE`).
    pub command: String,
    /// Kinds of statement.
    pub class: Vec<Class>,
    /// `schema.table`, views included.
    pub tables: Vec<String>,
    /// `schema.table.column` that reach the result.
    pub reads: Vec<String>,
    /// `schema.table.column` used only in predicates, joins, grouping, ordering.
    pub filters: Vec<String>,
    /// `schema.table.column` written.
    pub writes: Vec<String>,
    /// Views or functions through which a base table was reached.
    pub via: Vec<String>,
    /// How sure we are.
    pub analysis: Certainty,
    /// Why we are not sure.
    pub analysis_notes: Vec<String>,
    /// From the configuration's `capture.tags` (`pii`, `pci`).
    pub tags: Vec<String>,
}

/// The exact text of a statement. Text that will come again (a prepared statement) is shared, and
/// the journal writes it once per segment. Equal if the bytes are.
#[derive(Debug, Clone)]
pub enum Sql {
    /// Expected once.
    Once(Box<[u8]>),
    /// Expected again: the same `Arc` is recognised by its address.
    Shared(Arc<[u8]>),
    /// Read from the journal, which wrote what it has in common with others once.
    Spliced(Spliced),
}

impl Sql {
    /// The bytes exactly as the client sent them.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Sql::Once(bytes) => bytes,
            Sql::Shared(bytes) => bytes,
            Sql::Spliced(spliced) => spliced.as_bytes(),
        }
    }
}

impl PartialEq for Sql {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Sql {}

/// One bound parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum Param {
    /// SQL NULL.
    Null,
    /// Of type bool.
    Bool(bool),
    /// int2, int4, int8, oid.
    Int(i64),
    /// float4, float8 (finite).
    Float(f64),
    /// Text format, or a binary value whose text form is known.
    Text(String),
    /// Binary of a type not decoded, or text that is not UTF-8.
    Bytes(Vec<u8>),
}

/// One thing that happened, as known when it started.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Unique for ever (UUIDv7).
    pub id: Uuid,
    /// When it started, by the gateway's clock.
    pub time: Timestamp,
    /// What kind of thing.
    pub event: Event,
    /// Who did it.
    pub who: Arc<Who>,
    /// Exact text, for statements.
    pub sql: Option<Sql>,
    /// What it touches, for statements.
    pub shape: Option<Arc<Shape>>,
    /// Bound parameters.
    pub params: Vec<Param>,
    /// The name the client gave the statement or portal, function name for FunctionCall; for other
    /// events a sentence for people.
    pub detail: String,
    /// For things that are over at once (logins, refusals); `None` promises a [`Completion`].
    pub done: Option<Completion>,
}

/// How a record's execution ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// Which record. Ignored inside [`Record::done`].
    pub seq: Seq,
    /// How it ended.
    pub outcome: Outcome,
    /// How its transaction ended, as far as known now; `Open` promises a [`Settlement`].
    pub txn_outcome: TxnOutcome,
    /// The command tag's words (`INSERT`, `SELECT`), empty if none came.
    pub command: Cow<'static, str>,
    /// Rows returned, written or copied; `None` if the server did not say.
    pub rows: Option<u64>,
    /// Bytes of rows (DataRow and CopyData bodies) that passed, both ways.
    pub bytes: u64,
    /// From forwarding to the end, microseconds.
    pub duration_us: u64,
    /// Five letters, empty if none.
    pub sqlstate: String,
    /// The server's primary message, or why we refused.
    pub error: String,
    /// More reasons to doubt tables and columns, learned from the answer. Makes `exact` `partial`.
    pub notes: Vec<String>,
}

impl Completion {
    /// An end with an outcome and nothing else to say.
    pub fn new(outcome: Outcome, txn_outcome: TxnOutcome) -> Self {
        Self {
            seq: Seq(0),
            outcome,
            txn_outcome,
            command: Cow::default(),
            rows: None,
            bytes: 0,
            duration_us: 0,
            sqlstate: String::new(),
            error: String::new(),
            notes: Vec::new(),
        }
    }
}

/// How a transaction ended, for the records that were `open` in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// The records, in order.
    pub seqs: Vec<Seq>,
    /// How it ended.
    pub txn_outcome: TxnOutcome,
}

/// One entry of the journal.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// Something started. Takes the next [`Seq`].
    Record(Box<Record>),
    /// It ended.
    Completion(Completion),
    /// Its transaction ended.
    Settlement(Settlement),
}
