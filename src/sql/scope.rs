//! Which names are visible where: items of FROM, joins of them, and the columns that they show.

use crate::catalog::{Relation, SYSTEM_COLUMNS};

use super::touched::Col;

/// The base columns that a value is made of.
pub(crate) type Flow = Vec<Col>;

/// One output column of a query or item.
#[derive(Debug, Clone)]
pub(crate) struct Out {
    pub(crate) name: String,
    pub(crate) flow: Flow,
}

/// Something in FROM with a name of its own.
#[derive(Debug)]
pub(crate) struct Item<'s> {
    /// The alias, or the relation's or function's name; empty when there is none.
    pub(crate) name: String,
    pub(crate) aliased: bool,
    pub(crate) shape: Shape<'s>,
}

#[derive(Debug)]
pub(crate) enum Shape<'s> {
    /// A relation; the first columns may have been renamed by the alias.
    Table { relation: &'s Relation, renamed: Vec<String> },
    /// A sub-select, CTE, function or aliased join.
    Derived { columns: Vec<Out> },
    /// Something whose columns are not known.
    Unknown,
}

/// What stands in FROM.
#[derive(Debug)]
pub(crate) enum Rel<'s> {
    Item(Item<'s>),
    /// A join shows its merged columns first, once.
    Join {
        merged: Vec<Out>,
        /// The merged columns under the alias of USING.
        named: Option<Item<'s>>,
        left: Box<Rel<'s>>,
        right: Box<Rel<'s>>,
    },
}

/// What a name turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Columns, already put where they flow.
    Yes,
    No,
    /// It may be a column of something whose columns are not known.
    Perhaps,
}

impl<'s> Item<'s> {
    /// All columns in order, with names.
    pub(crate) fn columns(&self) -> Vec<Out> {
        match &self.shape {
            Shape::Table { relation, renamed } => {
                let names = relation.columns.iter().enumerate().map(|(at, column)| Out {
                    name: renamed.get(at).cloned().unwrap_or_else(|| column.name.to_string()),
                    flow: vec![(relation.oid, column.number)],
                });
                names.collect()
            }
            Shape::Derived { columns } => columns.clone(),
            Shape::Unknown => Vec::new(),
        }
    }

    /// Looks a column of this item up.
    pub(crate) fn column(&self, name: &str, flow: &mut Flow) -> Found {
        match &self.shape {
            Shape::Table { relation, renamed } => match table_column(relation, renamed, name) {
                Some(number) => {
                    flow.push((relation.oid, number));
                    Found::Yes
                }
                None => Found::No,
            },
            Shape::Derived { columns } => match columns.iter().find(|column| column.name == name) {
                Some(column) => {
                    flow.extend_from_slice(&column.flow);
                    Found::Yes
                }
                None => Found::No,
            },
            Shape::Unknown => Found::Perhaps,
        }
    }

    /// The whole row.
    pub(crate) fn row(&self, flow: &mut Flow) {
        match &self.shape {
            Shape::Table { relation, .. } => {
                flow.extend(relation.columns.iter().map(|column| (relation.oid, column.number)));
            }
            Shape::Derived { columns } => {
                flow.extend(columns.iter().flat_map(|column| column.flow.iter().copied()))
            }
            Shape::Unknown => {}
        }
    }

    fn system_column(&self, name: &str, flow: &mut Flow) -> bool {
        let Shape::Table { relation, .. } = &self.shape else { return false };
        let Some((number, _)) = SYSTEM_COLUMNS.iter().find(|(_, known)| *known == name) else { return false };
        flow.push((relation.oid, *number));
        true
    }

    /// Whether `schema.name` means this item.
    fn is_table(&self, schema: &str, name: &str) -> bool {
        let Shape::Table { relation, .. } = &self.shape else { return false };
        !self.aliased && &*relation.schema == schema && &*relation.name == name
    }
}

fn table_column(relation: &Relation, renamed: &[String], name: &str) -> Option<i16> {
    if renamed.is_empty() {
        return relation.column(name).map(|column| column.number);
    }
    let shown = relation.columns.iter().enumerate();
    let mut shown =
        shown.map(|(at, column)| (renamed.get(at).map_or(&*column.name, String::as_str), column.number));
    shown.find(|(known, _)| *known == name).map(|(_, number)| number)
}

impl<'s> Rel<'s> {
    /// Every item, left to right.
    pub(crate) fn items<'r>(&'r self) -> Vec<&'r Item<'s>> {
        let mut found = Vec::new();
        let mut open = vec![self];
        while let Some(rel) = open.pop() {
            match rel {
                Rel::Item(item) => found.push(item),
                Rel::Join { named, left, right, .. } => {
                    found.extend(named);
                    open.extend([&**right, &**left]);
                }
            }
        }
        found
    }

    /// What `*` shows.
    pub(crate) fn star(&self) -> Vec<Out> {
        match self {
            Rel::Item(item) => item.columns(),
            Rel::Join { merged, left, right, .. } => {
                let mut all = merged.clone();
                let rest = left.star().into_iter().chain(right.star());
                all.extend(rest.filter(|column| !merged.iter().any(|known| known.name == column.name)));
                all
            }
        }
    }

    /// Whether some item's columns are not known.
    pub(crate) fn unknown(&self) -> bool {
        self.items().iter().any(|item| matches!(item.shape, Shape::Unknown))
    }

    /// An unqualified column.
    pub(crate) fn column(&self, name: &str, flow: &mut Flow) -> Found {
        match self {
            Rel::Item(item) => item.column(name, flow),
            Rel::Join { merged, left, right, .. } => {
                if let Some(column) = merged.iter().find(|column| column.name == name) {
                    flow.extend_from_slice(&column.flow);
                    return Found::Yes;
                }
                match left.column(name, flow) {
                    Found::Yes => Found::Yes,
                    first => match right.column(name, flow) {
                        Found::No => first,
                        found => found,
                    },
                }
            }
        }
    }
}

/// One level of FROM.
#[derive(Debug, Default)]
pub(crate) struct Scope<'s> {
    pub(crate) rels: Vec<Rel<'s>>,
}

impl<'s> Scope<'s> {
    pub(crate) fn column(&self, name: &str, flow: &mut Flow) -> Found {
        let mut best = Found::No;
        for rel in &self.rels {
            match rel.column(name, flow) {
                Found::Yes => return Found::Yes,
                Found::Perhaps => best = Found::Perhaps,
                Found::No => {}
            }
        }
        let system = SYSTEM_COLUMNS.iter().any(|(_, known)| *known == name)
            && self.rels.iter().flat_map(Rel::items).any(|item| item.system_column(name, flow));
        if system { Found::Yes } else { best }
    }

    pub(crate) fn item(&self, name: &str) -> Option<&Item<'s>> {
        self.rels.iter().flat_map(Rel::items).find(|item| item.name == name)
    }

    pub(crate) fn table(&self, schema: &str, name: &str) -> Option<&Item<'s>> {
        self.rels.iter().flat_map(Rel::items).find(|item| item.is_table(schema, name))
    }

    /// A column of one item, system columns included.
    pub(crate) fn column_of(item: &Item<'s>, name: &str, flow: &mut Flow) -> Found {
        match item.column(name, flow) {
            Found::No if item.system_column(name, flow) => Found::Yes,
            found => found,
        }
    }
}
