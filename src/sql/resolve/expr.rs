//! Expressions: columns, rows, functions, sub-selects.

use crate::catalog::{Function, Volatility, quoted};

use super::super::Settings;
use super::super::bodies::{Body, is_closed, touches_nothing};
use super::super::own::lookup_order;
use super::super::scope::{Flow, Found, Item, Scope, Shape};
use super::super::touched::Touched;
use super::super::tree as t;
use super::Resolver;

/// Words with the syntax of a function that are none in the catalog.
const GRAMMAR: &[&str] = &[
    "coalesce",
    "greatest",
    "least",
    "nullif",
    "grouping",
    "current_date",
    "current_time",
    "current_timestamp",
    "current_user",
    "current_role",
    "current_catalog",
    "current_schema",
    "localtime",
    "localtimestamp",
    "session_user",
    "user",
    "xmlelement",
    "xmlforest",
    "xmlparse",
    "xmlpi",
    "xmlroot",
    "xmlserialize",
    "xmlconcat",
    "xmlattributes",
    "row",
    "array",
    "json_array",
    "json_arrayagg",
    "json_objectagg",
    "json_scalar",
    "json_serialize",
    "json",
    "json_exists",
    "json_query",
    "json_value",
    "merge_action",
    "treat",
    "collation",
];

/// Built-in functions that the grammar calls for a syntax of their own.
const SPELLED: &[&str] =
    &["extract", "position", "substring", "btrim", "ltrim", "rtrim", "timezone", "overlay"];

/// Built-in functions that read tables, files or other databases by a string.
const BY_STRING: &[&str] = &[
    "query_to_xml",
    "query_to_xmlschema",
    "query_to_xml_and_xmlschema",
    "table_to_xml",
    "table_to_xmlschema",
    "table_to_xml_and_xmlschema",
    "schema_to_xml",
    "schema_to_xmlschema",
    "schema_to_xml_and_xmlschema",
    "database_to_xml",
    "database_to_xmlschema",
    "database_to_xml_and_xmlschema",
    "cursor_to_xml",
    "cursor_to_xmlschema",
    "ts_stat",
    "ts_rewrite",
    "pg_read_file",
    "pg_read_binary_file",
    "pg_ls_dir",
    "lo_export",
    "lo_import",
    "dblink",
    "dblink_exec",
    "dblink_open",
    "dblink_fetch",
    "dblink_send_query",
    "pg_logical_slot_get_changes",
    "pg_logical_slot_peek_changes",
    "pg_logical_slot_get_binary_changes",
    "pg_logical_slot_peek_binary_changes",
];

/// The longest function body that is looked into.
const BODY_MAX: usize = 4096;

impl<'s, 't> Resolver<'s, 't> {
    /// An expression whose value does not reach the result.
    pub(super) fn discard(&mut self, expr: &'t t::Expr) {
        self.expr(expr, &mut Flow::new());
    }

    pub(super) fn discard_all(&mut self, exprs: impl Iterator<Item = &'t t::Expr>) {
        for expr in exprs {
            self.discard(expr);
        }
    }

    /// Resolves an expression and adds what its value is made of.
    pub(super) fn expr(&mut self, expr: &'t t::Expr, flow: &mut Flow) {
        match expr {
            t::Expr::Text(_) | t::Expr::Integer | t::Expr::Boolean(_) | t::Expr::Nothing => {}
            t::Expr::Default => self.touched.defaults = true,
            t::Expr::Name(name) => self.name(name, flow),
            t::Expr::Row(name) => self.row(name, flow),
            t::Expr::Call(call) => self.call(call, flow),
            t::Expr::Field(inner, field) => self.field(inner, field, flow),
            t::Expr::Subquery(query) => {
                for out in self.query(query) {
                    flow.extend(out.flow);
                }
            }
            t::Expr::Exists(query) => {
                self.query(query);
            }
            t::Expr::In(left, query) => {
                self.expr(left, flow);
                for out in self.query(query) {
                    flow.extend(out.flow);
                }
            }
            t::Expr::Cast(inner, _) => self.expr(inner, flow),
            t::Expr::Named(inner, name) => {
                if SPELLED.contains(name) {
                    self.touched.functions.insert(format!("pg_catalog.{name}"));
                }
                self.expr(inner, flow);
            }
            t::Expr::Parts(parts) => {
                for part in parts {
                    self.expr(part, flow);
                }
            }
        }
    }

