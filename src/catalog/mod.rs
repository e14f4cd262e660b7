//! What names mean in one database: relations, columns, views, functions, constraints.
//!
//! A [`Schema`] is a value. It is read from the rows of SQL statements ([`statement`]) that the caller runs on a
//! connection of its own; nothing here opens a socket, and nothing here changes after it was built. It knows what
//! was committed when the statement ran; temporary tables are no part of it.

mod load;
mod stamps;
mod unsettling;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub use load::{CatalogError, Rows, read, read_onto};
pub use stamps::{Changes, Stamps};

/// Which objects a load reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'c> {
    /// All of them.
    All,
    /// Those that came with the server: most of the work, and hardly ever changed.
    System,
    /// The others, the names of all schemas, and the settings of roles and databases.
    User,
    /// Of those only these; the names and settings as ever.
    Changed(&'c Changes),
}

/// A SQL statement, for a simple query as any role; it returns nine columns of text.
///
/// It takes no locks on what it tells about: a view that somebody is changing makes nobody wait. Its
/// names are qualified, so that no search path can change their meaning; operators are looked up as
/// usual, so run it on a connection whose path nobody else has set. Temporary tables are left out: only
/// the session that has them can use them.
#[must_use]
pub fn statement(part: Part<'_>) -> String {
    // FirstNormalObjectId.
    let (relations, functions, small) = match part {
        Part::All => (">= 0".into(), ">= 0".into(), true),
        Part::System => ("< 16384".into(), "< 16384".into(), false),
        Part::User => (">= 16384".into(), ">= 16384".into(), true),
        Part::Changed(changes) => (any_of(&changes.relations), any_of(&changes.functions), true),
    };
    let small = if small { "true" } else { "false" };
    include_str!("load.sql")
        .replace(":relations", &relations)
        .replace(":functions", &functions)
        .replace(":small", small)
}

fn any_of(oids: &[u32]) -> String {
    let oids: Vec<String> = oids.iter().map(u32::to_string).collect();
    format!("= any ('{{{}}}'::pg_catalog.oid[])", oids.join(","))
}

/// What a relation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RelationKind {
    /// An ordinary table.
    Table,
    /// A partitioned table.
    Partitioned,
    /// A view.
    View,
    /// A materialized view.
    MaterializedView,
    /// A foreign table.
    Foreign,
    /// A sequence.
    Sequence,
    /// A composite type; it holds no rows.
    Composite,
    /// The storage of large values of another table.
    Toast,
}

/// One live column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The column's number; dropped columns leave gaps.
    pub number: i16,
    /// Its name as stored.
    pub name: Box<str>,
    /// Whether it is computed from other columns.
    pub generated: bool,
}

/// Columns of one relation that a view reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The relation read.
    pub oid: u32,
    /// The numbers of the columns read; zero stands for the whole row.
    pub columns: Box<[i16]>,
}

/// Where a column of a simple view comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The view's own column number.
    pub column: i16,
    /// The relation below.
    pub base: u32,
    /// The column of that relation.
    pub base_column: i16,
}

/// What a rewrite rule does besides, or instead of, what a statement says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub name: Box<str>,
    /// The command that it acts on.
    pub event: Change,
    /// The command itself does not run.
    pub instead: bool,
    /// What its conditions and actions touch.
    pub touches: Vec<Touch>,
    /// In which sessions it fires.
    pub fires: Fires,
}

/// In which sessions a rule or trigger fires, by their `session_replication_role`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fires {
    /// Where it is `origin` or `local`.
    Origin,
    /// Where it is `replica`.
    Replica,
    /// In all.
    Always,
}

impl Fires {
    /// Whether it fires in a session.
    #[must_use]
    pub fn in_session(self, replica: bool) -> bool {
        match self {
            Self::Origin => !replica,
            Self::Replica => replica,
            Self::Always => true,
        }
    }
}

