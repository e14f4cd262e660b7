//! Expressions.

use p::node::Node as N;
use pg_query::protobuf as p;

use super::super::tree as t;
use super::{Lowered, Unsupported, any_query, inner, list, text, texts};

pub(super) fn exprs(parsed: &[p::Node]) -> Lowered<Vec<t::Expr>> {
    list(parsed, expr)
}

fn parts(parsed: &[p::Node]) -> Lowered<t::Expr> {
    Ok(t::Expr::Parts(exprs(parsed)?))
}

/// Those of several parts that are there.
fn some_of<'a>(parsed: impl IntoIterator<Item = &'a Option<Box<p::Node>>>) -> Lowered<t::Expr> {
    let found = parsed.into_iter().filter_map(|part| part.as_deref());
    Ok(t::Expr::Parts(found.map(expr).collect::<Lowered<_>>()?))
}

fn named(name: &'static str, value: t::Expr) -> t::Expr {
    t::Expr::Named(Box::new(value), name)
}

pub(super) fn is_star(node: Option<&p::Node>) -> bool {
    node.is_some_and(|node| matches!(node.node, Some(N::AStar(_))))
}

pub(super) fn sorted(parsed: &[p::Node]) -> Lowered<Vec<t::Expr>> {
    list(parsed, |node| match inner(node)? {
        N::SortBy(found) => expr(found.node.as_deref().ok_or(Unsupported("an order by nothing"))?),
        _ => expr(node),
    })
}

pub(super) fn expr(node: &p::Node) -> Lowered<t::Expr> {
    Ok(match inner(node)? {
        N::ColumnRef(found) => column(found)?,
        N::AConst(found) => constant(found),
        N::AExpr(found) => operator(found)?,
        N::BoolExpr(found) => parts(&found.args)?,
        N::FuncCall(found) => call(found)?,
        N::TypeCast(found) => {
            let value = expr(found.arg.as_deref().ok_or(Unsupported("a cast of nothing"))?)?;
            let name = found.type_name.as_ref().and_then(|name| name.names.last()).map(text).transpose()?;
            t::Expr::Cast(Box::new(value), name.unwrap_or_default())
        }
        N::SubLink(found) => sub_link(found)?,
        N::AIndirection(found) => indirection(found)?,
        N::CollateClause(found) => expr(found.arg.as_deref().ok_or(Unsupported("a collation of nothing"))?)?,
        N::NullTest(found) => some_of([&found.arg])?,
        N::BooleanTest(found) => some_of([&found.arg])?,
        N::CaseExpr(found) => case(found)?,
        N::AArrayExpr(found) => named("array", parts(&found.elements)?),
        N::RowExpr(found) => named("row", parts(&found.args)?),
        N::CoalesceExpr(found) => named("coalesce", parts(&found.args)?),
        N::MinMaxExpr(found) => {
            let greatest = found.op == p::MinMaxOp::IsGreatest as i32;
            named(if greatest { "greatest" } else { "least" }, parts(&found.args)?)
        }
        N::GroupingFunc(found) => named("grouping", parts(&found.args)?),
        N::GroupingSet(found) => parts(&found.content)?,
        N::NamedArgExpr(found) => {
            expr(found.arg.as_deref().ok_or(Unsupported("an argument without a value"))?)?
        }
        N::ResTarget(found) => expr(found.val.as_deref().ok_or(Unsupported("a target without a value"))?)?,
        N::WindowDef(found) => window(found)?,
        N::List(found) => parts(&found.items)?,
        N::SqlvalueFunction(found) => named(value_function(found.op), t::Expr::Nothing),
        N::MergeSupportFunc(_) => named("merge_action", t::Expr::Nothing),
        N::SetToDefault(_) => t::Expr::Default,
        N::ParamRef(_) | N::CurrentOfExpr(_) => t::Expr::Nothing,
        other => spelled(other)?,
    })
}

