//! Rows of the catalog query to a [`Schema`]. Strict: a row that is not as the query promises is an error.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{
    Base, Call, Change, Column, Constraint, Fires, Function, LoginSetting, Object, Origin, Policy, Relation,
    RelationKind, Role, Rule, Schema, Touch, Trigger, Volatility, When, quoted,
};

/// The most rows one catalog may have.
const ROWS_MAX: usize = 4_000_000;

/// Why a catalog could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CatalogError {
    /// More rows than any database should need.
    #[error("the catalog has {rows} rows, more than the limit of {ROWS_MAX}")]
    TooLarge {
        /// How many there were.
        rows: usize,
    },
    /// A row is not what the catalog query returns.
    #[error("row {row} of the catalog is not understood: {what}")]
    Row {
        /// Counted from zero.
        row: usize,
        /// The field that was wrong.
        what: &'static str,
    },
}

/// What a catalog statement returned.
pub type Rows = Vec<Vec<Option<String>>>;

/// Builds the catalog from the rows that the [`super::statement`] of everything returned.
///
/// # Errors
/// When a row has another shape than the query gives it.
pub fn read(rows: &[Vec<Option<String>>]) -> Result<Schema, CatalogError> {
    read_onto(&Schema::default(), rows)
}

/// Builds the catalog from what is known already, and the rows of another part of it. That is most of
/// the work for what came with the server, so it is done once.
///
/// # Errors
/// When a row has another shape than the query gives it.
pub fn read_onto(base: &Schema, rows: &[Vec<Option<String>>]) -> Result<Schema, CatalogError> {
    if rows.len() > ROWS_MAX {
        return Err(CatalogError::TooLarge { rows: rows.len() });
    }
    let mut schema = base.clone();
    for pass in [Pass::Names, Pass::Details] {
        for (at, row) in rows.iter().enumerate() {
            let row = Row { at, fields: row };
            let known = match pass {
                Pass::Names => names(&mut schema, &row),
                Pass::Details => details(&mut schema, &row),
            };
            known?;
        }
    }
    for row in rows {
        let added = digest(row);
        let sum = schema.digests.entry(object(row)).or_default();
        *sum = sum.wrapping_add(added);
    }
    schema.digest = schema.digests.values().fold(0, |sum, each| sum.wrapping_add(*each));
    if rows.iter().any(|row| matches!(object(row), Object::Function(_))) {
        schema.find_unsettling();
    }
    Ok(schema)
}

/// Relations come before what refers to them.
#[derive(Clone, Copy)]
enum Pass {
    Names,
    Details,
}

fn names(schema: &mut Schema, row: &Row<'_>) -> Result<(), CatalogError> {
    match row.text(0, "kind")? {
        "namespace" => {
            schema.schemas.entry(row.text(2, "schema name")?.into()).or_default();
        }
        "relation" => add_relation(schema, row)?,
        "function" => add_function(schema, row)?,
        "builtin" => {
            let builtin: Vec<Box<str>> = row.json(2, "built-in names")?;
            let known = schema.schemas.entry(row.text(1, "schema name")?.into()).or_default();
            for name in builtin {
                known.functions.entry(name).or_default();
            }
        }
        "signatures" => {
            if let Some(lines) = row.optional(2) {
                schema.signatures = format!("{}{lines}\n", schema.signatures).into();
            }
        }
        _ => {}
    }
    Ok(())
}

