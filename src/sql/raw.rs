//! From PostgreSQL's own raw parse tree, as libpg_query 18 gives it, to ours. The second reader: it knows the whole
//! grammar, and is asked where the first reader does not understand a statement.
//!
//! The parser itself is C and cannot be cancelled, so the gateway runs it in a process of its own; [`raw_tree`] is what
//! that process does, and [`statement`] reads what it answered.

mod expr;
mod from;

use p::node::Node as N;
use pg_query::ParserOptions;
use pg_query::protobuf as p;
use prost::Message;

use super::tree as t;
use expr::{expr, exprs};
use from::{alias, from_list};

/// Something that our tree does not have.
#[derive(Debug)]
pub(crate) struct Unsupported(pub(crate) &'static str);

pub(crate) type Lowered<T> = Result<T, Unsupported>;

/// The raw parse tree of a text, in libpg_query's protobuf encoding.
///
/// It needs up to 100 bytes of stack for each byte of text, and a text without NUL.
///
/// # Errors
/// PostgreSQL's own message, when the text is not of its grammar.
pub fn raw_tree(text: &str, standard_conforming_strings: bool) -> Result<Vec<u8>, String> {
    let options = if standard_conforming_strings {
        ParserOptions::DEFAULT
    } else {
        ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS
    };
    let parsed = pg_query::parse(text, options).map_err(|error| error.to_string())?;
    Ok(parsed.protobuf.encode_to_vec())
}

/// The only statement of an encoded tree.
pub(crate) fn statement(encoded: &[u8]) -> Result<t::Statement, String> {
    let decoded = p::ParseResult::decode(encoded)
        .map_err(|_| "not understood: the second reader's answer".to_owned())?;
    let [only] = decoded.stmts.as_slice() else {
        return Err("not understood: not one statement".to_owned());
    };
    let found = only.stmt.as_deref().and_then(|node| node.node.as_ref());
    let found = found.ok_or_else(|| "not understood: an empty statement".to_owned())?;
    change(found).map_err(|what| format!("not understood: {}", what.0))
}

fn change(node: &N) -> Lowered<t::Statement> {
    Ok(match node {
        N::SelectStmt(found) => t::Statement::Query(query(found)?),
        N::InsertStmt(found) => t::Statement::Insert(Box::new(insert(found)?)),
        N::UpdateStmt(found) => t::Statement::Update(Box::new(update(found)?)),
        N::DeleteStmt(found) => t::Statement::Delete(Box::new(delete(found)?)),
        N::MergeStmt(found) => t::Statement::Merge(Box::new(merge(found)?)),
        _ => return Err(Unsupported("a statement of another kind")),
    })
}

fn list<A, B>(parsed: &[A], each: impl FnMut(&A) -> Lowered<B>) -> Lowered<Vec<B>> {
    parsed.iter().map(each).collect()
}

/// A node that must be there.
fn inner(node: &p::Node) -> Lowered<&N> {
    node.node.as_ref().ok_or(Unsupported("an empty node"))
}

fn text(node: &p::Node) -> Lowered<String> {
    match inner(node)? {
        N::String(found) => Ok(found.sval.clone()),
        _ => Err(Unsupported("a name that is no text")),
    }
}

fn texts(nodes: &[p::Node]) -> Lowered<Vec<String>> {
    list(nodes, text)
}

/// A sub-select, or a data-modifying statement below WITH.
fn any_query(node: Option<&p::Node>) -> Lowered<t::Query> {
    let node = inner(node.ok_or(Unsupported("a missing query"))?)?;
    match node {
        N::SelectStmt(found) => query(found),
        _ => {
            let body = t::Body::Change(Box::new(change(node)?));
            Ok(t::Query { with: None, body, order_by: Vec::new(), bounds: Vec::new() })
        }
    }
}

fn query(parsed: &p::SelectStmt) -> Lowered<t::Query> {
    let bounds = [&parsed.limit_count, &parsed.limit_offset];
    let bounds = bounds.into_iter().filter_map(|bound| bound.as_deref());
    Ok(t::Query {
        with: with(parsed.with_clause.as_ref())?,
        body: core(parsed)?,
        order_by: expr::sorted(&parsed.sort_clause)?,
        bounds: bounds.map(expr).collect::<Lowered<_>>()?,
    })
}

/// A branch of a set operation: with clauses of its own it is a query.
fn body(parsed: &p::SelectStmt) -> Lowered<t::Body> {
    let plain = parsed.with_clause.is_none()
        && parsed.sort_clause.is_empty()
        && parsed.limit_count.is_none()
        && parsed.limit_offset.is_none();
    if plain { core(parsed) } else { Ok(t::Body::Query(Box::new(query(parsed)?))) }
}

/// A query without WITH, ORDER BY and LIMIT.
fn core(parsed: &p::SelectStmt) -> Lowered<t::Body> {
    if !parsed.values_lists.is_empty() {
        let rows = list(&parsed.values_lists, |row| match inner(row)? {
            N::List(found) => exprs(&found.items),
            _ => Err(Unsupported("a row that is no list")),
        })?;
        return Ok(t::Body::Values(rows));
    }
    if is_set(parsed) { set_operation(parsed) } else { Ok(t::Body::Select(Box::new(select(parsed)?))) }
}

fn is_set(parsed: &p::SelectStmt) -> bool {
    parsed.op > p::SetOperation::SetopNone as i32
}

/// A chain of set operations, from its last branch to its first.
fn set_operation(parsed: &p::SelectStmt) -> Lowered<t::Body> {
    let missing = Unsupported("a set operation without a side");
    let mut branches = Vec::new();
    let mut rest = parsed;
    loop {
        let (Some(left), Some(right)) = (rest.larg.as_deref(), rest.rarg.as_deref()) else {
            return Err(missing);
        };
        branches.push(body(right)?);
        let chained = is_set(left)
            && left.with_clause.is_none()
            && left.sort_clause.is_empty()
            && left.limit_count.is_none()
            && left.limit_offset.is_none();
        if !chained {
            branches.push(body(left)?);
            branches.reverse();
            return Ok(t::Body::Set(branches));
        }
        rest = left;
    }
}

fn select(parsed: &p::SelectStmt) -> Lowered<t::Select> {
    // DISTINCT alone is a list of one empty node.
    let distinct_on = parsed.distinct_clause.iter().filter(|node| node.node.is_some()).map(expr);
    let into = parsed.into_clause.as_deref().and_then(|into| into.rel.as_ref());
    Ok(t::Select {
        distinct_on: distinct_on.collect::<Lowered<_>>()?,
        items: items(&parsed.target_list)?,
        into: into.map(range_name),
        from: from_list(&parsed.from_clause)?,
        filter: parsed.where_clause.as_deref().map(expr).transpose()?,
        group_by: list(&parsed.group_clause, expr)?,
        having: parsed.having_clause.as_deref().map(expr).transpose()?,
        windows: exprs(&parsed.window_clause)?,
    })
}

fn with(parsed: Option<&p::WithClause>) -> Lowered<Option<t::With>> {
    let Some(parsed) = parsed else { return Ok(None) };
    let tables = list(&parsed.ctes, |node| match inner(node)? {
        N::CommonTableExpr(found) => Ok(t::Cte {
            name: found.ctename.clone(),
            columns: texts(&found.aliascolnames)?,
            query: any_query(found.ctequery.as_deref())?,
            added: added(found)?,
        }),
        _ => Err(Unsupported("a WITH item that is no query")),
    })?;
    Ok(Some(t::With { recursive: parsed.recursive, tables }))
}

/// The columns that SEARCH and CYCLE add.
fn added(parsed: &p::CommonTableExpr) -> Lowered<Vec<t::Added>> {
    let mut all = Vec::new();
    if let Some(search) = &parsed.search_clause {
        let from = texts(&search.search_col_list)?;
        all.push(t::Added { name: search.search_seq_column.clone(), from });
    }
    if let Some(cycle) = &parsed.cycle_clause {
        for name in [&cycle.cycle_mark_column, &cycle.cycle_path_column] {
            all.push(t::Added { name: name.clone(), from: texts(&cycle.cycle_col_list)? });
        }
    }
    Ok(all)
}

fn items(parsed: &[p::Node]) -> Lowered<Vec<t::Item>> {
    list(parsed, |node| {
        let N::ResTarget(target) = inner(node)? else { return Err(Unsupported("an item of another kind")) };
        let value = target.val.as_deref().ok_or(Unsupported("an item without a value"))?;
        let alias = Some(target.name.clone()).filter(|name| !name.is_empty());
        Ok(match inner(value)? {
            N::ColumnRef(found) if expr::is_star(found.fields.last()) => {
                let name = texts(found.fields.get(..found.fields.len() - 1).unwrap_or_default())?;
                if name.is_empty() { t::Item::Star } else { t::Item::TableStar(name) }
            }
            N::AIndirection(found) if expr::is_star(found.indirection.last()) => {
                t::Item::ExprStar(expr::indirection(found)?)
            }
            _ => t::Item::Expr(expr(value)?, alias),
        })
    })
}

pub(super) fn range_name(parsed: &p::RangeVar) -> t::Name {
    let parts = [&parsed.catalogname, &parsed.schemaname, &parsed.relname];
    parts.into_iter().filter(|part| !part.is_empty()).cloned().collect()
}

fn target(parsed: Option<&p::RangeVar>) -> Lowered<(t::Name, t::Alias)> {
    let parsed = parsed.ok_or(Unsupported("a change of no table"))?;
    Ok((range_name(parsed), alias(parsed.alias.as_ref())?))
}

fn returning(parsed: Option<&p::ReturningClause>) -> Lowered<t::Returning> {
    let Some(parsed) = parsed else { return Ok(t::Returning::default()) };
    let mut names = t::Returning { items: items(&parsed.exprs)?, ..t::Returning::default() };
    for node in &parsed.options {
        let N::ReturningOption(option) = inner(node)? else { continue };
        let name = Some(option.value.clone());
        if option.option == p::ReturningOptionKind::ReturningOptionOld as i32 {
            names.old = name;
        } else {
            names.new = name;
        }
    }
    Ok(names)
}

fn insert(parsed: &p::InsertStmt) -> Lowered<t::Insert> {
    let (table, alias) = target(parsed.relation.as_ref())?;
    let source = parsed.select_stmt.as_deref().filter(|node| node.node.is_some());
    Ok(t::Insert {
        with: with(parsed.with_clause.as_ref())?,
        table,
        alias: alias.name,
        columns: list(&parsed.cols, |node| Ok(res_target(node)?.name.clone()))?,
        source: source.map(|node| any_query(Some(node))).transpose()?,
        conflict: parsed.on_conflict_clause.as_deref().map(conflict).transpose()?,
        returning: returning(parsed.returning_clause.as_ref())?,
    })
}

fn res_target(node: &p::Node) -> Lowered<&p::ResTarget> {
    match inner(node)? {
        N::ResTarget(found) => Ok(found),
        _ => Err(Unsupported("a target of another kind")),
    }
}

fn conflict(parsed: &p::OnConflictClause) -> Lowered<t::Conflict> {
    let mut arbiter = Vec::new();
    let mut constraint = None;
    if let Some(infer) = parsed.infer.as_deref() {
        for node in &infer.index_elems {
            let N::IndexElem(element) = inner(node)? else {
                return Err(Unsupported("an arbiter of another kind"));
            };
            arbiter.push(match element.expr.as_deref() {
                Some(found) => expr(found)?,
                None => t::Expr::Name(vec![element.name.clone()]),
            });
        }
        arbiter.extend(infer.where_clause.as_deref().map(expr).transpose()?);
        constraint = Some(infer.conname.clone()).filter(|name| !name.is_empty());
    }
    Ok(t::Conflict {
        arbiter,
        constraint,
        assignments: assignments(&parsed.target_list)?,
        filter: parsed.where_clause.as_deref().map(expr).transpose()?,
    })
}

fn assignments(parsed: &[p::Node]) -> Lowered<Vec<t::Assignment>> {
    list(parsed, |node| {
        let target = res_target(node)?;
        let value = match target.val.as_deref().map(inner).transpose()? {
            // `(a, b) = …` comes as one target for each, all with the same source.
            Some(N::MultiAssignRef(found)) => match found.source.as_deref() {
                Some(source) if found.colno == 1 => expr(source)?,
                _ => t::Expr::Nothing,
            },
            _ => target.val.as_deref().map(expr).transpose()?.unwrap_or(t::Expr::Nothing),
        };
        let subscripts = expr::subscripts(&target.indirection)?;
        let value = if subscripts.is_empty() {
            value
        } else {
            t::Expr::Parts(std::iter::once(value).chain(subscripts).collect())
        };
        Ok(t::Assignment { columns: vec![target.name.clone()], value })
    })
}

fn update(parsed: &p::UpdateStmt) -> Lowered<t::Update> {
    let (table, alias) = target(parsed.relation.as_ref())?;
    Ok(t::Update {
        with: with(parsed.with_clause.as_ref())?,
        table,
        alias,
        assignments: assignments(&parsed.target_list)?,
        from: from_list(&parsed.from_clause)?,
        filter: parsed.where_clause.as_deref().map(expr).transpose()?,
        returning: returning(parsed.returning_clause.as_ref())?,
    })
}

fn delete(parsed: &p::DeleteStmt) -> Lowered<t::Delete> {
    let (table, alias) = target(parsed.relation.as_ref())?;
    Ok(t::Delete {
        with: with(parsed.with_clause.as_ref())?,
        table,
        alias,
        using: from_list(&parsed.using_clause)?,
        filter: parsed.where_clause.as_deref().map(expr).transpose()?,
        returning: returning(parsed.returning_clause.as_ref())?,
    })
}

fn merge(parsed: &p::MergeStmt) -> Lowered<t::Merge> {
    let (table, alias) = target(parsed.relation.as_ref())?;
    let source = parsed.source_relation.as_deref().ok_or(Unsupported("a MERGE without a source"))?;
    let on = parsed.join_condition.as_deref().ok_or(Unsupported("a MERGE without a condition"))?;
    let when = list(&parsed.merge_when_clauses, |node| {
        let N::MergeWhenClause(found) = inner(node)? else {
            return Err(Unsupported("a WHEN of another kind"));
        };
        let action = match p::CmdType::try_from(found.command_type) {
            Ok(p::CmdType::CmdDelete) => t::Action::Delete,
            Ok(p::CmdType::CmdUpdate) => t::Action::Update(assignments(&found.target_list)?),
            Ok(p::CmdType::CmdInsert) => t::Action::Insert {
                columns: list(&found.target_list, |node| Ok(res_target(node)?.name.clone()))?,
                values: exprs(&found.values)?,
            },
            _ => t::Action::Nothing,
        };
        Ok(t::When { condition: found.condition.as_deref().map(expr).transpose()?, action })
    })?;
    Ok(t::Merge {
        with: with(parsed.with_clause.as_ref())?,
        table,
        alias,
        source: from::from(source)?,
        on: expr(on)?,
        when,
        returning: returning(parsed.returning_clause.as_ref())?,
    })
}