/// A trigger that is not PostgreSQL's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    /// The function it calls, by oid.
    pub function: u32,
    /// `pg_trigger.tgtype`: bits for when it fires.
    pub bits: u32,
    /// In which sessions it fires.
    pub fires: Fires,
}

impl Trigger {
    /// Whether a change of rows makes it fire; TRUNCATE is none.
    #[must_use]
    pub fn is_on(&self, change: Change) -> bool {
        // TRIGGER_TYPE_INSERT, _DELETE, _UPDATE
        let bit = match change {
            Change::Insert => 4,
            Change::Delete => 8,
            Change::Update => 16,
        };
        self.bits & bit != 0
    }
}

/// A command that changes rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// UPDATE
    Update,
    /// INSERT
    Insert,
    /// DELETE
    Delete,
}

/// One relation that a rule touches; 0 among the columns is the whole row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touch {
    /// The relation.
    pub oid: u32,
    /// Columns read.
    pub selected: Box<[i16]>,
    /// Columns written.
    pub written: Box<[i16]>,
    /// Its rows are changed, so its own rules apply too.
    pub changed: Option<Change>,
}

/// A function that did not come with the server, and that a relation calls by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The function, by oid.
    pub function: u32,
    /// When it is called.
    pub when: When,
}

/// When a relation calls a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// It is looked into: a view's own query.
    Looked,
    /// Its rules do something at such a change.
    Ruled(Change),
    /// A row is put in and the column of this number is not given.
    Default(i16),
    /// Rows are put in or updated: a CHECK constraint.
    Checked,
    /// Rows are changed: the condition of a trigger.
    Triggered,
}

/// A row security policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub name: Box<str>,
    /// PostgreSQL's letter for the command that it applies to: `r`, `a`, `w`, `d`, or `*` for all.
    pub command: char,
    /// The roles that it applies to, by oid; 0 is everybody.
    pub roles: Vec<u32>,
    /// What its condition on rows that are there touches, besides its table.
    pub looks: Vec<Touch>,
    /// What its condition on new rows touches.
    pub checks: Vec<Touch>,
    /// The functions that it calls and that did not come with the server, as text.
    pub functions: Box<str>,
}

/// A role, as far as row security needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Its identity in the cluster.
    pub oid: u32,
    /// Row security does not apply to it.
    pub bypasses: bool,
    /// The roles whose privileges it has, of those that policies and their tables know.
    pub has: Vec<u32>,
}

/// One relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// Its identity in the database.
    pub oid: u32,
    /// Its schema; `pg_temp` for a temporary table of the session.
    pub schema: Box<str>,
    /// Its name as stored.
    pub name: Box<str>,
    /// What it is.
    pub kind: RelationKind,
    /// Its live columns, in order.
    pub columns: Vec<Column>,
    /// The tables it inherits from or is a partition of.
    pub parents: Vec<u32>,
    /// What a view or materialized view reads.
    pub bases: Vec<Base>,
    /// For a view that can be written through: where its columns go.
    pub origins: Vec<Origin>,
    /// Rules that add to or replace what a statement does.
    pub rules: Vec<Rule>,
    /// Its owner's oid.
    pub owner: u32,
    /// Row security policies that touch more than its own rows.
    pub policies: Vec<Policy>,
    /// They apply to its owner too.
    pub forces_policies: bool,
    /// A view that looks below with the rights of who asks, not of its owner.
    pub is_invoker: bool,
    /// A view WITH CHECK OPTION.
    pub is_checked: bool,
    /// INSTEAD OF triggers do what a statement says.
    pub has_instead_triggers: bool,
    /// Its triggers.
    pub triggers: Vec<Trigger>,
    /// Unique, primary key and exclusion constraints.
    pub constraints: Vec<Constraint>,
    /// Functions that its query, rules, defaults, checks and triggers' conditions call.
    pub calls: Vec<Call>,
    full: Box<str>,
}