fn details(schema: &mut Schema, row: &Row<'_>) -> Result<(), CatalogError> {
    match row.text(0, "kind")? {
        "namespace" | "relation" | "function" | "builtin" | "signatures" => {}
        "base" => {
            let (oid, columns) = (row.number(2, "base oid")?, attributes(row, 3)?);
            if let Some(view) = relation_mut(schema, row)? {
                add_base(view, oid, columns);
            }
        }
        "target" => {
            let found: Vec<(i16, u32, i16)> = row.json_or_empty(2, "view targets")?;
            if let Some(view) = relation_mut(schema, row)? {
                view.origins.extend(found.into_iter().map(|(column, base, base_column)| Origin {
                    column,
                    base,
                    base_column,
                }));
            }
        }
        "rule" => {
            let rule = rule(row)?;
            if let (Some(table), Some(rule)) = (relation_mut(schema, row)?, rule) {
                table.rules.push(rule);
            }
        }
        "policy" => {
            let policy = policy(row)?;
            let beyond =
                !policy.looks.is_empty() || !policy.checks.is_empty() || !policy.functions.is_empty();
            if let Some(table) = relation_mut(schema, row)?.filter(|_| beyond) {
                table.policies.push(policy);
            }
        }
        "role" => {
            let oid = row.number(1, "role oid")?;
            let role = Role { oid, bypasses: row.optional(3).is_some(), has: row.json_or_empty(4, "roles")? };
            schema.roles.insert(row.text(2, "role name")?.into(), role);
        }
        "trigger" => {
            // TRIGGER_TYPE_INSTEAD
            const INSTEAD: u32 = 64;
            let bits = row.number(4, "trigger type")?;
            let trigger =
                Trigger { function: row.number(3, "trigger function")?, bits, fires: fires(row, 5)? };
            if let Some(table) = relation_mut(schema, row)? {
                table.triggers.push(trigger);
                table.has_instead_triggers |= bits & INSTEAD != 0;
            }
        }
        "constraint" => {
            let (name, columns) = (row.text(2, "constraint name")?.into(), attributes_plain(row, 3)?);
            if let Some(table) = relation_mut(schema, row)? {
                table.constraints.push(Constraint { name, columns });
            }
        }
        "call" => {
            let call = Call { function: row.number(2, "called function")?, when: when(row)? };
            if let Some(relation) = relation_mut(schema, row)?.filter(|known| !known.calls.contains(&call)) {
                relation.calls.push(call);
            }
        }
        "setting" => add_setting(schema, row)?,
        _ => return Err(row.wrong("kind")),
    }
    Ok(())
}

/// Number, name, and how it is generated.
type LoadedColumn = (i16, Box<str>, Box<str>);

fn add_relation(schema: &mut Schema, row: &Row<'_>) -> Result<(), CatalogError> {
    let oid = row.number(1, "relation oid")?;
    let (space, name) = (row.text(2, "schema name")?, row.text(3, "relation name")?);
    let kind = match row.text(4, "relation kind")? {
        "r" => RelationKind::Table,
        "p" => RelationKind::Partitioned,
        "v" => RelationKind::View,
        "m" => RelationKind::MaterializedView,
        "f" => RelationKind::Foreign,
        "S" => RelationKind::Sequence,
        "c" => RelationKind::Composite,
        "t" => RelationKind::Toast,
        _ => return Err(row.wrong("relation kind")),
    };
    let columns: Vec<LoadedColumn> = row.json_or_empty(6, "columns")?;
    let columns = columns
        .into_iter()
        .map(|(number, name, generated)| Column { number, name, generated: !generated.is_empty() })
        .collect();
    let is = |what: &str| row.optional(8).is_some_and(|said| said.split(' ').any(|word| word == what));
    let relation = Relation {
        oid,
        schema: space.into(),
        name: name.into(),
        kind,
        columns,
        parents: row.json_or_empty(7, "parents")?,
        bases: Vec::new(),
        origins: Vec::new(),
        rules: Vec::new(),
        owner: row.optional_number(5, "owner")?.unwrap_or_default(),
        policies: Vec::new(),
        forces_policies: is("forced"),
        is_invoker: is("invoker"),
        is_checked: is("checked"),
        has_instead_triggers: false,
        triggers: Vec::new(),
        constraints: Vec::new(),
        calls: Vec::new(),
        full: format!("{}.{}", quoted(space), quoted(name)).into(),
    };
    schema.relations.insert(oid, Arc::new(relation));
    schema.schemas.entry(space.into()).or_default().relations.insert(name.into(), oid);
    Ok(())
}