/// XML and SQL/JSON.
fn spelled(node: &N) -> Lowered<t::Expr> {
    Ok(match node {
        N::XmlExpr(found) => {
            let mut all = exprs(&found.named_args)?;
            all.extend(exprs(&found.args)?);
            let name = match p::XmlExprOp::try_from(found.op) {
                Ok(p::XmlExprOp::IsXmlconcat) => "xmlconcat",
                Ok(p::XmlExprOp::IsXmlelement) => "xmlelement",
                Ok(p::XmlExprOp::IsXmlforest) => "xmlforest",
                Ok(p::XmlExprOp::IsXmlparse) => "xmlparse",
                Ok(p::XmlExprOp::IsXmlpi) => "xmlpi",
                Ok(p::XmlExprOp::IsXmlroot) => "xmlroot",
                _ => return Ok(t::Expr::Parts(all)),
            };
            named(name, t::Expr::Parts(all))
        }
        N::XmlSerialize(found) => named("xmlserialize", some_of([&found.expr])?),
        N::JsonFuncExpr(found) => {
            let mut all = json_value(found.context_item.as_deref())?;
            all.extend(found.pathspec.as_deref().map(expr).transpose()?);
            all.extend(json_arguments(&found.passing)?);
            for behavior in
                [&found.on_empty, &found.on_error].into_iter().filter_map(|found| found.as_deref())
            {
                all.extend(behavior.expr.as_deref().map(expr).transpose()?);
            }
            let name = match p::JsonExprOp::try_from(found.op) {
                Ok(p::JsonExprOp::JsonExistsOp) => "json_exists",
                Ok(p::JsonExprOp::JsonQueryOp) => "json_query",
                _ => "json_value",
            };
            named(name, t::Expr::Parts(all))
        }
        N::JsonValueExpr(found) => t::Expr::Parts(json_value(Some(found))?),
        N::JsonKeyValue(found) => t::Expr::Parts(key_value(found)?),
        N::JsonParseExpr(found) => named("json", t::Expr::Parts(json_value(found.expr.as_deref())?)),
        N::JsonScalarExpr(found) => named("json_scalar", some_of([&found.expr])?),
        N::JsonSerializeExpr(found) => {
            named("json_serialize", t::Expr::Parts(json_value(found.expr.as_deref())?))
        }
        N::JsonObjectConstructor(found) => named("json_object", parts(&found.exprs)?),
        N::JsonArrayConstructor(found) => named("json_array", parts(&found.exprs)?),
        N::JsonArrayQueryConstructor(found) => {
            named("json_array", t::Expr::Subquery(Box::new(any_query(found.query.as_deref())?)))
        }
        N::JsonObjectAgg(found) => {
            let pair = found.arg.as_deref().map(key_value).transpose()?.unwrap_or_default();
            json_aggregate("json_objectagg", pair, found.constructor.as_deref())?
        }
        N::JsonArrayAgg(found) => {
            json_aggregate("json_arrayagg", json_value(found.arg.as_deref())?, found.constructor.as_deref())?
        }
        N::JsonIsPredicate(found) => some_of([&found.expr])?,
        _ => return Err(Unsupported("an expression of another kind")),
    })
}

fn json_aggregate(
    name: &str,
    arguments: Vec<t::Expr>,
    constructor: Option<&p::JsonAggConstructor>,
) -> Lowered<t::Expr> {
    let mut aside = Vec::new();
    if let Some(found) = constructor {
        aside.extend(sorted(&found.agg_order)?);
        aside.extend(found.agg_filter.as_deref().map(expr).transpose()?);
        aside.extend(found.over.as_deref().map(window).transpose()?);
    }
    Ok(t::Expr::Call(Box::new(t::Call { name: vec![name.to_owned()], arguments, aside })))
}

fn key_value(pair: &p::JsonKeyValue) -> Lowered<Vec<t::Expr>> {
    let mut all: Vec<_> = pair.key.as_deref().map(expr).transpose()?.into_iter().collect();
    all.extend(json_value(pair.value.as_deref())?);
    Ok(all)
}

pub(super) fn json_value(value: Option<&p::JsonValueExpr>) -> Lowered<Vec<t::Expr>> {
    let raw = value.and_then(|value| value.raw_expr.as_deref());
    Ok(raw.map(expr).transpose()?.into_iter().collect())
}

pub(super) fn json_arguments(passing: &[p::Node]) -> Lowered<Vec<t::Expr>> {
    let mut all = Vec::new();
    for node in passing {
        match inner(node)? {
            N::JsonArgument(found) => all.extend(json_value(found.val.as_deref())?),
            _ => all.push(expr(node)?),
        }
    }
    Ok(all)
}

fn column(parsed: &p::ColumnRef) -> Lowered<t::Expr> {
    if is_star(parsed.fields.last()) {
        let name = texts(parsed.fields.get(..parsed.fields.len() - 1).unwrap_or_default())?;
        return Ok(if name.is_empty() { t::Expr::Nothing } else { t::Expr::Row(name) });
    }
    Ok(t::Expr::Name(texts(&parsed.fields)?))
}

fn constant(parsed: &p::AConst) -> t::Expr {
    use p::a_const::Val;
    match &parsed.val {
        Some(Val::Ival(_)) => t::Expr::Integer,
        Some(Val::Fval(found)) if found.fval.bytes().all(|byte| byte.is_ascii_digit()) => t::Expr::Integer,
        Some(Val::Sval(found)) => t::Expr::Text(found.sval.clone()),
        Some(Val::Boolval(found)) => t::Expr::Boolean(found.boolval),
        _ => t::Expr::Nothing,
    }
}

/// An operator; a left-deep chain of them from its last operand to its first.
fn operator(parsed: &p::AExpr) -> Lowered<t::Expr> {
    let mut operands = Vec::new();
    let mut rest = parsed;
    loop {
        operands.extend(rest.rexpr.as_deref().map(expr).transpose()?);
        match rest.lexpr.as_deref().map(inner).transpose()? {
            Some(N::AExpr(left)) if left.kind != p::AExprKind::AexprNullif as i32 => rest = left,
            Some(_) => {
                operands.extend(rest.lexpr.as_deref().map(expr).transpose()?);
                break;
            }
            None => break,
        }
    }
    operands.reverse();
    let all = t::Expr::Parts(operands);
    Ok(if parsed.kind == p::AExprKind::AexprNullif as i32 { named("nullif", all) } else { all })
}

