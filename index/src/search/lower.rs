//! From the syntax tree to conditions on documents. No text is ever joined into a query.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tantivy::Term;
use tantivy::query::{EmptyQuery, PhrasePrefixQuery, PhraseQuery};
use tantivy::schema::Field as Column;

use super::complement::Complement;
use super::containing::Containing;
use super::dictionary::Kind;
use super::field::Field;
use super::having::Having;
use super::moment::Moment;
use super::plan::{Built, Plan, Word, all, any, on, range, term, word};
use super::position::Among;
use super::query::{Leaf, Node, Text};
use super::referring::Referring;
use super::schema::{Columns, OWN_ID, owner_key};
use super::words;

/// Most words one `prefix*` at the end of a phrase stands for, in each segment of the index.
const MAX_EXPANSIONS: u32 = 16_384;
/// Most words of a value by which records are looked for; the record itself has the last word.
const MAX_WORDS: usize = 32;

/// What is asked of a moment of the log.
pub(crate) struct Asked {
    pub(crate) wanted: Node,
    pub(crate) plan: Plan,
    /// The documents that may answer.
    pub(crate) query: Built,
    /// Whether records of one document can answer differently.
    pub(crate) by_record: bool,
    /// Whether records must be looked at.
    pub(crate) checks: bool,
    /// How much may still be read to look at them.
    budget: Option<Budget>,
}

/// What may still be read for one question.
struct Budget(AtomicUsize);

impl Asked {
    /// Pays for a record that was read; whether that was within the budget.
    pub(crate) fn pay(&self, bytes: usize) -> bool {
        self.budget.as_ref().is_none_or(|budget| {
            let left = |left: usize| left.checked_sub(bytes);
            budget.0.try_update(Ordering::Relaxed, Ordering::Relaxed, left).is_ok() || {
                budget.0.store(0, Ordering::Relaxed);
                false
            }
        })
    }

    /// Whether more would have had to be read than one question may.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.budget.as_ref().is_some_and(|budget| budget.0.load(Ordering::Relaxed) == 0)
    }
}

/// The query for the documents of all records of `moment` but those that memory answers for.
///
/// Where records must be looked at, `reads_max` bytes of them are read at most.
pub(crate) fn lower(
    columns: &Columns,
    moment: &Moment,
    wanted: Node,
    reads_max: usize,
) -> tantivy::Result<Asked> {
    let plan = Lowering { columns, moment }.node(&wanted)?;
    let mut parts = vec![plan.may(columns)];
    let definitions = Kind::ALL.map(|kind| term(columns.definitions(kind)));
    parts.push(Box::new(Complement(any(definitions.into()))));
    let remembered = moment.tail.late();
    if !remembered.is_empty() {
        parts.push(Box::new(Complement(Box::new(Among(Arc::new(remembered))))));
    }
    let (by_record, checks) = (plan.is_by_record(), plan.checks());
    let budget = checks.then(|| Budget(AtomicUsize::new(reads_max)));
    Ok(Asked { wanted, plan, query: all(parts), by_record, checks, budget })
}

/// A condition is met by a document that has what is asked itself, or refers to a definition that has.
struct Lowering<'a> {
    columns: &'a Columns,
    moment: &'a Moment,
}