fn add_function(schema: &mut Schema, row: &Row<'_>) -> Result<(), CatalogError> {
    let oid = row.number(1, "function oid")?;
    let (space, name) = (row.text(2, "schema name")?, row.text(3, "function name")?);
    let (arguments, defaults) = row
        .text(4, "argument counts")?
        .split_once(' ')
        .and_then(|(all, defaults)| Some((all.parse().ok()?, defaults.parse().ok()?)))
        .ok_or(row.wrong("argument counts"))?;
    let mut traits = row.text(5, "function traits")?.rsplitn(4, ' ');
    let security_definer = traits.next() == Some("true");
    let volatility = match traits.next() {
        Some("i") => Volatility::Immutable,
        Some("s") => Volatility::Stable,
        Some("v") => Volatility::Volatile,
        _ => return Err(row.wrong("function traits")),
    };
    let kind = traits.next().and_then(|kind| kind.chars().next()).ok_or(row.wrong("function traits"))?;
    let language = traits.next().ok_or(row.wrong("function traits"))?.into();
    let function = Function {
        oid,
        schema: space.into(),
        name: name.into(),
        arguments,
        defaults,
        language,
        kind,
        volatility,
        security_definer,
        outputs: row.json_or_empty(6, "output columns")?,
        returns_row_of: row.optional_number(7, "returned row type")?,
        body: row.optional(8).map(Into::into),
    };
    schema.functions.insert(oid, Arc::new(function));
    let names = schema.schemas.entry(space.into()).or_default();
    names.functions.entry(name.into()).or_default().push(oid);
    Ok(())
}

fn add_base(view: &mut Relation, oid: u32, columns: Box<[i16]>) {
    match view.bases.iter_mut().find(|base| base.oid == oid) {
        Some(base) => {
            let mut all = base.columns.to_vec();
            all.extend(columns);
            all.sort_unstable();
            all.dedup();
            base.columns = all.into();
        }
        None => view.bases.push(Base { oid, columns }),
    }
}

/// Relation, columns read, inserted and updated as bitmaps, and the permissions needed.
type LoadedTouch = (u32, Option<String>, Option<String>, Option<String>, u64);

/// A rule on INSERT, UPDATE or DELETE.
fn rule(row: &Row<'_>) -> Result<Option<Rule>, CatalogError> {
    // Numbers of PostgreSQL's CmdType, and its AclMode bits.
    let event = match row.text(3, "rule event")? {
        "2" => Change::Update,
        "3" => Change::Insert,
        "4" => Change::Delete,
        _ => return Ok(None),
    };
    Ok(Some(Rule {
        name: row.text(2, "rule name")?.into(),
        event,
        instead: row.text(4, "rule kind")? == "instead",
        touches: touches(row, 5)?,
        fires: fires(row, 6)?,
    }))
}

/// When a relation calls a function: the rule's event, or `default` with a column, `check` or `trigger`.
fn when(row: &Row<'_>) -> Result<When, CatalogError> {
    match row.text(3, "when it is called")? {
        "1" => Ok(When::Looked),
        "2" => Ok(When::Ruled(Change::Update)),
        "3" => Ok(When::Ruled(Change::Insert)),
        "4" => Ok(When::Ruled(Change::Delete)),
        "check" => Ok(When::Checked),
        "trigger" => Ok(When::Triggered),
        "default" => {
            let column = row.text(4, "column with a default")?.parse();
            column.map(When::Default).map_err(|_| row.wrong("column with a default"))
        }
        _ => Err(row.wrong("when it is called")),
    }
}

/// PostgreSQL's letter for when a rule or trigger is enabled.
fn fires(row: &Row<'_>, field: usize) -> Result<Fires, CatalogError> {
    match row.text(field, "when it fires")? {
        "O" => Ok(Fires::Origin),
        "R" => Ok(Fires::Replica),
        "A" => Ok(Fires::Always),
        _ => Err(row.wrong("when it fires")),
    }
}

fn policy(row: &Row<'_>) -> Result<Policy, CatalogError> {
    Ok(Policy {
        name: row.text(2, "policy name")?.into(),
        command: row.text(3, "policy command")?.chars().next().ok_or(row.wrong("policy command"))?,
        roles: row.json(4, "policy roles")?,
        looks: touches(row, 5)?,
        checks: touches(row, 6)?,
        functions: row.optional(7).unwrap_or_default().into(),
    })
}

