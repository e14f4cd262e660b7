//! The fields a query may name, their aliases, and how each is compared.

use crate::record::{Certainty, Class, Event, Outcome, TxnOutcome};

/// How the values of a field are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Whole value, any case.
    Keyword,
    /// Whole value or, of an e-mail address, the part before `@`.
    Person,
    /// A dotted object name, or its last parts.
    Object,
    /// Words inside.
    Text,
    /// A count; `10k` is 10,000 and `10ki` is 10,240.
    Count,
    /// Microseconds; `1.5s` is accepted.
    Duration,
    /// A point in time.
    Time,
    /// An address or a network.
    Ip,
}

macro_rules! fields {
    ($($(#[$meta:meta])* $variant:ident = $name:literal $kind:ident [$($alias:literal),*]),+ $(,)?) => {
        /// A field of the record that a query may name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Field { $($(#[$meta])* $variant),+ }

        impl Field {
            /// Every field, in the order of the record.
            pub const ALL: &'static [Field] = &[$(Field::$variant),+];

            /// The name in records and queries.
            pub const fn name(self) -> &'static str {
                match self { $(Field::$variant => $name),+ }
            }

            /// Other names queries may use.
            pub const fn aliases(self) -> &'static [&'static str] {
                match self { $(Field::$variant => &[$($alias),*]),+ }
            }

            /// How its values are compared.
            pub const fn kind(self) -> Kind {
                match self { $(Field::$variant => Kind::$kind),+ }
            }
        }
    };
}

fields! {
    /// The record's own id.
    Id = "id" Keyword [],
    /// Position in the journal.
    Seq = "seq" Count [],
    /// When it started.
    Time = "time" Time ["created"],
    /// What kind of thing.
    Event = "event" Keyword [],
    /// How it ended.
    Outcome = "outcome" Keyword [],
    /// How its transaction ended.
    TxnOutcome = "txn_outcome" Keyword [],
    /// The verified person.
    User = "user" Person ["actor", "email"],
    /// The provider's id of the person.
    Sub = "sub" Keyword [],
    /// The provider.
    Iss = "iss" Keyword [],
    /// Verified groups.
    Groups = "groups" Keyword ["group"],
    /// One approval.
    Login = "login" Keyword [],
    /// One connection.
    Session = "session" Keyword [],
    /// The effective database role.
    Role = "role" Keyword ["dbuser"],
    /// Database name.
    Db = "db" Keyword ["database"],
    /// Name of the upstream.
    Upstream = "upstream" Keyword [],
    /// The search_path at execution.
    SearchPath = "search_path" Keyword [],
    /// Client address.
    Ip = "ip" Ip [],
    /// application_name.
    App = "app" Keyword [],
    /// Device id.
    Device = "device" Keyword [],
    /// Exact text.
    Sql = "sql" Text [],
    /// Shape id.
    Fingerprint = "fingerprint" Keyword [],
    /// Command.
    Command = "command" Keyword [],
    /// Kinds of statement.
    Class = "class" Keyword [],
    /// Bound parameters.
    Params = "params" Text ["param"],
    /// Tables and views.
    Tables = "tables" Object ["table"],
    /// Columns, however used.
    Columns = "columns" Object ["column"],
    /// Columns that reach the result.
    Reads = "reads" Object [],
    /// Columns used in predicates, joins, grouping, ordering.
    Filters = "filters" Object [],
    /// Columns written.
    Writes = "writes" Object [],
    /// Views and functions on the way.
    Via = "via" Object [],
    /// How sure we are.
    Analysis = "analysis" Keyword [],
    /// Rows.
    Rows = "rows" Count [],
    /// Bytes of rows.
    Bytes = "bytes" Count [],
    /// From forwarding to the end.
    Duration = "duration_us" Duration ["duration"],
    /// The server's code.
    Sqlstate = "sqlstate" Keyword [],
    /// The server's message.
    Error = "error" Text [],
    /// Tags from the configuration.
    Tags = "tags" Keyword ["tag"],
    /// Computed facts.
    Is = "is" Keyword [],
}

/// The words of `is`.
pub const IS: &[&str] =
    &["first", "failed", "denied", "ddl", "write", "bulk", "sensitive", "unparsed", "alerting"];

impl Field {
    /// The field for a name or alias, in any case.
    pub fn from_name(name: &str) -> Option<Field> {
        let name = name.to_ascii_lowercase();
        Self::ALL
            .iter()
            .copied()
            .find(|field| field.name() == name || field.aliases().contains(&name.as_str()))
    }

    /// The words this field can have, if they are few and fixed.
    pub fn vocabulary(self) -> Option<Vec<&'static str>> {
        Some(match self {
            Field::Event => Event::ALL.iter().map(|word| word.as_str()).collect(),
            Field::Outcome => Outcome::ALL.iter().map(|word| word.as_str()).collect(),
            Field::TxnOutcome => TxnOutcome::ALL.iter().map(|word| word.as_str()).collect(),
            Field::Class => Class::ALL.iter().map(|word| word.as_str()).collect(),
            Field::Analysis => Certainty::ALL.iter().map(|word| word.as_str()).collect(),
            Field::Is => IS.to_vec(),
            _ => return None,
        })
    }

    /// The name nearest to a mistyped one.
    pub fn nearest(name: &str) -> Option<&'static str> {
        nearest(
            name,
            Self::ALL
                .iter()
                .flat_map(|field| std::iter::once(field.name()).chain(field.aliases().iter().copied())),
        )
    }
}

/// The word nearest to a mistyped one, if one is near.
pub(crate) fn nearest(word: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    const LONGEST: usize = 40;
    let word: Vec<char> = word.to_lowercase().chars().take(LONGEST).collect();
    let allowed = (word.len() / 3).clamp(1, 3);
    known
        .map(|known| (distance(&word, known), known))
        .filter(|(distance, known)| *distance <= allowed && *distance < known.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// Edit distance in which two swapped neighbours count once.
fn distance(from: &[char], to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=to.len()).collect()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let change = usize::from(from[i - 1] != to[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}