impl Lowering<'_> {
    fn node(&self, tree: &Node) -> tantivy::Result<Plan> {
        let each = |nodes: &[Node]| -> tantivy::Result<Vec<Plan>> {
            nodes.iter().map(|inner| self.node(inner)).collect()
        };
        Ok(match tree {
            Node::All => Plan::all(),
            Node::And(nodes) => Plan::And(each(nodes)?),
            Node::Or(nodes) => Plan::Or(each(nodes)?),
            Node::Not(inner) => Plan::Not(Box::new(self.node(inner)?)),
            Node::Leaf(inner) => self.leaf(inner)?,
        })
    }

    fn leaf(&self, leaf: &Leaf) -> tantivy::Result<Plan> {
        let columns = self.columns;
        Ok(match leaf {
            Leaf::Exists(field) => {
                let having = Box::new(Having { column: columns.has, field: *field });
                Plan::Wide(self.shared(Kind::How, having)?)
            }
            Leaf::Owner { iss, sub } => match iss.is_empty() || sub.is_empty() {
                true => Plan::nothing(),
                false => {
                    Plan::Wide(self.shared(Kind::Who, word(columns.owner, &owner_key(iss, sub), false))?)
                }
            },
            Leaf::Word { field: Field::Id, value, prefix } => self.id(value, *prefix),
            Leaf::Word { field, value, prefix } => {
                Plan::Wide(self.on(*field, |column| word(column, value, *prefix))?)
            }
            Leaf::Object { field, tail, prefix } => Plan::Wide(self.object(*field, tail, *prefix)?),
            Leaf::Text { field, text } => self.text(*field, text)?,
            Leaf::Free { text, object: named } => {
                let mut parts = Vec::new();
                for field in [Field::Sql, Field::Params, Field::Error] {
                    parts.push(self.text(field, text)?);
                }
                let mut of_objects = names(columns.names, text);
                if let Some((tail, prefix)) = named {
                    let fields = [Field::Tables, Field::Via, Field::Columns];
                    of_objects.extend(fields.into_iter().map(|field| object(columns, field, tail, *prefix)));
                }
                if !of_objects.is_empty() {
                    parts.push(Plan::Wide(self.shared(Kind::What, any(of_objects))?));
                }
                Plan::Or(parts)
            }
            Leaf::Part { fields, letters } => {
                let each = fields.iter().map(|field| self.part(*field, letters));
                Plan::Check(Box::new(Plan::Or(each.collect::<tantivy::Result<_>>()?)))
            }
            Leaf::Number { field, min, max } => Plan::Number { field: *field, min: *min, max: *max },
            Leaf::Time { min, max } => Plan::Time { min: *min, max: *max },
            Leaf::Ip { min, max } if min <= max => Plan::Wide(self.on(Field::Ip, |column| {
                range(Term::from_field_ip_addr(column, *min), Term::from_field_ip_addr(column, *max))
            })?),
            Leaf::Ip { .. } => Plan::nothing(),
        })
    }

    /// Ids begin with the time of their record, and are not indexed where they do.
    fn id(&self, value: &str, prefix: bool) -> Plan {
        let columns = self.columns;
        let Some(column) = columns.of(Field::Id) else { return Plan::nothing() };
        let own = Plan::Wide(word(column, value, prefix));
        let Some((min, max, whole)) = times_of_ids(value, prefix) else { return own };
        let time = Plan::Time { min, max };
        let time = if whole { time } else { Plan::Check(Box::new(time)) };
        let not_own = Plan::Not(Box::new(Plan::Wide(word(column, OWN_ID, false))));
        Plan::Or(vec![own, Plan::And(vec![not_own, time])])
    }

    /// Records in whose words the longest row of letters stands.
    fn part(&self, field: Field, letters: &str) -> tantivy::Result<Plan> {
        let columns = self.columns;
        let longest = letters.split(|c: char| !c.is_alphanumeric()).max_by_key(|row| row.len());
        let letters = longest.unwrap_or_default().to_owned();
        let of = |of: Vec<Column>| Box::new(Containing::new(of, letters.clone()));
        let own = columns.of(field).into_iter();
        Ok(Plan::Wide(match field {
            Field::Sql => {
                let own = own.chain([columns.literals, columns.run_literals]).collect();
                self.or_shared(Kind::What, of(own), of(vec![columns.pieces]))?
            }
            Field::Params => of(own.chain([columns.run_params]).collect()),
            _ => of(own.collect()),
        }))
    }

    fn text(&self, field: Field, text: &Text) -> tantivy::Result<Plan> {
        let columns = self.columns;
        let (literals, run) = match field {
            Field::Sql => (columns.literals, columns.run_literals),
            Field::Params => (columns.params, columns.run_params),
            _ => return Ok(Plan::Wide(self.on(field, |column| texts(column, text))?)),
        };
        let mut parts = Vec::new();
        if field == Field::Sql {
            let whole = Plan::Wide(self.on(field, |column| texts(column, text))?);
            // A compound may look complete where a literal goes on.
            let is_part = text.phrase.is_empty() && text.whole.as_deref().is_some_and(words::is_joined);
            parts.push(if is_part { Plan::Check(Box::new(whole)) } else { whole });
        }
        let values = Values { lowering: self, field, literals, run, prefix: text.prefix };
        let phrase: Vec<String> = text.phrase.iter().map(|word| words::folded(word)).collect();
        let whole = text.whole.as_deref().map(words::parts).unwrap_or_default();
        match whole.as_slice() {
            [] if text.has_no_word() => parts.push(Plan::Check(Box::new(Plan::all()))),
            [] => {}
            [one] if text.whole.as_deref().is_some_and(|whole| *one == words::folded(whole)) => {
                parts.extend(values.one(one)?);
            }
            many if many == phrase.as_slice() => {}
            many => parts.push(values.together(many, Parts::Of)?),
        }
        match phrase.as_slice() {
            [] => {}
            [one] => parts.extend(values.one(one)?),
            many => parts.push(values.together(many, if whole == phrase { Parts::Of } else { Parts::None })?),
        }
        Ok(Plan::Or(parts))
    }

    fn on(&self, field: Field, build: impl Fn(Column) -> Built) -> tantivy::Result<Built> {
        let own = on(self.columns, field, build);
        match Kind::of(field) {
            Some(kind) => self.shared(kind, own),
            None => Ok(own),
        }
    }

    fn object(&self, field: Field, tail: &str, prefix: bool) -> tantivy::Result<Built> {
        self.shared(Kind::What, object(self.columns, field, tail, prefix))
    }

    /// What meets a condition itself, or refers to what does.
    fn shared(&self, kind: Kind, own: Built) -> tantivy::Result<Built> {
        let definition = own.box_clone();
        self.or_shared(kind, own, definition)
    }

    /// What meets a condition itself, or refers to what meets another.
    fn or_shared(&self, kind: Kind, own: Built, definition: Built) -> tantivy::Result<Built> {
        let numbers = self.moment.defined(self.columns, kind, definition)?;
        if numbers.is_empty() {
            return Ok(own);
        }
        let column = self.columns.refers(kind);
        Ok(Box::new(Referring { own, kind, column, numbers: Arc::new(numbers) }))
    }
}