    /// A column, else the row of a table.
    fn name(&mut self, name: &[String], flow: &mut Flow) {
        let from = flow.len();
        let found = match name {
            [column] => self.column(column, flow),
            [table, column] => self.column_of(table, column, flow),
            [schema, table, column] | [_, schema, table, column] => {
                let item = self.scopes.iter().rev().find_map(|scope| scope.table(schema, table));
                item.map_or(Found::No, |item| Scope::column_of(item, column, flow))
            }
            _ => Found::No,
        };
        if found == Found::No {
            self.touched.doubt_column(format!("unknown column {}", name.join(".")));
        }
        self.see_from(flow, from);
    }

    fn see_from(&mut self, flow: &Flow, from: usize) {
        let fresh = flow.get(from..).unwrap_or_default();
        self.touched.seen.extend(fresh.iter().copied());
    }

    fn column(&self, column: &str, flow: &mut Flow) -> Found {
        let mut best = Found::No;
        for scope in self.scopes.iter().rev() {
            match scope.column(column, flow) {
                Found::Yes => return Found::Yes,
                Found::Perhaps => best = Found::Perhaps,
                Found::No => {}
            }
        }
        if let Some(item) = self.item(column) {
            item.row(flow);
            return if matches!(item.shape, Shape::Unknown) { Found::Perhaps } else { Found::Yes };
        }
        best
    }

    fn column_of(&self, table: &str, column: &str, flow: &mut Flow) -> Found {
        let Some(item) = self.item(table) else {
            let whole = self.scopes.iter().rev().find_map(|scope| scope.table(table, column));
            return whole.map_or(Found::No, |item| {
                item.row(flow);
                Found::Yes
            });
        };
        match Scope::column_of(item, column, flow) {
            Found::No if self.is_function(column) => {
                // `t.f` is another spelling of `f(t)`.
                item.row(flow);
                Found::Yes
            }
            found => found,
        }
    }