impl Relation {
    /// A relation that no catalog tells of yet: its columns are numbered from one.
    #[must_use]
    pub fn new(oid: u32, schema: &str, name: &str, kind: RelationKind, columns: Vec<String>) -> Self {
        let columns =
            (1..).zip(columns).map(|(number, name)| Column { number, name: name.into(), generated: false });
        Self {
            oid,
            schema: schema.into(),
            name: name.into(),
            kind,
            columns: columns.collect(),
            parents: Vec::new(),
            bases: Vec::new(),
            origins: Vec::new(),
            rules: Vec::new(),
            owner: 0,
            policies: Vec::new(),
            forces_policies: false,
            is_invoker: false,
            is_checked: false,
            has_instead_triggers: false,
            triggers: Vec::new(),
            constraints: Vec::new(),
            calls: Vec::new(),
            full: format!("{}.{}", quoted(schema), quoted(name)).into(),
        }
    }

    /// The same relation under another name.
    #[must_use]
    pub fn renamed(&self, schema: &str, name: &str) -> Self {
        let full = format!("{}.{}", quoted(schema), quoted(name)).into();
        Self { schema: schema.into(), name: name.into(), full, ..self.clone() }
    }

    /// `schema.name`, quoted where PostgreSQL would need it.
    #[must_use]
    pub fn full_name(&self) -> &str {
        &self.full
    }

    /// The live column of that name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| &*column.name == name)
    }

    /// The name of a column by number, system columns included.
    #[must_use]
    pub fn column_name(&self, number: i16) -> Option<&str> {
        match number {
            1.. => self.columns.iter().find(|column| column.number == number).map(|column| &*column.name),
            _ => SYSTEM_COLUMNS.iter().find(|(known, _)| *known == number).map(|(_, name)| *name),
        }
    }

    /// The unique, primary key or exclusion constraint of that name.
    #[must_use]
    pub fn constraint(&self, name: &str) -> Option<&Constraint> {
        self.constraints.iter().find(|known| &*known.name == name)
    }

    /// Whether rows can be selected from it.
    #[must_use]
    pub fn holds_rows(&self) -> bool {
        self.kind != RelationKind::Composite
    }
}

/// The columns that every table has besides its own.
pub const SYSTEM_COLUMNS: &[(i16, &str)] =
    &[(-1, "ctid"), (-2, "xmin"), (-3, "cmin"), (-4, "xmax"), (-5, "cmax"), (-6, "tableoid")];

/// How often a function's answer may change, and what it may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Volatility {
    /// Depends on its arguments alone.
    Immutable,
    /// Reads the database only.
    Stable,
    /// May do anything.
    Volatile,
}

/// One function, procedure, aggregate or window function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its identity in the database.
    pub oid: u32,
    /// Its schema.
    pub schema: Box<str>,
    /// Its name as stored.
    pub name: Box<str>,
    /// How many arguments it takes.
    pub arguments: u16,
    /// How many of them have a default.
    pub defaults: u16,
    /// The language of its body.
    pub language: Box<str>,
    /// PostgreSQL's letter: `f`, `p`, `a` or `w`.
    pub kind: char,
    /// What it may do.
    pub volatility: Volatility,
    /// Whether it runs with the rights of its owner.
    pub security_definer: bool,
    /// The names of its output columns, when it has any of its own.
    pub outputs: Vec<Box<str>>,
    /// The relation whose row type it returns.
    pub returns_row_of: Option<u32>,
    /// The source of a SQL or PL/pgSQL function outside the system schemas, capped.
    pub body: Option<Box<str>>,
}

/// A parameter that a role or database sets at login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginSetting {
    /// The role, or none for every role.
    pub role: Option<Box<str>>,
    /// The parameter in lower case.
    pub name: Box<str>,
    /// Its value as stored.
    pub value: Box<str>,
}

/// A constraint that rows are told apart by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    /// Its name.
    pub name: Box<str>,
    /// The numbers of its columns.
    pub columns: Box<[i16]>,
}

