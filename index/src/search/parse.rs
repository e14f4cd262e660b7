//! Reads a query: text in, syntax tree or an error with its span out.

use std::ops::Range;

use super::field::Field;
use super::query::{Leaf, MAX_BYTES, MAX_CLAUSES, MAX_DEPTH, Node, QueryError};
use super::value::{self, Compare, Raw};
use crate::record::Timestamp;

pub(crate) fn parse(text: &str, now: Timestamp, kept_as: KeptAs<'_>) -> Result<Node, QueryError> {
    if text.len() > MAX_BYTES {
        let message = format!("the query has {} bytes. At most {MAX_BYTES} are accepted", text.len());
        return Err(QueryError { message, span: 0..text.len(), suggestion: None });
    }
    let mut parser = Parser { text, at: 0, now, kept_as, clauses: 0, depth: 0 };
    let node = parser.any(None)?;
    parser.blanks();
    if parser.at < text.len() {
        return Err(parser.error(parser.at..parser.at + 1, "this closing parenthesis has no opening one"));
    }
    Ok(node.unwrap_or(Node::All))
}

/// A field in front of a value, and the name under which it was asked for.
#[derive(Clone, Copy)]
struct Asked<'a> {
    field: Field,
    name: &'a str,
}

/// How a parameter's value is written where it is not kept as it is.
pub(crate) type KeptAs<'a> = Option<&'a (dyn Fn(&str) -> String + 'a)>;

struct Parser<'a> {
    text: &'a str,
    at: usize,
    now: Timestamp,
    kept_as: KeptAs<'a>,
    clauses: usize,
    depth: usize,
}

/// A node; `None` for something without any word in it (a lone `=`), which is passed over.
type Parsed = Result<Option<Node>, QueryError>;

impl<'a> Parser<'a> {
    fn any(&mut self, asked: Option<Asked<'a>>) -> Parsed {
        let mut nodes = Vec::new();
        nodes.extend(self.all(asked)?);
        while let Some(span) = self.keyword("or") {
            self.operand(&span, "OR")?;
            nodes.extend(self.all(asked)?);
        }
        Ok(joined(nodes, Node::Or))
    }

    fn all(&mut self, asked: Option<Asked<'a>>) -> Parsed {
        let mut nodes = Vec::new();
        let mut first = true;
        loop {
            self.blanks();
            if self.rest().is_empty() || self.rest().starts_with(')') {
                break;
            }
            if self.peek_keyword("or") {
                if first {
                    return Err(self.error(
                        self.at..self.at + 2,
                        "nothing stands before OR. Quote it to search for the word",
                    ));
                }
                break;
            }
            if let Some(span) = self.keyword("and") {
                if first {
                    return Err(
                        self.error(span, "nothing stands before AND. Quote it to search for the word")
                    );
                }
                self.operand(&span, "AND")?;
            }
            nodes.extend(self.unary(asked)?);
            first = false;
        }
        Ok(joined(nodes, Node::And))
    }

    fn unary(&mut self, asked: Option<Asked<'a>>) -> Parsed {
        self.blanks();
        let start = self.at;
        let span = if self.rest().starts_with('-') && !self.value_starts_with_minus(asked) {
            self.at += 1;
            Some(start..self.at)
        } else {
            self.keyword("not")
        };
        let Some(span) = span else {
            return self.primary(asked);
        };
        self.operand(&span, "NOT")?;
        self.deeper(start)?;
        let inner = self.unary(asked)?;
        self.depth -= 1;
        Ok(inner.map(|node| match node {
            Node::Not(inner) => *inner,
            node => Node::Not(Box::new(node)),
        }))
    }

    /// Inside `time:( … )` a minus begins a relative time.
    fn value_starts_with_minus(&self, asked: Option<Asked<'a>>) -> bool {
        asked.is_some_and(|asked| asked.field == Field::Time)
            && self.rest().chars().nth(1).is_some_and(|c| c.is_ascii_digit())
    }

    fn primary(&mut self, asked: Option<Asked<'a>>) -> Parsed {
        self.blanks();
        if self.rest().starts_with('(') {
            return self.group(asked);
        }
        if let Some(asked) = asked {
            return self.values(asked);
        }
        if let Some((asked, compare)) = self.field()? {
            return self.field_values(asked, compare);
        }
        let start = self.at;
        let raw = self.raw(|c| c.is_whitespace() || matches!(c, '(' | ')' | '"'))?;
        if raw.text == "*" && !raw.quoted {
            return Ok(Some(Node::All));
        }
        match value::free(&raw).map_err(|fault| fault.at(start..self.at))? {
            Some(leaf) => self.leaf(leaf, start).map(|node| Some(self.or_as_kept(node, &raw))),
            None => Ok(None),
        }
    }

    fn group(&mut self, asked: Option<Asked<'a>>) -> Parsed {
        let start = self.at;
        self.deeper(start)?;
        self.at += 1;
        let node = self.any(asked)?;
        self.blanks();
        if !self.rest().starts_with(')') {
            return Err(self.error(start..start + 1, "this parenthesis is never closed"));
        }
        self.at += 1;
        self.depth -= 1;
        Ok(node)
    }

