//! Expressions.

use sqlparser::ast as s;

use super::super::tree as t;
use super::{Lowered, Unsupported, ident, list, object, order_by, query};

pub(super) fn exprs(parsed: Vec<s::Expr>) -> Lowered<Vec<t::Expr>> {
    list(parsed, expr)
}

fn parts(parsed: Vec<s::Expr>) -> Lowered<t::Expr> {
    Ok(t::Expr::Parts(exprs(parsed)?))
}

fn named(name: &'static str, parsed: Vec<s::Expr>) -> Lowered<t::Expr> {
    Ok(t::Expr::Named(Box::new(parts(parsed)?), name))
}

/// Unquoted words that stand for a value, not for a column.
const VALUES: &[&str] = &[
    "current_date",
    "current_time",
    "current_timestamp",
    "localtime",
    "localtimestamp",
    "current_user",
    "current_role",
    "session_user",
    "user",
    "current_catalog",
    "current_schema",
    "null",
    "true",
    "false",
    "unknown",
];

pub(super) fn expr(parsed: s::Expr) -> Lowered<t::Expr> {
    use s::Expr as E;
    match parsed {
        E::BinaryOp { .. } => chain(parsed),
        E::Identifier(name) => {
            let is = |known: &&str| name.quote_style.is_none() && name.value.eq_ignore_ascii_case(known);
            Ok(if is(&"default") {
                t::Expr::Default
            } else if VALUES.iter().any(is) {
                t::Expr::Nothing
            } else {
                t::Expr::Name(vec![ident(name)])
            })
        }
        E::CompoundIdentifier(names) => Ok(t::Expr::Name(names.into_iter().map(ident).collect())),
        E::CompoundFieldAccess { root, access_chain } => access(*root, access_chain),
        E::Value(value) => Ok(constant(value.value)),
        E::TypedString(typed) => Ok(t::Expr::Cast(Box::new(t::Expr::Nothing), type_name(&typed.data_type))),
        E::Nested(inner) => expr(*inner),
        E::Function(found) => function(found),
        E::Subquery(found) => Ok(t::Expr::Subquery(Box::new(query(*found)?))),
        E::Exists { subquery, .. } => Ok(t::Expr::Exists(Box::new(query(*subquery)?))),
        E::InSubquery { expr: left, subquery, .. } => {
            Ok(t::Expr::In(Box::new(expr(*left)?), Box::new(query(*subquery)?)))
        }
        E::AnyOp { left, right, .. } | E::AllOp { left, right, .. } => any(*left, *right),
        E::Cast { expr: inner, data_type, .. } => {
            Ok(t::Expr::Cast(Box::new(expr(*inner)?), type_name(&data_type)))
        }
        E::QualifiedWildcard(name, _) => Ok(t::Expr::Row(object(name)?)),
        E::Wildcard(_) => Ok(t::Expr::Nothing),
        E::Collate { expr: inner, .. } => expr(*inner),
        E::Case { operand, conditions, else_result, .. } => {
            let mut all: Vec<_> = operand.into_iter().map(|found| *found).collect();
            for when in conditions {
                all.extend([when.condition, when.result]);
            }
            // The last part names the column.
            let last = else_result.map(|found| expr(*found)).transpose()?.unwrap_or(t::Expr::Nothing);
            let mut all = exprs(all)?;
            all.push(last);
            Ok(t::Expr::Named(Box::new(t::Expr::Parts(all)), "case"))
        }
        E::Array(array) => named("array", array.elem),
        E::Tuple(found) => named("row", found),
        E::GroupingSets(sets) | E::Cube(sets) | E::Rollup(sets) => {
            parts(sets.into_iter().flatten().collect())
        }
        E::Interval(interval) => Ok(t::Expr::Cast(Box::new(expr(*interval.value)?), "interval".to_owned())),
        other => spelled(other),
    }
}