/// What names mean in one database. A copy shares the objects.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    /// The sum of the digests of all rows: the same whatever order they came in, and in how many parts.
    digest: u64,
    schemas: HashMap<Box<str>, Names>,
    relations: HashMap<u32, Arc<Relation>>,
    functions: HashMap<u32, Arc<Function>>,
    /// What rows add to the digest, of each relation and function, and of all the rest that is read anew each time.
    digests: HashMap<Object, u64>,
    /// A line for each built-in function: oid, name, types of its arguments. Text, for it is asked seldom.
    signatures: Arc<str>,
    /// Names of functions that may change what the session has set.
    unsettling: Arc<HashSet<Box<str>>>,
    settings: Vec<LoginSetting>,
    /// By name; empty where no table has a policy.
    roles: HashMap<Box<str>, Role>,
}

/// What rows tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Object {
    Relation(u32),
    Function(u32),
    /// Names of schemas, settings at login, roles: read anew each time.
    Small,
    /// Names of built-in functions.
    Builtins,
}

#[derive(Debug, Clone, Default)]
struct Names {
    relations: HashMap<Box<str>, u32>,
    functions: HashMap<Box<str>, Vec<u32>>,
}

impl Schema {
    /// Changes whenever anything that a name could mean has changed.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Whether a schema of that name exists.
    #[must_use]
    pub fn has_schema(&self, schema: &str) -> bool {
        self.schemas.contains_key(schema)
    }

    /// Every relation, in no order.
    pub fn relations(&self) -> impl Iterator<Item = &Relation> {
        self.relations.values().map(Arc::as_ref)
    }

    /// The relation `schema.name`.
    #[must_use]
    pub fn relation(&self, schema: &str, name: &str) -> Option<&Relation> {
        self.by_oid(*self.schemas.get(schema)?.relations.get(name)?)
    }

    /// The schema and name of a relation, by oid; for checks against what the server describes.
    #[must_use]
    pub fn relation_by_oid(&self, oid: u32) -> Option<(&str, &str)> {
        self.by_oid(oid).map(|relation| (&*relation.schema, &*relation.name))
    }

    /// A relation by oid.
    #[must_use]
    pub fn by_oid(&self, oid: u32) -> Option<&Relation> {
        self.relations.get(&oid).map(Arc::as_ref)
    }

    /// `schema.table.column` for a column as the server's row description names it.
    #[must_use]
    pub fn column_by_oid(&self, oid: u32, number: i16) -> Option<String> {
        let relation = self.by_oid(oid)?;
        Some(format!("{}.{}", relation.full_name(), quoted(relation.column_name(number)?)))
    }

    /// The functions called `schema.name`.
    pub fn functions(&self, schema: &str, name: &str) -> impl Iterator<Item = &Function> {
        let found = self.schemas.get(schema).and_then(|names| names.functions.get(name));
        found.into_iter().flatten().filter_map(|oid| self.function_by_oid(*oid))
    }

    /// Whether a function that did not come with the server has this name, in whatever schema.
    #[must_use]
    pub fn has_own_function(&self, name: &str) -> bool {
        let mut others = self.schemas.iter().filter(|(schema, _)| &***schema != SYSTEM_SCHEMA);
        others.any(|(_, names)| names.functions.contains_key(name))
    }

    /// Whether any function is called `schema.name`, built-in ones included.
    #[must_use]
    pub fn has_function(&self, schema: &str, name: &str) -> bool {
        self.schemas.get(schema).is_some_and(|names| names.functions.contains_key(name))
    }

    /// A function by oid; most built-in ones are known by name only.
    #[must_use]
    pub fn function_by_oid(&self, oid: u32) -> Option<&Function> {
        self.functions.get(&oid).map(Arc::as_ref)
    }

    /// Whether a function of this name may change what the session has set, or make temporary tables.
    #[must_use]
    pub fn is_unsettling(&self, function: &str) -> bool {
        !self.unsettling.is_empty() && self.unsettling.contains(function.to_ascii_lowercase().as_str())
    }

