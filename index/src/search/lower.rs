//! From the syntax tree to Tantivy's query objects. No text is ever joined into a query.

use std::ops::Bound;
use std::sync::Arc;

use tantivy::Term;
use tantivy::query::{
    AllQuery, BooleanQuery, EmptyQuery, InvertedIndexRangeQuery, Occur, PhrasePrefixQuery, PhraseQuery,
    Query, RangeQuery, TermQuery,
};
use tantivy::schema::{Field as Column, IndexRecordOption};

use super::complement::Complement;
use super::dictionary::Kind;
use super::field::Field;
use super::having::Having;
use super::moment::Moment;
use super::position::{Among, Between};
use super::query::{Leaf, Node, Text};
use super::referring::Referring;
use super::schema::{Columns, owner_key};

/// Most words one `prefix*` at the end of a phrase stands for, in each segment of the index.
const MAX_EXPANSIONS: u32 = 16_384;

type Built = Box<dyn Query>;

/// The query for the documents of all records of `moment` but those that memory answers for.
pub(crate) fn lower(columns: &Columns, moment: &Moment, root: &Node) -> tantivy::Result<Built> {
    let mut parts = vec![Lowering { columns, moment }.node(root)?];
    let definitions = Kind::ALL.map(|kind| -> Built {
        Box::new(TermQuery::new(columns.definitions(kind), IndexRecordOption::Basic))
    });
    parts.push(Box::new(Complement(any(definitions.into()))));
    let remembered = moment.tail.late();
    if !remembered.is_empty() {
        parts.push(Box::new(Complement(Box::new(Among(Arc::new(remembered))))));
    }
    Ok(all(parts))
}

/// A condition is met by a document that has what is asked itself, or refers to a definition that has.
struct Lowering<'a> {
    columns: &'a Columns,
    moment: &'a Moment,
}

impl Lowering<'_> {
    fn node(&self, tree: &Node) -> tantivy::Result<Built> {
        let each = |nodes: &[Node]| -> tantivy::Result<Vec<Built>> {
            nodes.iter().map(|inner| self.node(inner)).collect()
        };
        Ok(match tree {
            Node::All => Box::new(AllQuery),
            Node::And(nodes) => all(each(nodes)?),
            Node::Or(nodes) => any(each(nodes)?),
            Node::Not(inner) => Box::new(Complement(self.node(inner)?)),
            Node::Leaf(inner) => self.leaf(inner)?,
        })
    }

    fn leaf(&self, leaf: &Leaf) -> tantivy::Result<Built> {
        let columns = self.columns;
        Ok(match leaf {
            Leaf::Exists(field) => Box::new(Having { column: columns.has, field: *field }),
            Leaf::Owner { iss, sub } => match iss.is_empty() || sub.is_empty() {
                true => Box::new(EmptyQuery),
                false => self.shared(Kind::Who, term(columns.owner, &owner_key(iss, sub)))?,
            },
            Leaf::Word { field, value, prefix } => self.on(*field, |column| word(column, value, *prefix))?,
            Leaf::Object { field, tail, prefix } => self.object(*field, tail, *prefix)?,
            Leaf::Text { field, text } => self.on(*field, |column| words(column, text))?,
            Leaf::Free { text, object: named } => {
                let mut parts = Vec::new();
                for field in [Field::Sql, Field::Params, Field::Error] {
                    parts.push(self.on(field, |column| words(column, text))?);
                }
                let mut of_objects = names(columns.names, text);
                if let Some((tail, prefix)) = named {
                    let fields = [Field::Tables, Field::Via, Field::Columns];
                    of_objects.extend(fields.into_iter().map(|field| object(columns, field, tail, *prefix)));
                }
                if !of_objects.is_empty() {
                    parts.push(self.shared(Kind::Shape, any(of_objects))?);
                }
                any(parts)
            }
            Leaf::Number { field: Field::Seq, min, max } => Box::new(Between { min: *min, max: *max }),
            Leaf::Number { field, min, max } if min <= max => self.on(*field, |column| {
                range(Term::from_field_u64(column, *min), Term::from_field_u64(column, *max))
            })?,
            Leaf::Time { min, max } if min <= max => self.on(Field::Time, |column| {
                range(Term::from_field_i64(column, *min), Term::from_field_i64(column, *max))
            })?,
            Leaf::Ip { min, max } if min <= max => self.on(Field::Ip, |column| {
                range(Term::from_field_ip_addr(column, *min), Term::from_field_ip_addr(column, *max))
            })?,
            Leaf::Number { .. } | Leaf::Time { .. } | Leaf::Ip { .. } => Box::new(EmptyQuery),
        })
    }

    fn on(&self, field: Field, build: impl Fn(Column) -> Built) -> tantivy::Result<Built> {
        let own = on(self.columns, field, build);
        match Kind::of(field) {
            Some(kind) => self.shared(kind, own),
            None => Ok(own),
        }
    }

    fn object(&self, field: Field, tail: &str, prefix: bool) -> tantivy::Result<Built> {
        self.shared(Kind::Shape, object(self.columns, field, tail, prefix))
    }

    /// What meets a condition itself, or refers to what does.
    fn shared(&self, kind: Kind, own: Built) -> tantivy::Result<Built> {
        let numbers = self.moment.defined(self.columns, kind, own.box_clone())?;
        if numbers.is_empty() {
            return Ok(own);
        }
        let column = self.columns.refers(kind);
        Ok(Box::new(Referring { own, kind, column, numbers: Arc::new(numbers) }))
    }
}