/// What a stored condition or action touches.
fn touches(row: &Row<'_>, field: usize) -> Result<Vec<Touch>, CatalogError> {
    let loaded: Vec<LoadedTouch> = row.json_or_empty(field, "what is touched")?;
    let touch = |(oid, selected, inserted, updated, permissions): LoadedTouch| {
        let numbers = |text: Option<String>| members(text.as_deref().unwrap_or_default(), row);
        let mut written = numbers(inserted)?.to_vec();
        written.extend(numbers(updated)?);
        let changed = match permissions {
            bits if bits & 1 != 0 => Some(Change::Insert),
            bits if bits & 4 != 0 => Some(Change::Update),
            bits if bits & 8 != 0 => Some(Change::Delete),
            _ => None,
        };
        Ok(Touch { oid, selected: numbers(selected)?, written: written.into(), changed })
    };
    loaded.into_iter().map(touch).collect()
}

fn add_setting(schema: &mut Schema, row: &Row<'_>) -> Result<(), CatalogError> {
    let role = Some(row.text(1, "role name")?).filter(|role| !role.is_empty());
    let (name, value) = row.text(2, "setting")?.split_once('=').ok_or(row.wrong("setting"))?;
    schema.settings.push(LoginSetting {
        role: role.map(Into::into),
        name: name.to_ascii_lowercase().into(),
        value: value.into(),
    });
    Ok(())
}

fn relation_mut<'s>(schema: &'s mut Schema, row: &Row<'_>) -> Result<Option<&'s mut Relation>, CatalogError> {
    let oid = row.number(1, "relation oid")?;
    Ok(schema.relations.get_mut(&oid).map(Arc::make_mut))
}

/// Members of a bitmap of columns, which PostgreSQL numbers from its lowest system column.
fn attributes(row: &Row<'_>, field: usize) -> Result<Box<[i16]>, CatalogError> {
    members(row.text(field, "column numbers")?, row)
}

fn members(text: &str, row: &Row<'_>) -> Result<Box<[i16]>, CatalogError> {
    const LOWEST: i16 = -7;
    let plain = numbers(text, row)?;
    Ok(plain.iter().map(|member| member.saturating_add(LOWEST)).collect())
}

fn numbers(text: &str, row: &Row<'_>) -> Result<Box<[i16]>, CatalogError> {
    text.split_ascii_whitespace().map(|n| n.parse().map_err(|_| row.wrong("column numbers"))).collect()
}

fn attributes_plain(row: &Row<'_>, field: usize) -> Result<Box<[i16]>, CatalogError> {
    numbers(row.text(field, "column numbers")?, row)
}

fn digest(row: &[Option<String>]) -> u64 {
    let mut sum = Sha256::new();
    for field in row {
        let text = field.as_deref();
        sum.update(text.map_or(u64::MAX, |text| text.len() as u64).to_le_bytes());
        sum.update(text.unwrap_or_default());
    }
    sum.finalize().iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

/// Whose row it is.
fn object(row: &[Option<String>]) -> Object {
    let text = |at: usize| row.get(at).and_then(Option::as_deref).unwrap_or_default();
    match (text(0), text(1).parse()) {
        ("namespace" | "setting" | "role", _) => Object::Small,
        ("function", Ok(oid)) => Object::Function(oid),
        (_, Ok(oid)) => Object::Relation(oid),
        _ => Object::Builtins,
    }
}

struct Row<'a> {
    at: usize,
    fields: &'a [Option<String>],
}