    /// Whether the body of a block may do that.
    #[must_use]
    pub fn unsettles(&self, body: &str) -> bool {
        unsettling::unsettles(body, &self.unsettling)
    }

    /// The name of a built-in function and the types of its arguments, by oid.
    #[must_use]
    pub fn builtin_by_oid(&self, oid: u32) -> Option<(&str, Vec<u32>)> {
        let oid = oid.to_string();
        let mut lines = self.signatures.lines();
        let rest = lines.find_map(|line| line.strip_prefix(oid.as_str())?.strip_prefix(' '))?;
        let (name, types) = rest.split_once(' ')?;
        Some((name, types.split_ascii_whitespace().filter_map(|oid| oid.parse().ok()).collect()))
    }

    /// The same without what changes tell of, and without what every load reads anew: onto this, rows of the changed
    /// objects can be read.
    #[must_use]
    pub fn without(&self, changes: &Changes) -> Self {
        let mut left = self.clone();
        for oid in changes.relations.iter().chain(&changes.dropped_relations) {
            left.digests.remove(&Object::Relation(*oid));
            let Some(relation) = left.relations.remove(oid) else { continue };
            if let Some(names) = left.schemas.get_mut(&relation.schema) {
                // Another one may have taken the name.
                if names.relations.get(&relation.name) == Some(oid) {
                    names.relations.remove(&relation.name);
                }
            }
        }
        for oid in changes.functions.iter().chain(&changes.dropped_functions) {
            left.digests.remove(&Object::Function(*oid));
            let Some(function) = left.functions.remove(oid) else { continue };
            let Some(names) = left.schemas.get_mut(&function.schema) else { continue };
            if let Some(found) = names.functions.get_mut(&function.name) {
                found.retain(|known| known != oid);
                if found.is_empty() && &*function.schema != SYSTEM_SCHEMA {
                    names.functions.remove(&function.name);
                }
            }
        }
        if !changes.dropped_functions.is_empty() {
            left.find_unsettling();
        }
        left.digests.remove(&Object::Small);
        left.settings.clear();
        left.roles.clear();
        left
    }

    /// Reads the bodies of all functions.
    fn find_unsettling(&mut self) {
        let functions: Vec<&Function> = self.functions.values().map(Arc::as_ref).collect();
        self.unsettling = Arc::new(unsettling::names(&functions));
    }

    /// A role by name. None is known where no table has a policy.
    #[must_use]
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name)
    }

    /// Whether any table has a policy, so that a statement's meaning depends on who asks.
    #[must_use]
    pub fn has_policies(&self) -> bool {
        !self.roles.is_empty()
    }

    /// The policies of a relation that apply to a role.
    pub fn policies_for<'s>(&'s self, relation: &'s Relation, role: u32) -> impl Iterator<Item = &'s Policy> {
        let role = self.roles.values().find(|known| known.oid == role);
        let has = move |oid: u32| role.is_some_and(|role| role.has.contains(&oid));
        let exempt =
            role.is_some_and(|role| role.bypasses) || (has(relation.owner) && !relation.forces_policies);
        relation
            .policies
            .iter()
            .filter(move |policy| !exempt && policy.roles.iter().any(|oid| *oid == 0 || has(*oid)))
    }

    /// The parameters that roles or this database set at login.
    #[must_use]
    pub fn login_settings(&self) -> &[LoginSetting] {
        &self.settings
    }
}

/// Its functions are known by name even where they are not loaded.
const SYSTEM_SCHEMA: &str = "pg_catalog";

/// A name as SQL would write it: quoted unless it is lower case letters, digits and underscores.
#[must_use]
pub fn quoted(name: &str) -> std::borrow::Cow<'_, str> {
    let mut bytes = name.bytes();
    let plain = bytes.next().is_some_and(|first| first.is_ascii_lowercase() || first == b'_')
        && bytes
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'$');
    if plain { name.into() } else { format!("\"{}\"", name.replace('"', "\"\"")).into() }
}