    fn item(&self, name: &str) -> Option<&Item<'s>> {
        self.scopes.iter().rev().find_map(|scope| scope.item(name))
    }

    /// The item that a qualified or plain name means.
    pub(super) fn item_named(&self, name: &[String]) -> Option<&Item<'s>> {
        match name {
            [name] => self.item(name),
            [schema, name] | [_, schema, name] => {
                self.scopes.iter().rev().find_map(|scope| scope.table(schema, name))
            }
            _ => None,
        }
    }

    fn row(&mut self, name: &[String], flow: &mut Flow) {
        let from = flow.len();
        match self.item_named(name) {
            Some(item) => item.row(flow),
            None => self.touched.doubt(format!("unknown table {}", name.join("."))),
        }
        self.see_from(flow, from);
    }

    /// `(t).column` is a column of a table in FROM; anything else is a field of a value.
    fn field(&mut self, inner: &'t t::Expr, field: &str, flow: &mut Flow) {
        if let t::Expr::Name(name) = inner
            && let [table] = name.as_slice()
            && !self.scopes.iter().any(|scope| scope.column(table, &mut Flow::new()) == Found::Yes)
            && self.item(table).is_some()
        {
            let from = flow.len();
            // PostgreSQL checks the whole row, though only the field flows.
            let mut whole = Flow::new();
            self.row(name, &mut whole);
            if self.column_of(table, field, flow) == Found::No {
                self.touched.doubt(format!("unknown column {table}.{field}"));
            }
            return self.see_from(flow, from);
        }
        self.expr(inner, flow);
    }

    fn call(&mut self, call: &'t t::Call, flow: &mut Flow) {
        for argument in &call.arguments {
            self.expr(argument, flow);
        }
        self.discard_all(call.aside.iter());
        self.called(&call.name, &call.arguments);
    }

    /// Records a call by what the catalog says of the function.
    fn called(&mut self, name: &[String], arguments: &[t::Expr]) {
        let Some((schema, plain)) = self.function_place(name) else {
            let known = matches!(name, [only] if GRAMMAR.contains(&only.as_str()));
            if !known {
                self.touched.doubt(format!("unknown function {}", name.join(".")));
            }
            return;
        };
        self.touched.functions.insert(format!("{}.{}", quoted(schema), quoted(plain)));
        if BY_STRING.contains(&plain) && !self.by_string(plain, arguments) {
            self.touched.doubt(format!("{plain} reads what a string names"));
        }
        if schema == "pg_catalog" {
            if plain == "set_config" {
                self.set_config(arguments);
            }
            return;
        }
        if schema != "information_schema" {
            self.called_own(schema, plain, arguments.len());
        }
    }

    /// A call of a function that did not come with the server. Which of several it is, only the types of its arguments
    /// tell: all that take this many count.
    fn called_own(&mut self, schema: &str, plain: &str, arguments: usize) {
        let all: Vec<&'s Function> = self.names.schema.functions(schema, plain).collect();
        let fitting: Vec<&'s Function> =
            all.iter().copied().filter(|function| takes(function, arguments)).collect();
        let candidates = if fitting.is_empty() { all } else { fitting };
        self.touched.own_functions |= !candidates.is_empty();
        self.touched.unsettling |= !candidates.is_empty() && self.names.schema.is_unsettling(plain);
        for function in candidates {
            let sql = &*function.language == "sql" && function.volatility != Volatility::Immutable;
            let pure = if sql { self.follow_body(function) } else { touches_nothing(function, self.names) };
            self.touched.volatile |= function.volatility == Volatility::Volatile && !pure;
            if !is_closed(function) && !pure {
                let body =
                    function.body.as_deref().map(|body| Body::read(body, self.names)).unwrap_or_default();
                self.touched.doubt(format!("{schema}.{plain} may touch more{}", body.said(self.names)));
                let tables = body.relations.into_iter().collect();
                self.touched.within.push(Touched { tables, ..Touched::default() });
            }
        }
    }

    /// A built-in that runs the SQL, or reads the table, that its first argument is the text of. False when that is not
    /// a constant, or not understood.
    fn by_string(&mut self, function: &str, arguments: &[t::Expr]) -> bool {
        let text = match arguments.first() {
            Some(t::Expr::Text(text)) => text,
            Some(t::Expr::Cast(inner, _)) => match &**inner {
                t::Expr::Text(text) => text,
                _ => return false,
            },
            _ => return false,
        };
        let query = match function {
            "ts_stat" => text.clone(),
            _ if function.starts_with("query_to_xml") => text.clone(),
            _ if function.starts_with("table_to_xml") => format!("SELECT * FROM {text}"),
            _ => return false,
        };
        if self.in_body || query.len() > BODY_MAX {
            return false;
        }
        let settings = self.settings();
        let Ok(parsed @ t::Statement::Query(_)) = super::super::query::read(&query, &settings) else {
            return false;
        };
        let mut inner = Resolver::new(self.names.schema, &settings);
        inner.in_body = true;
        inner.statement(&parsed);
        self.touched.absorb(inner.touched);
        true
    }

    fn settings(&self) -> Settings<'s> {
        Settings {
            search_path: self.names.path,
            standard_conforming_strings: true,
            own: self.names.own,
            role: self.names.role,
            replica: self.names.replica,
            grammar: self.grammar,
        }
    }

    /// What the body of a SQL function touches, the statement that calls it touches. True when that is nothing.
    fn follow_body(&mut self, function: &Function) -> bool {
        let Some(body) = function.body.as_deref().filter(|body| body.len() <= BODY_MAX && !self.in_body)
        else {
            return false;
        };
        let settings = self.settings();
        let mut found = Vec::new();
        for range in super::super::split(body.as_bytes(), true) {
            let parsed = body.get(range).map(|text| super::super::query::read(text, &settings));
            let Some(Ok(parsed)) = parsed else { return false };
            let mut inner = Resolver::new(self.names.schema, &settings);
            inner.in_body = true;
            inner.statement(&parsed);
            found.push(inner.touched);
        }
        // Names of arguments look like columns that nobody has.
        let known = |inner: &Touched| {
            !inner.own_functions && inner.settings.is_empty() && inner.doubts.0 == inner.doubts.1
        };
        let nothing = found.iter().all(|inner| known(inner) && inner.tables.is_empty());
        for mut inner in found {
            // They are no doubt, and what is one is told by the caller.
            (inner.doubts, inner.incomplete, inner.notes) = ((0, 0), false, Vec::new());
            (inner.volatile, inner.own_functions) = (false, false);
            inner.functions.clear();
            self.touched.within.push(inner);
        }
        nothing
    }

    fn set_config(&mut self, arguments: &[t::Expr]) {
        let text = |at: usize| match arguments.get(at) {
            Some(t::Expr::Text(text)) => Some(text.clone()),
            Some(t::Expr::Cast(inner, _)) => match &**inner {
                t::Expr::Text(text) => Some(text.clone()),
                _ => None,
            },
            _ => None,
        };
        let local = match arguments.get(2) {
            Some(t::Expr::Boolean(local)) => Some(*local),
            _ => None,
        };
        self.touched.settings.push((text(0), text(1), local));
    }

    /// The schema of a function by name, on the path unless qualified.
    fn function_place<'n>(&self, name: &'n [String]) -> Option<(&'n str, &'n str)>
    where
        's: 'n,
    {
        let path: &'s [String] = self.names.path;
        match name {
            [name] => {
                let mut order = lookup_order(path).filter(|schema| *schema != "pg_temp");
                order
                    .find(|schema| self.names.schema.has_function(schema, name))
                    .map(|schema| (schema, name.as_str()))
            }
            [schema, name] | [_, schema, name] => {
                self.names.schema.has_function(schema, name).then_some((schema.as_str(), name.as_str()))
            }
            _ => None,
        }
    }

    fn is_function(&self, name: &str) -> bool {
        lookup_order(self.names.path).any(|schema| self.names.schema.has_function(schema, name))
    }

    /// The function that a call means, when the catalog describes it: by name and number of arguments.
    pub(super) fn function(&self, name: &[String], arguments: usize) -> Option<&'s Function> {
        let (schema, plain) = self.function_place(name)?;
        let fits = |function: &&Function| takes(function, arguments);
        let mut all = self.names.schema.functions(schema, plain);
        all.find(fits).or_else(|| self.names.schema.functions(schema, plain).next())
    }

    /// The fields of a composite value, as far as its function tells them.
    pub(super) fn fields_of(&self, expr: &t::Expr) -> Vec<String> {
        let t::Expr::Call(call) = expr else { return Vec::new() };
        let Some(function) = self.function(&call.name, call.arguments.len()) else { return Vec::new() };
        match function.returns_row_of.and_then(|oid| self.names.schema.by_oid(oid)) {
            Some(relation) => relation.columns.iter().map(|column| column.name.to_string()).collect(),
            None => function.outputs.iter().map(|name| name.to_string()).collect(),
        }
    }
}

