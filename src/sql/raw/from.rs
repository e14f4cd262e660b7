//! FROM clauses.

use p::node::Node as N;
use pg_query::protobuf as p;

use super::super::tree as t;
use super::expr::{expr, exprs};
use super::{Lowered, Unsupported, any_query, inner, list, range_name, texts};

pub(super) fn from_list(parsed: &[p::Node]) -> Lowered<Vec<t::From>> {
    list(parsed, from)
}

pub(super) fn alias(parsed: Option<&p::Alias>) -> Lowered<t::Alias> {
    let Some(parsed) = parsed else { return Ok(t::Alias::default()) };
    let name = Some(parsed.aliasname.clone()).filter(|name| !name.is_empty());
    Ok(t::Alias { name, columns: texts(&parsed.colnames)? })
}

pub(super) fn from(node: &p::Node) -> Lowered<t::From> {
    Ok(match inner(node)? {
        N::RangeVar(found) => t::From::Table {
            name: range_name(found),
            alias: alias(found.alias.as_ref())?,
            sample: Vec::new(),
        },
        N::RangeSubselect(found) => t::From::Subquery {
            query: Box::new(any_query(found.subquery.as_deref())?),
            lateral: found.lateral,
            alias: alias(found.alias.as_ref())?,
        },
        N::RangeFunction(found) => function(found)?,
        N::RangeTableFunc(found) => xml_table(found)?,
        N::JsonTable(found) => json_table(found)?,
        N::RangeTableSample(found) => sample(found)?,
        N::JoinExpr(found) => join(found)?,
        _ => return Err(Unsupported("a table of another kind")),
    })
}

fn function(parsed: &p::RangeFunction) -> Lowered<t::From> {
    let mut calls = Vec::new();
    let mut columns = Vec::new();
    for node in &parsed.functions {
        // Each is a list of the call and its own column definitions.
        let N::List(pair) = inner(node)? else { return Err(Unsupported("a function of another kind")) };
        let call = pair.items.first().ok_or(Unsupported("an empty function"))?;
        calls.push(expr(call)?);
        let own = match pair.items.get(1).and_then(|node| node.node.as_ref()) {
            Some(N::List(found)) => column_names(&found.items)?,
            _ => Vec::new(),
        };
        columns.push(if own.is_empty() { column_names(&parsed.coldeflist)? } else { own });
    }
    Ok(t::From::Function {
        calls,
        columns,
        ordinality: parsed.ordinality,
        alias: alias(parsed.alias.as_ref())?,
    })
}

fn column_names(definitions: &[p::Node]) -> Lowered<Vec<String>> {
    list(definitions, |node| match inner(node)? {
        N::ColumnDef(found) => Ok(found.colname.clone()),
        _ => Err(Unsupported("a column definition of another kind")),
    })
}

fn xml_table(parsed: &p::RangeTableFunc) -> Lowered<t::From> {
    let mut parts = Vec::new();
    for part in [&parsed.rowexpr, &parsed.docexpr].into_iter().filter_map(|part| part.as_deref()) {
        parts.push(expr(part)?);
    }
    for node in &parsed.namespaces {
        parts.push(expr(node)?);
    }
    let mut names = Vec::new();
    for node in &parsed.columns {
        let N::RangeTableFuncCol(column) = inner(node)? else {
            return Err(Unsupported("a column of another kind"));
        };
        names.push(column.colname.clone());
        for part in [&column.colexpr, &column.coldefexpr].into_iter().filter_map(|part| part.as_deref()) {
            parts.push(expr(part)?);
        }
    }
    Ok(t::From::Function {
        calls: vec![t::Expr::Named(Box::new(t::Expr::Parts(parts)), "xmltable")],
        columns: vec![names],
        ordinality: false,
        alias: alias(parsed.alias.as_ref())?,
    })
}

fn json_table(parsed: &p::JsonTable) -> Lowered<t::From> {
    let mut parts = super::expr::json_value(parsed.context_item.as_deref())?;
    parts.extend(super::expr::json_arguments(&parsed.passing)?);
    let mut names = Vec::new();
    json_columns(&parsed.columns, &mut names, &mut parts)?;
    Ok(t::From::Function {
        calls: vec![t::Expr::Named(Box::new(t::Expr::Parts(parts)), "json_table")],
        columns: vec![names],
        ordinality: false,
        alias: alias(parsed.alias.as_ref())?,
    })
}

fn json_columns(columns: &[p::Node], names: &mut Vec<String>, parts: &mut Vec<t::Expr>) -> Lowered<()> {
    for node in columns {
        let N::JsonTableColumn(column) = inner(node)? else {
            return Err(Unsupported("a column of another kind"));
        };
        if column.coltype == p::JsonTableColumnType::JtcNested as i32 {
            json_columns(&column.columns, names, parts)?;
            continue;
        }
        names.push(column.name.clone());
        for behavior in [&column.on_empty, &column.on_error].into_iter().filter_map(|found| found.as_deref())
        {
            parts.extend(behavior.expr.as_deref().map(expr).transpose()?);
        }
    }
    Ok(())
}

fn sample(parsed: &p::RangeTableSample) -> Lowered<t::From> {
    let relation = parsed.relation.as_deref().ok_or(Unsupported("a sample of nothing"))?;
    let mut table = from(relation)?;
    let t::From::Table { sample, .. } = &mut table else {
        return Err(Unsupported("a sample of something that is no table"));
    };
    sample.extend(exprs(&parsed.args)?);
    sample.extend(parsed.repeatable.as_deref().map(expr).transpose()?);
    Ok(table)
}

/// A join; a left-deep chain of them in a loop.
fn join(parsed: &p::JoinExpr) -> Lowered<t::From> {
    let missing = "a join without a side";
    let mut chain = vec![parsed];
    let mut first = parsed.larg.as_deref().ok_or(Unsupported(missing))?;
    while let N::JoinExpr(deeper) = inner(first)? {
        chain.push(deeper);
        first = deeper.larg.as_deref().ok_or(Unsupported(missing))?;
    }
    let mut left = from(first)?;
    for join in chain.into_iter().rev() {
        let right = from(join.rarg.as_deref().ok_or(Unsupported(missing))?)?;
        let on = if join.is_natural {
            t::On::Natural
        } else if let Some(condition) = join.quals.as_deref() {
            t::On::Expr(expr(condition)?)
        } else if join.using_clause.is_empty() {
            t::On::Nothing
        } else {
            t::On::Using(texts(&join.using_clause)?)
        };
        let using_alias = alias(join.join_using_alias.as_ref())?.name;
        let alias = alias(join.alias.as_ref())?;
        left = t::From::Join(Box::new(t::Join { left, right, on, using_alias, alias }));
    }
    Ok(left)
}
