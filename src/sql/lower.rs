//! From sqlparser's tree to ours. What ours cannot hold is an error: the statement is then unresolved, never guessed.
//!
//! It takes the parsed tree by value and unrolls left-deep chains in loops, so that a long `a OR b OR …` needs no
//! stack, neither to read nor to drop.

mod expr;
mod from;

use sqlparser::ast as s;

use super::reword::{ALL_FIELDS, cut_name};
use super::tree as t;
use expr::{expr, exprs};
use from::{alias, from_list, table_factor};

/// Something that PostgreSQL or our tree does not have.
#[derive(Debug)]
pub(crate) struct Unsupported(pub(crate) &'static str);

pub(crate) type Lowered<T> = Result<T, Unsupported>;

/// Lowers a statement that touches rows.
pub(crate) fn statement(parsed: s::Statement) -> Lowered<t::Statement> {
    match parsed {
        s::Statement::Query(parsed) => Ok(t::Statement::Query(query(*parsed)?)),
        s::Statement::Insert(parsed) => Ok(t::Statement::Insert(Box::new(insert(parsed)?))),
        s::Statement::Update(parsed) => Ok(t::Statement::Update(Box::new(update(parsed)?))),
        s::Statement::Delete(parsed) => Ok(t::Statement::Delete(Box::new(delete(parsed)?))),
        s::Statement::Merge(parsed) => Ok(t::Statement::Merge(Box::new(merge(parsed)?))),
        _ => Err(Unsupported("a statement of another kind")),
    }
}

/// A name as PostgreSQL stores it.
fn ident(parsed: s::Ident) -> String {
    cut_name(if parsed.quote_style.is_none() { parsed.value.to_ascii_lowercase() } else { parsed.value })
}

fn object(parsed: s::ObjectName) -> Lowered<t::Name> {
    let part = |part| match part {
        s::ObjectNamePart::Identifier(name) => Ok(ident(name)),
        s::ObjectNamePart::Function(_) => Err(Unsupported("a computed name")),
    };
    parsed.0.into_iter().map(part).collect()
}

fn list<A, B>(parsed: Vec<A>, each: impl FnMut(A) -> Lowered<B>) -> Lowered<Vec<B>> {
    parsed.into_iter().map(each).collect()
}

fn query(parsed: s::Query) -> Lowered<t::Query> {
    if parsed.for_clause.is_some() || !parsed.pipe_operators.is_empty() {
        return Err(Unsupported("a clause that PostgreSQL does not have"));
    }
    let mut bounds = Vec::new();
    match parsed.limit_clause {
        Some(s::LimitClause::LimitOffset { limit, offset, .. }) => {
            bounds.extend(limit.map(expr).transpose()?);
            bounds.extend(offset.map(|offset| expr(offset.value)).transpose()?);
        }
        Some(s::LimitClause::OffsetCommaLimit { .. }) => return Err(Unsupported("LIMIT with a comma")),
        None => {}
    }
    bounds.extend(parsed.fetch.and_then(|fetch| fetch.quantity).map(expr).transpose()?);
    Ok(t::Query {
        with: parsed.with.map(with).transpose()?,
        body: body(*parsed.body)?,
        order_by: parsed.order_by.map(order_by).transpose()?.unwrap_or_default(),
        bounds,
    })
}

fn order_by(parsed: s::OrderBy) -> Lowered<Vec<t::Expr>> {
    match parsed.kind {
        s::OrderByKind::Expressions(found) => list(found, |item| expr(item.expr)),
        s::OrderByKind::All(_) => Err(Unsupported("ORDER BY ALL")),
    }
}

fn with(parsed: s::With) -> Lowered<t::With> {
    let tables = list(parsed.cte_tables, |cte| {
        Ok(t::Cte {
            name: ident(cte.alias.name),
            columns: cte.alias.columns.into_iter().map(|column| ident(column.name)).collect(),
            query: query(*cte.query)?,
            added: Vec::new(),
        })
    })?;
    Ok(t::With { recursive: parsed.recursive, tables })
}

fn body(parsed: s::SetExpr) -> Lowered<t::Body> {
    Ok(match parsed {
        s::SetExpr::Select(found) => t::Body::Select(Box::new(select(*found)?)),
        s::SetExpr::Query(found) => t::Body::Query(Box::new(query(*found)?)),
        s::SetExpr::Values(values) => t::Body::Values(list(values.rows, |row| exprs(row.content))?),
        s::SetExpr::Table(table) => {
            let name = table.schema_name.into_iter().chain(table.table_name);
            t::Body::Table(name.map(|part| cut_name(part.to_ascii_lowercase())).collect())
        }
        s::SetExpr::Insert(found)
        | s::SetExpr::Update(found)
        | s::SetExpr::Delete(found)
        | s::SetExpr::Merge(found) => t::Body::Change(Box::new(statement(found)?)),
        s::SetExpr::SetOperation { .. } => set_operation(parsed)?,
    })
}

/// A chain of set operations, from its last branch to its first.
fn set_operation(parsed: s::SetExpr) -> Lowered<t::Body> {
    let mut branches = Vec::new();
    let mut rest = parsed;
    while let s::SetExpr::SetOperation { left, right, .. } = rest {
        branches.push(body(*right)?);
        rest = *left;
    }
    branches.push(body(rest)?);
    branches.reverse();
    Ok(t::Body::Set(branches))
}

fn select(parsed: s::Select) -> Lowered<t::Select> {
    let foreign = parsed.top.is_some()
        || parsed.exclude.is_some()
        || parsed.prewhere.is_some()
        || parsed.qualify.is_some()
        || !parsed.lateral_views.is_empty()
        || !parsed.connect_by.is_empty()
        || !parsed.cluster_by.is_empty()
        || !parsed.distribute_by.is_empty()
        || !parsed.sort_by.is_empty();
    if foreign {
        return Err(Unsupported("a clause that PostgreSQL does not have"));
    }
    let group_by = match parsed.group_by {
        s::GroupByExpr::Expressions(found, _) => exprs(found)?,
        s::GroupByExpr::All(_) => return Err(Unsupported("GROUP BY ALL")),
    };
    let distinct_on = match parsed.distinct {
        Some(s::Distinct::On(found)) => exprs(found)?,
        _ => Vec::new(),
    };
    let windows = list(parsed.named_window, |window| match window.1 {
        s::NamedWindowExpr::NamedWindow(_) => Ok(t::Expr::Nothing),
        s::NamedWindowExpr::WindowSpec(spec) => expr::window(spec),
    })?;
    Ok(t::Select {
        distinct_on,
        items: items(parsed.projection)?,
        into: parsed.into.map(into).transpose()?,
        from: from_list(parsed.from)?,
        filter: parsed.selection.map(expr).transpose()?,
        group_by,
        having: parsed.having.map(expr).transpose()?,
        windows,
    })
}

fn into(parsed: s::SelectInto) -> Lowered<t::Name> {
    match parsed.targets.into_iter().next() {
        Some(s::Expr::Identifier(name)) => Ok(vec![ident(name)]),
        Some(s::Expr::CompoundIdentifier(names)) => Ok(names.into_iter().map(ident).collect()),
        _ => Err(Unsupported("a SELECT INTO target that is no table")),
    }
}

fn items(parsed: Vec<s::SelectItem>) -> Lowered<Vec<t::Item>> {
    list(parsed, |item| {
        Ok(match item {
            s::SelectItem::UnnamedExpr(found) => match expr(found)? {
                t::Expr::Call(call) if call.name == [ALL_FIELDS] => {
                    t::Item::ExprStar(call.arguments.into_iter().next().unwrap_or(t::Expr::Nothing))
                }
                found => t::Item::Expr(found, None),
            },
            s::SelectItem::ExprWithAlias { expr: found, alias } => {
                t::Item::Expr(expr(found)?, Some(ident(alias)))
            }
            s::SelectItem::Wildcard(options) => {
                plain_wildcard(&options)?;
                t::Item::Star
            }
            s::SelectItem::QualifiedWildcard(kind, options) => {
                plain_wildcard(&options)?;
                match kind {
                    s::SelectItemQualifiedWildcardKind::ObjectName(name) => t::Item::TableStar(object(name)?),
                    s::SelectItemQualifiedWildcardKind::Expr(found) => t::Item::ExprStar(expr(found)?),
                }
            }
            s::SelectItem::ExprWithAliases { .. } => {
                return Err(Unsupported("several names for one expression"));
            }
        })
    })
}

fn returning(parsed: Vec<s::SelectItem>) -> Lowered<t::Returning> {
    Ok(t::Returning { items: items(parsed)?, ..t::Returning::default() })
}

fn plain_wildcard(options: &s::WildcardAdditionalOptions) -> Lowered<()> {
    let extra = options.opt_ilike.is_some()
        || options.opt_exclude.is_some()
        || options.opt_except.is_some()
        || options.opt_replace.is_some()
        || options.opt_rename.is_some()
        || options.opt_alias.is_some();
    if extra { Err(Unsupported("a wildcard with options")) } else { Ok(()) }
}

fn insert(parsed: s::Insert) -> Lowered<t::Insert> {
    let table = match parsed.table {
        s::TableObject::TableName(name) => object(name)?,
        _ => return Err(Unsupported("an INSERT into something that is no table")),
    };
    if parsed.overwrite
        || parsed.replace_into
        || !parsed.assignments.is_empty()
        || parsed.partitioned.is_some()
    {
        return Err(Unsupported("an INSERT that PostgreSQL does not have"));
    }
    let conflict = match parsed.on {
        None => None,
        Some(s::OnInsert::OnConflict(found)) => Some(conflict(found)?),
        Some(_) => return Err(Unsupported("ON DUPLICATE KEY")),
    };
    Ok(t::Insert {
        with: None,
        table,
        alias: parsed.table_alias.map(|alias| ident(alias.alias)),
        columns: list(parsed.columns, first_part)?,
        source: parsed.source.map(|source| query(*source)).transpose()?,
        conflict,
        returning: returning(parsed.returning.unwrap_or_default())?,
    })
}

/// The column of `column`, `column.field` or `column[1]`.
fn first_part(name: s::ObjectName) -> Lowered<String> {
    object(name)?.into_iter().next().ok_or(Unsupported("an empty name"))
}

fn conflict(parsed: s::OnConflict) -> Lowered<t::Conflict> {
    let (arbiter, constraint) = match parsed.conflict_target {
        None => (Vec::new(), None),
        Some(s::ConflictTarget::Columns(names)) => {
            (names.into_iter().map(|name| t::Expr::Name(vec![ident(name)])).collect(), None)
        }
        Some(s::ConflictTarget::OnConstraint(name)) => (Vec::new(), object(name)?.pop()),
    };
    let (assignments, filter) = match parsed.action {
        s::OnConflictAction::DoNothing => (Vec::new(), None),
        s::OnConflictAction::DoUpdate(update) => {
            (self::assignments(update.assignments)?, update.selection.map(expr).transpose()?)
        }
    };
    Ok(t::Conflict { arbiter, constraint, assignments, filter })
}

fn assignments(parsed: Vec<s::Assignment>) -> Lowered<Vec<t::Assignment>> {
    list(parsed, |assignment| {
        let columns = match assignment.target {
            s::AssignmentTarget::ColumnName(name) => vec![first_part(name)?],
            s::AssignmentTarget::Tuple(names) => list(names, first_part)?,
        };
        Ok(t::Assignment { columns, value: expr(assignment.value)? })
    })
}

/// A table that is changed: its name and alias.
fn target(parsed: s::TableFactor) -> Lowered<(t::Name, t::Alias)> {
    match table_factor(parsed)? {
        t::From::Table { name, alias, .. } => Ok((name, alias)),
        _ => Err(Unsupported("a change of something that is no table")),
    }
}

fn update(parsed: s::Update) -> Lowered<t::Update> {
    if !parsed.table.joins.is_empty() || parsed.limit.is_some() || !parsed.order_by.is_empty() {
        return Err(Unsupported("an UPDATE that PostgreSQL does not have"));
    }
    let (table, alias) = target(parsed.table.relation)?;
    let from = match parsed.from {
        None => Vec::new(),
        Some(s::UpdateTableFromKind::AfterSet(found)) => from_list(found)?,
        Some(_) => return Err(Unsupported("FROM before SET")),
    };
    Ok(t::Update {
        with: None,
        table,
        alias,
        assignments: assignments(parsed.assignments)?,
        from,
        filter: parsed.selection.map(expr).transpose()?,
        returning: returning(parsed.returning.unwrap_or_default())?,
    })
}

fn delete(parsed: s::Delete) -> Lowered<t::Delete> {
    let (s::FromTable::WithFromKeyword(tables) | s::FromTable::WithoutKeyword(tables)) = parsed.from;
    let mut tables = tables.into_iter();
    let only = match (tables.next(), tables.next()) {
        (Some(only), None) if only.joins.is_empty() => only,
        _ => return Err(Unsupported("a DELETE from several tables")),
    };
    if !parsed.tables.is_empty() || parsed.limit.is_some() || !parsed.order_by.is_empty() {
        return Err(Unsupported("a DELETE that PostgreSQL does not have"));
    }
    let (table, alias) = target(only.relation)?;
    Ok(t::Delete {
        with: None,
        table,
        alias,
        using: from_list(parsed.using.unwrap_or_default())?,
        filter: parsed.selection.map(expr).transpose()?,
        returning: returning(parsed.returning.unwrap_or_default())?,
    })
}

fn merge(parsed: s::Merge) -> Lowered<t::Merge> {
    let (table, alias) = target(parsed.table)?;
    let result = match parsed.output {
        None => t::Returning::default(),
        Some(s::OutputClause::Returning { select_items, .. }) => returning(select_items)?,
        Some(_) => return Err(Unsupported("OUTPUT")),
    };
    let when = list(parsed.clauses, |clause| {
        let action = match clause.action {
            s::MergeAction::Delete { .. } => t::Action::Delete,
            s::MergeAction::DoNothing { .. } => t::Action::Nothing,
            s::MergeAction::Update(update) => match update.kind {
                s::MergeUpdateKind::Set(found) => t::Action::Update(assignments(found)?),
                s::MergeUpdateKind::Wildcard => return Err(Unsupported("UPDATE *")),
            },
            s::MergeAction::Insert(insert) => merge_insert(insert)?,
        };
        Ok(t::When { condition: clause.predicate.map(expr).transpose()?, action })
    })?;
    Ok(t::Merge {
        with: None,
        table,
        alias,
        source: table_factor(parsed.source)?,
        on: expr(*parsed.on)?,
        when,
        returning: result,
    })
}

fn merge_insert(parsed: s::MergeInsertExpr) -> Lowered<t::Action> {
    let columns = list(parsed.columns, first_part)?;
    match parsed.kind {
        s::MergeInsertKind::Values(values) => {
            let row = values.rows.into_iter().next().ok_or(Unsupported("an empty INSERT"))?;
            Ok(t::Action::Insert { columns, values: exprs(row.content)? })
        }
        _ => Err(Unsupported("INSERT ROW")),
    }
}

/// The alias of a table that is changed cannot carry columns.
fn name_of(parsed: Option<s::TableAlias>) -> t::Alias {
    parsed.map(alias).unwrap_or_default()
}