fn on(columns: &Columns, field: Field, build: impl Fn(Column) -> Built) -> Built {
    columns.of(field).map_or_else(|| Box::new(EmptyQuery) as Built, build)
}

fn object(columns: &Columns, field: Field, tail: &str, prefix: bool) -> Built {
    if field == Field::Columns {
        let parts = [Field::Reads, Field::Filters, Field::Writes];
        return any(parts.into_iter().map(|part| object(columns, part, tail, prefix)).collect());
    }
    on(columns, field, |column| word(column, tail, prefix))
}

fn words(column: Column, text: &Text) -> Built {
    let mut parts = Vec::new();
    parts.extend(text.whole.as_ref().map(|whole| word(column, whole, text.prefix)));
    match text.phrase.as_slice() {
        [] => {}
        [one] => parts.push(word(column, one, text.prefix)),
        many => {
            let terms = many.iter().map(|word| Term::from_field_text(column, word)).collect();
            parts.push(if text.prefix {
                let mut query = PhrasePrefixQuery::new(terms);
                query.set_max_expansions(MAX_EXPANSIONS);
                Box::new(query)
            } else {
                Box::new(PhraseQuery::new(terms))
            });
        }
    }
    any(parts)
}

fn names(column: Column, text: &Text) -> Vec<Built> {
    let single = text.phrase.first().filter(|_| text.phrase.len() == 1);
    text.whole.iter().chain(single).map(|wanted| word(column, wanted, text.prefix)).collect()
}

fn word(column: Column, value: &str, prefix: bool) -> Built {
    if !prefix {
        return term(column, value);
    }
    let end = format!("{value}{}", char::MAX);
    Box::new(InvertedIndexRangeQuery::new(
        Bound::Included(Term::from_field_text(column, value)),
        Bound::Included(Term::from_field_text(column, &end)),
    ))
}

fn term(column: Column, value: &str) -> Built {
    Box::new(TermQuery::new(Term::from_field_text(column, value), IndexRecordOption::Basic))
}

fn range(min: Term, max: Term) -> Built {
    Box::new(RangeQuery::new(Bound::Included(min), Bound::Included(max)))
}

fn all(parts: Vec<Built>) -> Built {
    join(parts, Occur::Must)
}

fn any(parts: Vec<Built>) -> Built {
    join(parts, Occur::Should)
}

fn join(mut parts: Vec<Built>, occur: Occur) -> Built {
    if parts.len() == 1
        && let Some(only) = parts.pop()
    {
        return only;
    }
    Box::new(BooleanQuery::new(parts.into_iter().map(|part| (occur, part)).collect()))
}
