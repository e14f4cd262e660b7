//! What names mean in one database: relations, columns, views, functions, constraints.
//!
//! A [`Schema`] is a value. It is read from the rows of SQL statements ([`statement`]) that the caller runs on a
//! connection of its own; nothing here opens a socket, and nothing here changes after it was built. It knows what
//! was committed (and visible to that connection) when the statement ran: temporary tables of other sessions are
//! known by their own schema name, those of the loading connection under `pg_temp`.

mod load;
mod unsettling;

use std::collections::{HashMap, HashSet};

pub use load::{CatalogError, Rows, read, read_onto};

/// Which objects a load reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of them.
    All,
    /// Those that came with the server: most of the work, and hardly ever changed.
    System,
    /// The others, the names of all schemas, and the settings of roles and databases.
    User,
}

/// A SQL statement, for a simple query as any role; it returns nine columns of text.
///
/// It takes no locks on what it tells about: a view that somebody is changing makes nobody wait. Its
/// names are qualified, so that no search path can change their meaning; operators are looked up as
/// usual, so run it on a connection whose path nobody else has set.
#[must_use]
pub fn statement(part: Part) -> String {
    // FirstNormalObjectId.
    let bound = match part {
        Part::All => ">= 0",
        Part::System => "< 16384",
        Part::User => ">= 16384",
    };
    include_str!("load.sql").replace(":part", bound)
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
    /// Its type as PostgreSQL writes it.
    pub type_name: Box<str>,
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

/// A row security policy that looks beyond its own table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub name: Box<str>,
    /// The relations and functions that it names.
    pub names: Box<str>,
}

/// One relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// Its identity in the database.
    pub oid: u32,
    /// Its schema; `pg_temp` for a temporary table of the connection that loaded the catalog.
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
    /// Row security policies that look beyond it.
    pub policies: Vec<Policy>,
    /// A view WITH CHECK OPTION.
    pub is_checked: bool,
    /// INSTEAD OF triggers do what a statement says.
    pub has_instead_triggers: bool,
    /// Functions called by triggers, by oid.
    pub triggers: Vec<u32>,
    full: Box<str>,
}

impl Relation {
    /// A relation that no catalog tells of yet: its columns are numbered from one.
    #[must_use]
    pub fn new(oid: u32, schema: &str, name: &str, kind: RelationKind, columns: Vec<String>) -> Self {
        let columns = (1..).zip(columns).map(|(number, name)| Column {
            number,
            name: name.into(),
            type_name: Box::default(),
            generated: false,
        });
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
            policies: Vec::new(),
            is_checked: false,
            has_instead_triggers: false,
            triggers: Vec::new(),
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

/// What names mean in one database.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    digest: u64,
    schemas: HashMap<Box<str>, Names>,
    relations: Vec<Relation>,
    by_oid: HashMap<u32, usize>,
    functions: Vec<Function>,
    function_by_oid: HashMap<u32, usize>,
    constraints: HashMap<u32, Vec<Constraint>>,
    /// A line for each built-in function: oid, name, types of its arguments. Text, for it is asked seldom.
    signatures: Box<str>,
    /// Names of functions that may change what the session has set.
    unsettling: HashSet<Box<str>>,
    settings: Vec<LoginSetting>,
}

/// A constraint's name and its columns.
type Constraint = (Box<str>, Box<[i16]>);

#[derive(Debug, Clone, Default)]
struct Names {
    relations: HashMap<Box<str>, usize>,
    functions: HashMap<Box<str>, Vec<usize>>,
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
    #[must_use]
    pub fn relations(&self) -> &[Relation] {
        &self.relations
    }

    /// The relation `schema.name`.
    #[must_use]
    pub fn relation(&self, schema: &str, name: &str) -> Option<&Relation> {
        let at = *self.schemas.get(schema)?.relations.get(name)?;
        self.relations.get(at)
    }

    /// The schema and name of a relation, by oid; for checks against what the server describes.
    #[must_use]
    pub fn relation_by_oid(&self, oid: u32) -> Option<(&str, &str)> {
        self.by_oid(oid).map(|relation| (&*relation.schema, &*relation.name))
    }

    /// A relation by oid.
    #[must_use]
    pub fn by_oid(&self, oid: u32) -> Option<&Relation> {
        self.relations.get(*self.by_oid.get(&oid)?)
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
        found.into_iter().flatten().filter_map(|at| self.functions.get(*at))
    }

    /// Whether any function is called `schema.name`, built-in ones included.
    #[must_use]
    pub fn has_function(&self, schema: &str, name: &str) -> bool {
        self.schemas.get(schema).is_some_and(|names| names.functions.contains_key(name))
    }

    /// A function by oid; most built-in ones are known by name only.
    #[must_use]
    pub fn function_by_oid(&self, oid: u32) -> Option<&Function> {
        self.functions.get(*self.function_by_oid.get(&oid)?)
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

    /// The columns of a unique, primary key or exclusion constraint.
    #[must_use]
    pub fn constraint(&self, relation: u32, name: &str) -> Option<&[i16]> {
        let found = self.constraints.get(&relation)?;
        found.iter().find(|(known, _)| &**known == name).map(|(_, columns)| &**columns)
    }

    /// The parameters that roles or this database set at login.
    #[must_use]
    pub fn login_settings(&self) -> &[LoginSetting] {
        &self.settings
    }
}

/// A name as SQL would write it: quoted unless it is lower case letters, digits and underscores.
#[must_use]
pub fn quoted(name: &str) -> std::borrow::Cow<'_, str> {
    let mut bytes = name.bytes();
    let plain = bytes.next().is_some_and(|first| first.is_ascii_lowercase() || first == b'_')
        && bytes
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'$');
    if plain { name.into() } else { format!("\"{}\"", name.replace('"', "\"\"")).into() }
}