fn case(parsed: &p::CaseExpr) -> Lowered<t::Expr> {
    let mut all: Vec<_> = parsed.arg.as_deref().map(expr).transpose()?.into_iter().collect();
    for node in &parsed.args {
        let N::CaseWhen(when) = inner(node)? else { return Err(Unsupported("a WHEN of another kind")) };
        for part in [&when.expr, &when.result].into_iter().filter_map(|part| part.as_deref()) {
            all.push(expr(part)?);
        }
    }
    // The last part names the column.
    all.push(parsed.defresult.as_deref().map(expr).transpose()?.unwrap_or(t::Expr::Nothing));
    Ok(named("case", t::Expr::Parts(all)))
}

fn sub_link(parsed: &p::SubLink) -> Lowered<t::Expr> {
    let query = Box::new(any_query(parsed.subselect.as_deref())?);
    Ok(match p::SubLinkType::try_from(parsed.sub_link_type) {
        Ok(p::SubLinkType::ExistsSublink) => t::Expr::Exists(query),
        Ok(p::SubLinkType::ArraySublink) => named("array", t::Expr::Subquery(query)),
        _ => match parsed.testexpr.as_deref() {
            Some(test) => t::Expr::In(Box::new(expr(test)?), query),
            None => t::Expr::Subquery(query),
        },
    })
}

pub(super) fn indirection(parsed: &p::AIndirection) -> Lowered<t::Expr> {
    let mut value = expr(parsed.arg.as_deref().ok_or(Unsupported("a field of nothing"))?)?;
    for node in &parsed.indirection {
        value = match inner(node)? {
            N::String(field) => t::Expr::Field(Box::new(value), field.sval.clone()),
            N::AIndices(found) => {
                let bounds = [&found.lidx, &found.uidx].into_iter().filter_map(|part| part.as_deref());
                let mut index: Vec<_> = bounds.map(expr).collect::<Lowered<_>>()?;
                let plain = |part: &t::Expr| matches!(part, t::Expr::Integer | t::Expr::Nothing);
                if matches!(value, t::Expr::Name(_)) && index.iter().all(plain) {
                    value
                } else {
                    index.insert(0, value);
                    t::Expr::Parts(index)
                }
            }
            N::AStar(_) => value,
            _ => return Err(Unsupported("a field of another kind")),
        };
    }
    Ok(value)
}

/// What stands in the subscripts of a target.
pub(super) fn subscripts(parsed: &[p::Node]) -> Lowered<Vec<t::Expr>> {
    let mut all = Vec::new();
    for node in parsed {
        if let N::AIndices(found) = inner(node)? {
            for part in [&found.lidx, &found.uidx].into_iter().filter_map(|part| part.as_deref()) {
                all.push(expr(part)?);
            }
        }
    }
    Ok(all)
}

fn call(parsed: &p::FuncCall) -> Lowered<t::Expr> {
    let mut arguments = exprs(&parsed.args)?;
    let mut aside = Vec::new();
    let order = sorted(&parsed.agg_order)?;
    if parsed.agg_within_group {
        arguments.extend(order)
    } else {
        aside.extend(order)
    }
    aside.extend(parsed.agg_filter.as_deref().map(expr).transpose()?);
    aside.extend(parsed.over.as_deref().map(window).transpose()?);
    Ok(t::Expr::Call(Box::new(t::Call { name: texts(&parsed.funcname)?, arguments, aside })))
}

fn window(parsed: &p::WindowDef) -> Lowered<t::Expr> {
    let mut all = exprs(&parsed.partition_clause)?;
    all.extend(sorted(&parsed.order_clause)?);
    for bound in [&parsed.start_offset, &parsed.end_offset].into_iter().filter_map(|part| part.as_deref()) {
        all.push(expr(bound)?);
    }
    Ok(t::Expr::Parts(all))
}

fn value_function(op: i32) -> &'static str {
    use p::SqlValueFunctionOp as Op;
    match Op::try_from(op) {
        Ok(Op::SvfopCurrentDate) => "current_date",
        Ok(Op::SvfopCurrentTime | Op::SvfopCurrentTimeN) => "current_time",
        Ok(Op::SvfopCurrentTimestamp | Op::SvfopCurrentTimestampN) => "current_timestamp",
        Ok(Op::SvfopLocaltime | Op::SvfopLocaltimeN) => "localtime",
        Ok(Op::SvfopLocaltimestamp | Op::SvfopLocaltimestampN) => "localtimestamp",
        Ok(Op::SvfopCurrentRole) => "current_role",
        Ok(Op::SvfopCurrentUser) => "current_user",
        Ok(Op::SvfopUser) => "user",
        Ok(Op::SvfopSessionUser) => "session_user",
        Ok(Op::SvfopCurrentCatalog) => "current_catalog",
        _ => "current_schema",
    }
}