impl Row<'_> {
    fn wrong(&self, what: &'static str) -> CatalogError {
        CatalogError::Row { row: self.at, what }
    }

    fn optional(&self, field: usize) -> Option<&str> {
        self.fields.get(field).and_then(Option::as_deref)
    }

    fn text(&self, field: usize, what: &'static str) -> Result<&str, CatalogError> {
        self.optional(field).ok_or(self.wrong(what))
    }

    fn number(&self, field: usize, what: &'static str) -> Result<u32, CatalogError> {
        self.text(field, what)?.parse().map_err(|_| self.wrong(what))
    }

    fn optional_number(&self, field: usize, what: &'static str) -> Result<Option<u32>, CatalogError> {
        self.optional(field).map(|text| text.parse().map_err(|_| self.wrong(what))).transpose()
    }

    fn json<T: serde::de::DeserializeOwned>(
        &self,
        field: usize,
        what: &'static str,
    ) -> Result<T, CatalogError> {
        serde_json::from_str(self.text(field, what)?).map_err(|_| self.wrong(what))
    }

    fn json_or_empty<T>(&self, field: usize, what: &'static str) -> Result<T, CatalogError>
    where
        T: serde::de::DeserializeOwned + Default,
    {
        if self.optional(field).is_none() { Ok(T::default()) } else { self.json(field, what) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(fields: &[&str]) -> Vec<Option<String>> {
        let mut row: Vec<_> =
            fields.iter().map(|text| (!text.is_empty()).then(|| (*text).to_owned())).collect();
        row.resize(9, None);
        row
    }

    #[test]
    fn a_table_is_found_by_name_and_by_oid() {
        let rows = [
            row(&["namespace", "1", "shop"]),
            row(&["relation", "9", "shop", "Items", "r", "10", r#"[[1,"id",""],[3,"Price","s"]]"#]),
            row(&["constraint", "9", "items_key", "1 3", "u"]),
        ];
        let schema = read(&rows).unwrap();
        let items = schema.relation("shop", "Items").unwrap();
        assert_eq!(items.full_name(), "shop.\"Items\"");
        assert_eq!(schema.column_by_oid(9, 3).as_deref(), Some("shop.\"Items\".\"Price\""));
        assert_eq!(schema.column_by_oid(9, 2), None);
        assert_eq!(items.constraint("items_key").map(|key| &*key.columns), Some(&[1, 3][..]));
        assert!(items.columns[1].generated);
    }

    #[test]
    fn a_built_in_function_is_found_by_its_oid_with_the_types_it_takes() {
        let lines = "952 lo_open 26 23\n953 lo_close 23\n1299 now ";
        let schema = read(&[row(&["signatures", "", lines])]).unwrap();
        assert_eq!(schema.builtin_by_oid(952), Some(("lo_open", vec![26, 23])));
        assert_eq!(schema.builtin_by_oid(1299), Some(("now", vec![])));
        assert_eq!(schema.builtin_by_oid(95), None);
        let added = [row(&["signatures", "", "16390 added 25"])];
        let more = read_onto(&schema, &added).unwrap();
        assert_eq!(more.builtin_by_oid(16390), Some(("added", vec![25])));
        assert_eq!(more.builtin_by_oid(1299), Some(("now", vec![])));
    }

    #[test]
    fn a_row_of_another_shape_is_an_error_that_names_it() {
        let wrong = read(&[row(&["relation", "x", "shop", "items", "r"])]).unwrap_err();
        assert_eq!(wrong, CatalogError::Row { row: 0, what: "relation oid" });
        assert!(read(&[row(&["surprise", "1"])]).is_err());
        assert!(read(&[vec![]]).is_err());
    }

    #[test]
    fn rows_of_two_statements_make_one_catalog() {
        let system = [row(&["relation", "9", "pg_catalog", "pg_class", "r", "10", r#"[[1,"oid",""]]"#])];
        let user = [
            row(&["namespace", "11", "pg_catalog"]),
            row(&["namespace", "16384", "shop"]),
            row(&["relation", "16385", "shop", "v", "v", "0", "[]"]),
            row(&["base", "16385", "9", " 8"]),
        ];
        let schema = read_onto(&read(&system).unwrap(), &user).unwrap();
        let view = schema.relation("shop", "v").unwrap();
        assert_eq!(view.bases.iter().map(|base| base.oid).collect::<Vec<_>>(), [9]);
        assert!(schema.relation("pg_catalog", "pg_class").is_some());
        let wrong = read_onto(&schema, &[row(&["surprise", "1"])]).unwrap_err();
        assert_eq!(wrong, CatalogError::Row { row: 0, what: "kind" });
    }

    #[test]
    fn the_digest_changes_with_any_field() {
        let one = read(&[row(&["namespace", "1", "a"])]).unwrap().digest();
        let two = read(&[row(&["namespace", "1", "b"])]).unwrap().digest();
        assert_ne!(one, two);
        let same = [row(&["namespace", "2", "c"])];
        let onto =
            |name| read_onto(&read(&[row(&["namespace", "1", name])]).unwrap(), &same).unwrap().digest();
        assert_ne!(onto("a"), onto("b"));
    }
}