/// Expressions with a syntax of their own: tests, and functions written with words.
fn spelled(parsed: s::Expr) -> Lowered<t::Expr> {
    use s::Expr as E;
    match parsed {
        E::IsFalse(a)
        | E::IsNotFalse(a)
        | E::IsTrue(a)
        | E::IsNotTrue(a)
        | E::IsNull(a)
        | E::IsNotNull(a) => parts(vec![*a]),
        E::IsUnknown(a) | E::IsNotUnknown(a) | E::UnaryOp { expr: a, .. } => parts(vec![*a]),
        E::IsDistinctFrom(a, b) | E::IsNotDistinctFrom(a, b) => parts(vec![*a, *b]),
        E::IsJson { expr: a, .. } | E::IsNormalized { expr: a, .. } => parts(vec![*a]),
        E::InList { expr: a, list, .. } => {
            let mut all = vec![*a];
            all.extend(list);
            parts(all)
        }
        E::InUnnest { expr: a, array_expr, .. } => parts(vec![*a, *array_expr]),
        E::Between { expr: a, low, high, .. } => parts(vec![*a, *low, *high]),
        E::Like { expr: a, pattern, escape_char, .. }
        | E::ILike { expr: a, pattern, escape_char, .. }
        | E::SimilarTo { expr: a, pattern, escape_char, .. } => {
            let mut all = vec![*a, *pattern];
            all.extend(escape_char.map(|found| *found));
            like(all)
        }
        E::AtTimeZone { timestamp, time_zone } => named("timezone", vec![*timestamp, *time_zone]),
        E::Extract { expr: a, .. } => named("extract", vec![*a]),
        E::Ceil { expr: a, .. } => named("ceil", vec![*a]),
        E::Floor { expr: a, .. } => named("floor", vec![*a]),
        E::Position { expr: a, r#in } => named("position", vec![*a, *r#in]),
        E::Substring { expr: a, substring_from, substring_for, .. } => {
            let mut all = vec![*a];
            all.extend(substring_from.map(|found| *found));
            all.extend(substring_for.map(|found| *found));
            named("substring", all)
        }
        E::Trim { expr: a, trim_what, trim_characters, trim_where } => {
            let mut all = vec![*a];
            all.extend(trim_what.map(|found| *found));
            all.extend(trim_characters.into_iter().flatten());
            let name = match trim_where {
                Some(s::TrimWhereField::Leading) => "ltrim",
                Some(s::TrimWhereField::Trailing) => "rtrim",
                _ => "btrim",
            };
            named(name, all)
        }
        E::Overlay { expr: a, overlay_what, overlay_from, overlay_for } => {
            let mut all = vec![*a, *overlay_what, *overlay_from];
            all.extend(overlay_for.map(|found| *found));
            named("overlay", all)
        }
        E::Named { expr: a, .. } | E::Prefixed { value: a, .. } => expr(*a),
        _ => Err(Unsupported("an expression that PostgreSQL does not have")),
    }
}

/// `x LIKE ANY (SELECT …)` and its kin carry the sub-select as the pattern.
fn like(all: Vec<s::Expr>) -> Lowered<t::Expr> {
    parts(all)
}

/// A left-deep chain of operators, from its last operand to its first.
fn chain(parsed: s::Expr) -> Lowered<t::Expr> {
    let mut operands = Vec::new();
    let mut rest = parsed;
    loop {
        match rest {
            s::Expr::BinaryOp { left, right, .. } => {
                operands.push(expr(*right)?);
                rest = *left;
            }
            s::Expr::Nested(inner) if matches!(*inner, s::Expr::BinaryOp { .. }) => rest = *inner,
            last => {
                operands.push(expr(last)?);
                operands.reverse();
                return Ok(t::Expr::Parts(operands));
            }
        }
    }
}

fn any(left: s::Expr, right: s::Expr) -> Lowered<t::Expr> {
    let left = expr(left)?;
    Ok(match expr(right)? {
        t::Expr::Subquery(found) => t::Expr::In(Box::new(left), found),
        right => t::Expr::Parts(vec![left, right]),
    })
}

fn constant(value: s::Value) -> t::Expr {
    match value {
        s::Value::Number(digits, _) if digits.bytes().all(|byte| byte.is_ascii_digit()) => t::Expr::Integer,
        s::Value::SingleQuotedString(text) => t::Expr::Text(text),
        s::Value::Boolean(value) => t::Expr::Boolean(value),
        _ => t::Expr::Nothing,
    }
}

fn access(root: s::Expr, links: Vec<s::AccessExpr>) -> Lowered<t::Expr> {
    // `t.a[1]` comes apart as `t`, `.a`, `[1]`; only `(t).a` takes a field of a value.
    let mut plain = !matches!(root, s::Expr::Nested(_));
    let mut value = expr(root)?;
    for link in links {
        let dotted = plain;
        plain &= matches!(link, s::AccessExpr::Dot(_));
        value = match link {
            s::AccessExpr::Dot(s::Expr::Identifier(field)) if dotted && matches!(value, t::Expr::Name(_)) => {
                let t::Expr::Name(mut name) = value else {
                    return Err(Unsupported("a field that is no name"));
                };
                name.push(ident(field));
                t::Expr::Name(name)
            }
            s::AccessExpr::Dot(s::Expr::Identifier(field)) => t::Expr::Field(Box::new(value), ident(field)),
            s::AccessExpr::Dot(s::Expr::Function(call)) => {
                let mut lowered = function(call)?;
                if let t::Expr::Call(call) = &mut lowered {
                    call.arguments.push(value);
                }
                lowered
            }
            s::AccessExpr::Dot(_) => return Err(Unsupported("a field that is no name")),
            s::AccessExpr::Subscript(s::Subscript::Index { index }) => subscript(value, vec![expr(index)?]),
            s::AccessExpr::Subscript(s::Subscript::Slice { lower_bound, upper_bound, stride }) => {
                let bounds = [lower_bound, upper_bound, stride].into_iter().flatten().collect();
                subscript(value, exprs(bounds)?)
            }
        };
    }
    Ok(value)
}

fn subscript(value: t::Expr, index: Vec<t::Expr>) -> t::Expr {
    if matches!(value, t::Expr::Name(_))
        && index.iter().all(|part| matches!(part, t::Expr::Integer | t::Expr::Nothing))
    {
        return value;
    }
    let mut all = vec![value];
    all.extend(index);
    t::Expr::Parts(all)
}

/// One argument of a function.
pub(super) fn argument(parsed: s::FunctionArg) -> Lowered<t::Expr> {
    match parsed {
        s::FunctionArg::Named { arg, .. } | s::FunctionArg::Unnamed(arg) => argument_value(arg),
        // `name => value` names a parameter; only JSON's `key : value` has an expression there.
        s::FunctionArg::ExprNamed { arg, operator, .. } if operator != s::FunctionArgOperator::Colon => {
            argument_value(arg)
        }
        s::FunctionArg::ExprNamed { name, arg, .. } => {
            Ok(t::Expr::Parts(vec![expr(name)?, argument_value(arg)?]))
        }
    }
}

fn argument_value(parsed: s::FunctionArgExpr) -> Lowered<t::Expr> {
    match parsed {
        s::FunctionArgExpr::Expr(found) => expr(found),
        s::FunctionArgExpr::QualifiedWildcard(name) => Ok(t::Expr::Row(object(name)?)),
        s::FunctionArgExpr::Wildcard | s::FunctionArgExpr::WildcardWithOptions(_) => Ok(t::Expr::Nothing),
    }
}

fn function(parsed: s::Function) -> Lowered<t::Expr> {
    let mut aside = Vec::new();
    let arguments = match parsed.args {
        s::FunctionArguments::None => {
            // A word such as CURRENT_DATE.
            return Ok(t::Expr::Call(Box::new(t::Call {
                name: object(parsed.name)?,
                arguments: Vec::new(),
                aside,
            })));
        }
        s::FunctionArguments::Subquery(found) => vec![t::Expr::Subquery(Box::new(query(*found)?))],
        s::FunctionArguments::List(found) => {
            for clause in found.clauses {
                match clause {
                    s::FunctionArgumentClause::OrderBy(order) => {
                        aside.extend(list(order, |item| expr(item.expr))?)
                    }
                    s::FunctionArgumentClause::Where(found) | s::FunctionArgumentClause::Limit(found) => {
                        aside.push(expr(found)?);
                    }
                    s::FunctionArgumentClause::Having(bound) => aside.push(expr(bound.1)?),
                    _ => {}
                }
            }
            let mut all = list(found.args, argument)?;
            all.extend(list(parsed.within_group, |item| expr(item.expr))?);
            all
        }
    };
    aside.extend(parsed.filter.map(|found| expr(*found)).transpose()?);
    match parsed.over {
        Some(s::WindowType::WindowSpec(spec)) => aside.push(window(spec)?),
        Some(s::WindowType::NamedWindow(_)) | None => {}
    }
    Ok(t::Expr::Call(Box::new(t::Call { name: object(parsed.name)?, arguments, aside })))
}

pub(super) fn window(spec: s::WindowSpec) -> Lowered<t::Expr> {
    let mut all = exprs(spec.partition_by)?;
    let kind = s::OrderByKind::Expressions(spec.order_by);
    all.extend(order_by(s::OrderBy { kind, interpolate: None })?);
    if let Some(frame) = spec.window_frame {
        for bound in std::iter::once(frame.start_bound).chain(frame.end_bound) {
            if let s::WindowFrameBound::Preceding(Some(found)) | s::WindowFrameBound::Following(Some(found)) =
                bound
            {
                all.push(expr(*found)?);
            }
        }
    }
    Ok(t::Expr::Parts(all))
}

/// The name that a cast gives an output column which has no better one.
fn type_name(parsed: &s::DataType) -> String {
    let text = parsed.to_string().to_ascii_lowercase();
    let plain = text.split(['(', '[']).next().unwrap_or_default().trim();
    let name = match plain {
        "int" | "integer" => "int4",
        "bigint" => "int8",
        "smallint" => "int2",
        "boolean" => "bool",
        "real" => "float4",
        "double precision" | "float" => "float8",
        "character varying" => "varchar",
        "character" | "char" => "bpchar",
        "decimal" | "dec" => "numeric",
        "timestamp with time zone" => "timestamptz",
        "timestamp without time zone" => "timestamp",
        "time with time zone" => "timetz",
        other => other.rsplit('.').next().unwrap_or(other).trim_matches('"'),
    };
    name.to_owned()
}