/// Whether a function can be called with so many arguments.
fn takes(function: &Function, arguments: usize) -> bool {
    let most = usize::from(function.arguments);
    (most.saturating_sub(usize::from(function.defaults))..=most).contains(&arguments)
}

/// The name that PostgreSQL gives an output column without an alias.
pub(super) fn output_name(expr: &t::Expr) -> String {
    strong_name(expr).unwrap_or_else(|| match expr {
        t::Expr::Cast(_, name) => name.clone(),
        _ => "?column?".to_owned(),
    })
}

fn strong_name(expr: &t::Expr) -> Option<String> {
    match expr {
        t::Expr::Name(name) => name.last().cloned(),
        t::Expr::Field(_, field) => Some(field.clone()),
        t::Expr::Call(call) => call.name.last().cloned(),
        t::Expr::Cast(inner, name) => strong_name(inner).or_else(|| Some(name.clone())),
        t::Expr::Named(inner, "case") => {
            let last = match &**inner {
                t::Expr::Parts(parts) => parts.last().and_then(strong_name),
                _ => None,
            };
            last.or_else(|| Some("case".to_owned()))
        }
        t::Expr::Named(_, name) => Some((*name).to_owned()),
        t::Expr::Exists(_) => Some("exists".to_owned()),
        t::Expr::Boolean(_) => Some("bool".to_owned()),
        t::Expr::Subquery(query) => match &query.body {
            t::Body::Select(select) => match select.items.first() {
                Some(t::Item::Expr(_, Some(alias))) => Some(alias.clone()),
                Some(t::Item::Expr(inner, None)) => strong_name(inner),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}
