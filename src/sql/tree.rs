//! Our own small tree of a statement that touches rows: what resolution needs, and nothing else.
//!
//! Every parser is lowered to it. Names are already folded, unquoted and cut to 63 bytes, as PostgreSQL stores them.

/// A possibly qualified name.
pub(crate) type Name = Vec<String>;

/// A statement that reads or writes rows.
#[derive(Debug)]
pub(crate) enum Statement {
    Query(Query),
    Insert(Box<Insert>),
    Update(Box<Update>),
    Delete(Box<Delete>),
    Merge(Box<Merge>),
}

#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) with: Option<With>,
    pub(crate) body: Body,
    pub(crate) order_by: Vec<Expr>,
    /// LIMIT, OFFSET and FETCH.
    pub(crate) bounds: Vec<Expr>,
}

#[derive(Debug)]
pub(crate) struct With {
    pub(crate) recursive: bool,
    pub(crate) tables: Vec<Cte>,
}

#[derive(Debug)]
pub(crate) struct Cte {
    pub(crate) name: String,
    pub(crate) columns: Vec<String>,
    pub(crate) query: Query,
    /// What SEARCH and CYCLE add.
    pub(crate) added: Vec<Added>,
}

/// A column that SEARCH or CYCLE adds, and the columns that it is made of.
#[derive(Debug)]
pub(crate) struct Added {
    pub(crate) name: String,
    pub(crate) from: Vec<String>,
}

#[derive(Debug)]
pub(crate) enum Body {
    Select(Box<Select>),
    /// UNION, INTERSECT or EXCEPT of two or more.
    Set(Vec<Body>),
    Values(Vec<Vec<Expr>>),
    Query(Box<Query>),
    Table(Name),
    /// A data-modifying statement below WITH.
    Change(Box<Statement>),
}

#[derive(Debug, Default)]
pub(crate) struct Select {
    pub(crate) distinct_on: Vec<Expr>,
    pub(crate) items: Vec<Item>,
    pub(crate) into: Option<Name>,
    pub(crate) from: Vec<From>,
    pub(crate) filter: Option<Expr>,
    pub(crate) group_by: Vec<Expr>,
    pub(crate) having: Option<Expr>,
    pub(crate) windows: Vec<Expr>,
}

#[derive(Debug)]
pub(crate) enum Item {
    Expr(Expr, Option<String>),
    /// `*`
    Star,
    /// `t.*` or `s.t.*`
    TableStar(Name),
    /// `(expression).*`
    ExprStar(Expr),
}

#[derive(Debug, Default)]
pub(crate) struct Alias {
    pub(crate) name: Option<String>,
    pub(crate) columns: Vec<String>,
}

#[derive(Debug)]
pub(crate) enum From {
    Table {
        name: Name,
        alias: Alias,
        sample: Vec<Expr>,
    },
    Subquery {
        query: Box<Query>,
        lateral: bool,
        alias: Alias,
    },
    /// Functions, JSON_TABLE, XMLTABLE: always lateral. `columns` are those of each call that are known from the text
    /// alone.
    Function {
        calls: Vec<Expr>,
        columns: Vec<Vec<String>>,
        ordinality: bool,
        alias: Alias,
    },
    Join(Box<Join>),
}

#[derive(Debug)]
pub(crate) struct Join {
    pub(crate) left: From,
    pub(crate) right: From,
    pub(crate) on: On,
    /// `USING (…) AS name`: only the merged columns answer to it.
    pub(crate) using_alias: Option<String>,
    pub(crate) alias: Alias,
}

#[derive(Debug)]
pub(crate) enum On {
    Nothing,
    Natural,
    Using(Vec<String>),
    Expr(Expr),
}

#[derive(Debug)]
pub(crate) enum Expr {
    /// A constant string.
    Text(String),
    /// TRUE or FALSE.
    Boolean(bool),
    /// A constant integer, as it may stand for an output column.
    Integer,
    /// Anything without names: parameters, other constants, keywords.
    Nothing,
    /// `DEFAULT` as a value.
    Default,
    /// A column, or a table's row, or a field of one.
    Name(Name),
    /// `t.*` inside an expression: the whole row; without a name all rows (`count(*)` does not come here).
    Row(Name),
    Call(Box<Call>),
    /// A field of a composite value.
    Field(Box<Expr>, String),
    /// A scalar or array sub-select, whose output is the value.
    Subquery(Box<Query>),
    /// `EXISTS`: the output does not matter.
    Exists(Box<Query>),
    /// `x IN (SELECT …)` and `x op ANY (SELECT …)`.
    In(Box<Expr>, Box<Query>),
    /// A value cast to a type, for the name of the output column.
    Cast(Box<Expr>, String),
    /// Any other expression, by its parts.
    Parts(Vec<Expr>),
    /// An expression whose output column has the name given (CASE, COALESCE …).
    Named(Box<Expr>, &'static str),
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) name: Name,
    pub(crate) arguments: Vec<Expr>,
    /// FILTER, ORDER BY and OVER: they choose and order, and are not part of the value.
    pub(crate) aside: Vec<Expr>,
}

#[derive(Debug)]
pub(crate) struct Insert {
    pub(crate) with: Option<With>,
    pub(crate) table: Name,
    pub(crate) alias: Option<String>,
    pub(crate) columns: Vec<String>,
    /// None for DEFAULT VALUES.
    pub(crate) source: Option<Query>,
    pub(crate) conflict: Option<Conflict>,
    pub(crate) returning: Returning,
}

/// RETURNING, and what the rows before and after the change are called there; else `old` and `new`.
#[derive(Debug, Default)]
pub(crate) struct Returning {
    pub(crate) items: Vec<Item>,
    pub(crate) old: Option<String>,
    pub(crate) new: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Conflict {
    pub(crate) arbiter: Vec<Expr>,
    pub(crate) constraint: Option<String>,
    pub(crate) assignments: Vec<Assignment>,
    pub(crate) filter: Option<Expr>,
}

#[derive(Debug)]
pub(crate) struct Assignment {
    pub(crate) columns: Vec<String>,
    pub(crate) value: Expr,
}

#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) with: Option<With>,
    pub(crate) table: Name,
    pub(crate) alias: Alias,
    pub(crate) assignments: Vec<Assignment>,
    pub(crate) from: Vec<From>,
    pub(crate) filter: Option<Expr>,
    pub(crate) returning: Returning,
}

#[derive(Debug)]
pub(crate) struct Delete {
    pub(crate) with: Option<With>,
    pub(crate) table: Name,
    pub(crate) alias: Alias,
    pub(crate) using: Vec<From>,
    pub(crate) filter: Option<Expr>,
    pub(crate) returning: Returning,
}

#[derive(Debug)]
pub(crate) struct Merge {
    pub(crate) with: Option<With>,
    pub(crate) table: Name,
    pub(crate) alias: Alias,
    pub(crate) source: From,
    pub(crate) on: Expr,
    pub(crate) when: Vec<When>,
    pub(crate) returning: Returning,
}

#[derive(Debug)]
pub(crate) struct When {
    pub(crate) condition: Option<Expr>,
    pub(crate) action: Action,
}

#[derive(Debug)]
pub(crate) enum Action {
    Nothing,
    Delete,
    Update(Vec<Assignment>),
    Insert { columns: Vec<String>, values: Vec<Expr> },
}
