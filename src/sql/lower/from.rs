//! FROM clauses.

use sqlparser::ast as s;

use super::super::reword::ROWS_FROM;
use super::super::tree as t;
use super::expr::{argument, expr, exprs};
use super::{Lowered, Unsupported, ident, list, name_of, object, query};

pub(super) fn from_list(parsed: Vec<s::TableWithJoins>) -> Lowered<Vec<t::From>> {
    list(parsed, joined)
}

pub(super) fn alias(parsed: s::TableAlias) -> t::Alias {
    t::Alias {
        name: Some(ident(parsed.name)),
        columns: parsed.columns.into_iter().map(|column| ident(column.name)).collect(),
    }
}

fn joined(parsed: s::TableWithJoins) -> Lowered<t::From> {
    let mut left = table_factor(parsed.relation)?;
    for join in parsed.joins {
        let on = match join.join_operator {
            s::JoinOperator::Join(on)
            | s::JoinOperator::Inner(on)
            | s::JoinOperator::Left(on)
            | s::JoinOperator::LeftOuter(on)
            | s::JoinOperator::Right(on)
            | s::JoinOperator::RightOuter(on)
            | s::JoinOperator::FullOuter(on)
            | s::JoinOperator::CrossJoin(on) => constraint(on)?,
            _ => return Err(Unsupported("a join that PostgreSQL does not have")),
        };
        let right = table_factor(join.relation)?;
        left = t::From::Join(Box::new(t::Join {
            left,
            right,
            on,
            using_alias: None,
            alias: t::Alias::default(),
        }));
    }
    Ok(left)
}

fn constraint(parsed: s::JoinConstraint) -> Lowered<t::On> {
    Ok(match parsed {
        s::JoinConstraint::On(found) => t::On::Expr(expr(found)?),
        s::JoinConstraint::Using(names) => {
            t::On::Using(list(names, |name| object(name)?.pop().ok_or(Unsupported("an empty name")))?)
        }
        s::JoinConstraint::Natural => t::On::Natural,
        s::JoinConstraint::None => t::On::Nothing,
    })
}

pub(super) fn table_factor(parsed: s::TableFactor) -> Lowered<t::From> {
    Ok(match parsed {
        s::TableFactor::Table { name, alias, args, with_ordinality, sample, partitions, version, .. } => {
            if !partitions.is_empty() || version.is_some() {
                return Err(Unsupported("a table clause that PostgreSQL does not have"));
            }
            let alias = name_of(alias);
            match args {
                None => t::From::Table { name: object(name)?, alias, sample: self::sample(sample)? },
                Some(found) => call(name, found.args, with_ordinality, alias)?,
            }
        }
        s::TableFactor::Derived { lateral, subquery, alias, .. } => {
            t::From::Subquery { query: Box::new(query(*subquery)?), lateral, alias: name_of(alias) }
        }
        s::TableFactor::Function { name, args, with_ordinality, alias, .. } => {
            call(name, args, with_ordinality, name_of(alias))?
        }
        s::TableFactor::TableFunction { expr: found, alias } => {
            function(expr(found)?, Vec::new(), false, name_of(alias))
        }
        s::TableFactor::UNNEST { alias, array_exprs, with_ordinality, .. } => {
            unnest(array_exprs, with_ordinality, alias)?
        }
        s::TableFactor::NestedJoin { table_with_joins, alias } => nested(*table_with_joins, name_of(alias))?,
        s::TableFactor::JsonTable { json_expr, columns, alias, .. } => {
            let mut names = Vec::new();
            json_columns(columns, &mut names);
            function(expr(json_expr)?, names, false, name_of(alias))
        }
        s::TableFactor::XmlTable { namespaces, row_expression, passing, columns, alias } => {
            let mut parts = vec![expr(row_expression)?];
            parts.extend(list(namespaces, |found| expr(found.uri))?);
            parts.extend(list(passing.arguments, |found| expr(found.expr))?);
            let mut names = Vec::with_capacity(columns.len());
            for column in columns {
                names.push(ident(column.name));
                if let s::XmlTableColumnOption::NamedInfo { path, default, .. } = column.option {
                    parts.extend(exprs([path, default].into_iter().flatten().collect())?);
                }
            }
            function(t::Expr::Parts(parts), names, false, name_of(alias))
        }
        _ => return Err(Unsupported("a table that PostgreSQL does not have")),
    })
}

fn function(call: t::Expr, columns: Vec<String>, ordinality: bool, alias: t::Alias) -> t::From {
    t::From::Function { calls: vec![call], columns: vec![columns], ordinality, alias }
}

fn call(
    name: s::ObjectName,
    args: Vec<s::FunctionArg>,
    ordinality: bool,
    alias: t::Alias,
) -> Lowered<t::From> {
    let call = t::Call { name: object(name)?, arguments: list(args, argument)?, aside: Vec::new() };
    if call.name == [ROWS_FROM] {
        return Ok(t::From::Function { calls: call.arguments, columns: Vec::new(), ordinality, alias });
    }
    Ok(function(t::Expr::Call(Box::new(call)), Vec::new(), ordinality, alias))
}

fn unnest(arrays: Vec<s::Expr>, ordinality: bool, alias: Option<s::TableAlias>) -> Lowered<t::From> {
    let arguments = list(arrays, expr)?;
    let call = t::Call { name: vec!["unnest".to_owned()], arguments, aside: Vec::new() };
    Ok(function(t::Expr::Call(Box::new(call)), Vec::new(), ordinality, name_of(alias)))
}

fn nested(parsed: s::TableWithJoins, alias: t::Alias) -> Lowered<t::From> {
    let mut inner = joined(parsed)?;
    if alias.name.is_some() {
        match &mut inner {
            t::From::Join(join) => join.alias = alias,
            t::From::Table { alias: own, .. } | t::From::Subquery { alias: own, .. }
                if own.name.is_none() =>
            {
                *own = alias
            }
            _ => return Err(Unsupported("a second alias")),
        }
    }
    Ok(inner)
}

fn json_columns(columns: Vec<s::JsonTableColumn>, names: &mut Vec<String>) {
    for column in columns {
        match column {
            s::JsonTableColumn::Named(named) => names.push(ident(named.name)),
            s::JsonTableColumn::ForOrdinality(name) => names.push(ident(name)),
            s::JsonTableColumn::Nested(inner) => json_columns(inner.columns, names),
        }
    }
}

fn sample(parsed: Option<s::TableSampleKind>) -> Lowered<Vec<t::Expr>> {
    let Some(s::TableSampleKind::BeforeTableAlias(found) | s::TableSampleKind::AfterTableAlias(found)) =
        parsed
    else {
        return Ok(Vec::new());
    };
    exprs(found.quantity.into_iter().map(|quantity| quantity.value).collect())
}