/// Whether parts of names are looked for, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parts {
    Of,
    None,
}

/// Looks for the words of values, and of texts with literals.
struct Values<'a> {
    lowering: &'a Lowering<'a>,
    field: Field,
    literals: Column,
    run: Column,
    prefix: bool,
}

impl Values<'_> {
    /// A value that has a word.
    fn one(&self, text: &str) -> tantivy::Result<Vec<Plan>> {
        let found = self.words(&[text.to_owned()], self.prefix, false)?;
        // Letters of two forms are one in the index.
        let found = if text.is_ascii() { found } else { Plan::Check(Box::new(found)) };
        if !self.prefix {
            return Ok(vec![found]);
        }
        // A part of a name is no word, but a name that begins with it may be one.
        let part = self.words(&[format!("{}{text}", words::PART)], true, false)?;
        Ok(vec![found, Plan::Check(Box::new(part))])
    }

    /// Texts that have all of some words, one of them in a value.
    fn together(&self, texts: &[String], parts: Parts) -> tantivy::Result<Plan> {
        let mut each = Vec::new();
        let mut in_values = Vec::new();
        for (index, text) in texts.iter().enumerate().take(MAX_WORDS) {
            let prefix = self.prefix && index + 1 == texts.len();
            let mut forms = vec![text.clone()];
            if parts == Parts::Of {
                forms.push(format!("{}{text}", words::PART));
            }
            if self.field == Field::Sql {
                in_values.push(self.words(&forms, prefix, false)?);
                each.push(self.words(&forms, prefix, true)?);
            } else {
                each.push(self.words(&forms, prefix, false)?);
            }
        }
        if self.field == Field::Sql {
            // Words that are apart in the text are neighbours where nothing is between the quotes.
            in_values.push(self.words(&[words::EMPTY.to_owned()], false, false)?);
            each.push(Plan::Or(in_values));
        }
        Ok(Plan::Check(Box::new(Plan::And(each))))
    }

    fn words(&self, forms: &[String], prefix: bool, in_text: bool) -> tantivy::Result<Plan> {
        let one_of = |column| any(forms.iter().map(|form| word(column, form, prefix)).collect());
        let mut wide = one_of(self.literals);
        if in_text {
            wide = self.lowering.or_shared(Kind::What, wide, one_of(self.lowering.columns.pieces))?;
        }
        let words = forms.iter().map(|text| Word { column: self.run, text: text.clone(), prefix });
        Ok(Plan::Words { wide, words: words.collect() })
    }
}

/// The first and last time of records whose ids begin so, and whether all of that time do; `None` if
/// no id of a time begins so.
fn times_of_ids(value: &str, prefix: bool) -> Option<(i64, i64, bool)> {
    const DASHES: [usize; 4] = [8, 13, 18, 23];
    const LENGTH: usize = 36;
    const DIGITS_OF_TIME: usize = 12;
    let is_whole = value.len() == LENGTH;
    if value.len() > LENGTH || !prefix && !is_whole {
        return None;
    }
    let mut digits = String::new();
    for (at, c) in value.chars().enumerate() {
        match (DASHES.contains(&at), c) {
            (true, '-') => {}
            (false, '0'..='9' | 'a'..='f') => digits.push(c),
            _ => return None,
        }
    }
    let of_time = &digits[..digits.len().min(DIGITS_OF_TIME)];
    let missing = 4 * (DIGITS_OF_TIME - of_time.len()) as u32;
    let known = if of_time.is_empty() { 0 } else { i64::from_str_radix(of_time, 16).ok()? };
    let first = known << missing;
    let last = first + (1_i64 << missing) - 1;
    let whole = prefix && digits.len() <= DIGITS_OF_TIME;
    Some((first.saturating_mul(1_000), last.saturating_mul(1_000).saturating_add(999), whole))
}

fn object(columns: &Columns, field: Field, tail: &str, prefix: bool) -> Built {
    if field == Field::Columns {
        let parts = [Field::Reads, Field::Filters, Field::Writes];
        return any(parts.into_iter().map(|part| object(columns, part, tail, prefix)).collect());
    }
    on(columns, field, |column| word(column, tail, prefix))
}

/// What has the words of a text in a row, in a column of whole texts.
fn texts(column: Column, text: &Text) -> Built {
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
    if parts.is_empty() { Box::new(EmptyQuery) } else { any(parts) }
}

fn names(column: Column, text: &Text) -> Vec<Built> {
    let single = text.phrase.first().filter(|_| text.phrase.len() == 1);
    text.whole.iter().chain(single).map(|wanted| word(column, wanted, text.prefix)).collect()
}