    /// `name:` or `name>`: the field and the comparison, if there is one here.
    fn field(&mut self) -> Result<Option<(Asked<'a>, Compare)>, QueryError> {
        let rest = self.rest();
        let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        if length == 0 {
            return Ok(None);
        }
        let (name, after) = rest.split_at(length);
        let compare = match after.strip_prefix(':') {
            Some(_) => Compare::Is,
            None => match Compare::leading(after) {
                Compare::Is => return Ok(None),
                compare => compare,
            },
        };
        let span = self.at..self.at + length;
        let Some(field) = Field::from_name(name) else {
            let suggestion = Field::nearest(name).map(str::to_owned);
            let hint = match &suggestion {
                Some(near) => format!("Did you mean {near}?"),
                None => "Quote the text to search for it as it stands".to_owned(),
            };
            let message = format!("there is no field {name:?}. {hint}");
            return Err(QueryError { message, span, suggestion });
        };
        self.at += length + if compare == Compare::Is { 1 } else { compare.len() };
        Ok(Some((Asked { field, name }, compare)))
    }

    fn field_values(&mut self, asked: Asked<'a>, compare: Compare) -> Parsed {
        if compare != Compare::Is {
            self.blanks();
            return self.value(asked, compare).map(Some);
        }
        if self.rest().starts_with('(') {
            return self.group(Some(asked));
        }
        self.values(asked)
    }

    fn values(&mut self, asked: Asked<'a>) -> Parsed {
        let mut nodes = Vec::new();
        loop {
            let compare = Compare::leading(self.rest());
            self.at += compare.len();
            nodes.push(self.value(asked, compare)?);
            if !self.rest().starts_with(',') {
                break;
            }
            self.at += 1;
        }
        Ok(joined(nodes, Node::Or))
    }

    fn value(&mut self, asked: Asked<'a>, compare: Compare) -> Result<Node, QueryError> {
        let start = self.at;
        let raw = self.raw(|c| c.is_whitespace() || matches!(c, '(' | ')' | '"' | ','))?;
        if raw.text.is_empty() && !raw.quoted {
            let message = format!("no value follows {}", asked.name);
            return Err(self.error(start..self.at, &message));
        }
        let leaf = value::leaf(asked.field, asked.name, compare, &raw, self.now);
        let leaf = leaf.map_err(|fault| fault.at(start..self.at))?;
        let node = self.leaf(leaf, start)?;
        Ok(if asked.field == Field::Params { self.or_as_kept(node, &raw) } else { node })
    }

    /// The same, or the value of a parameter in the form in which it was kept.
    fn or_as_kept(&self, node: Node, raw: &Raw) -> Node {
        let kept = self.kept_as.filter(|_| !raw.prefix).map(|kept_as| kept_as(&raw.text));
        let text = kept.and_then(|kept| value::whole_word(&kept));
        match text {
            Some(text) => Node::Or(vec![node, Node::Leaf(Leaf::Text { field: Field::Params, text })]),
            None => node,
        }
    }

    /// A quoted or bare value up to a delimiter. The cursor stands after it.
    fn raw(&mut self, ends: impl Fn(char) -> bool) -> Result<Raw, QueryError> {
        if self.rest().starts_with('"') {
            return self.quoted();
        }
        let rest = self.rest();
        let bare = &rest[..rest.find(ends).unwrap_or(rest.len())];
        self.at += bare.len();
        Ok(Raw::bare(bare))
    }

    fn quoted(&mut self) -> Result<Raw, QueryError> {
        let start = self.at;
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => text.extend(chars.next().map(|(_, c)| c)),
                '"' => {
                    self.at = start + at + 1;
                    let prefix = self.rest().starts_with('*');
                    self.at += usize::from(prefix);
                    return Ok(Raw { text, prefix, quoted: true });
                }
                c => text.push(c),
            }
        }
        Err(self.error(start..self.text.len(), "this quotation mark is never closed"))
    }

    fn leaf(&mut self, leaf: Leaf, start: usize) -> Result<Node, QueryError> {
        self.clauses += 1;
        if self.clauses > MAX_CLAUSES {
            let message = format!("the query has more than {MAX_CLAUSES} conditions");
            return Err(self.error(start..self.at, &message));
        }
        Ok(Node::Leaf(leaf))
    }

    fn deeper(&mut self, start: usize) -> Result<(), QueryError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let message = format!("the query is nested deeper than {MAX_DEPTH}");
            return Err(self.error(start..self.at.max(start + 1), &message));
        }
        Ok(())
    }

    /// Consumes a keyword, in any case, if it stands here as a word of its own.
    fn keyword(&mut self, word: &str) -> Option<Range<usize>> {
        self.blanks();
        self.peek_keyword(word).then(|| {
            self.at += word.len();
            self.at - word.len()..self.at
        })
    }

    fn peek_keyword(&self, word: &str) -> bool {
        let rest = self.rest();
        rest.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word))
            && rest[word.len()..]
                .chars()
                .next()
                .is_none_or(|c| c.is_whitespace() || matches!(c, '(' | ')' | '"'))
    }

    /// Something must follow an operator.
    fn operand(&mut self, span: &Range<usize>, operator: &str) -> Result<(), QueryError> {
        self.blanks();
        if self.rest().is_empty() || self.rest().starts_with(')') {
            let message = format!("nothing follows {operator}. Quote it to search for the word");
            return Err(self.error(span.clone(), &message));
        }
        Ok(())
    }

    fn blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn error(&self, span: Range<usize>, message: &str) -> QueryError {
        let span = span.start.min(self.text.len())..span.end.min(self.text.len());
        QueryError { message: message.to_owned(), span, suggestion: None }
    }
}

fn joined(mut nodes: Vec<Node>, join: fn(Vec<Node>) -> Node) -> Option<Node> {
    if nodes.len() > 1 { Some(join(nodes)) } else { nodes.pop() }
}
