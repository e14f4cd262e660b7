//! Strict reading of what clients send: only the messages that carry evidence.
//!
//! Each function takes the body of one message (without header) and fails unless PostgreSQL would
//! read the same fields and find nothing left over.

use crate::ProtocolError;
use crate::read::Fields;

/// `Parse`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parse<'a> {
    /// Statement name, empty for the unnamed one.
    pub name: &'a [u8],
    /// Its text.
    pub text: &'a [u8],
    /// Parameter types as far as given; 0 is unspecified.
    pub types: Vec<u32>,
}

/// `Bind`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind<'a> {
    /// Portal name, empty for the unnamed one.
    pub portal: &'a [u8],
    /// Statement name.
    pub statement: &'a [u8],
    values: Values<'a>,
}

impl<'a> Bind<'a> {
    /// Parameter values with their formats.
    pub fn values(&self) -> impl Iterator<Item = Value<'a>> {
        self.values.clone()
    }
}

/// Values that were checked, not yet read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Values<'a> {
    tag: u8,
    /// Two bytes each: none, one for all, or as many as values.
    formats: &'a [u8],
    count: usize,
    index: usize,
    rest: Fields<'a>,
}

impl<'a> Values<'a> {
    /// Finds the values of a message in `fields`, and goes past them.
    fn find(tag: u8, fields: &mut Fields<'a>) -> Result<Self, ProtocolError> {
        let format_count = usize::from(fields.u16("parameter format count")?);
        let formats = fields.bytes(2 * format_count, "parameter format")?;
        if formats.as_chunks().0.iter().any(|code| u16::from_be_bytes(*code) > 1) {
            return Err(ProtocolError::Invalid { tag, what: "parameter format" });
        }
        let count = usize::from(fields.u16("parameter count")?);
        if format_count > 1 && format_count != count {
            return Err(ProtocolError::Invalid { tag, what: "number of parameter formats" });
        }
        let values = Self { tag, formats, count, index: 0, rest: fields.clone() };
        for _ in 0..count {
            value_bytes(tag, fields)?;
        }
        Ok(values)
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        if self.index == self.count {
            return None;
        }
        let formats = self.formats.as_chunks().0;
        let format = match formats.get(self.index).or(formats.first()) {
            Some([0, 1]) => Format::Binary,
            _ => Format::Text,
        };
        self.index += 1;
        Some(Value { format, bytes: value_bytes(self.tag, &mut self.rest).ok()? })
    }
}

fn value_bytes<'a>(tag: u8, fields: &mut Fields<'a>) -> Result<Option<&'a [u8]>, ProtocolError> {
    match fields.i32("parameter length")? {
        -1 => Ok(None),
        length => {
            let length = usize::try_from(length)
                .map_err(|_| ProtocolError::Invalid { tag, what: "parameter length" })?;
            Ok(Some(fields.bytes(length, "parameter value")?))
        }
    }
}

/// One bound value as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value<'a> {
    /// Text or binary.
    pub format: Format,
    /// `None` is SQL NULL.
    pub bytes: Option<&'a [u8]>,
}

/// Format of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Code 0.
    Text,
    /// Code 1.
    Binary,
}

/// What `Describe` and `Close` name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// A prepared statement.
    Statement(&'a [u8]),
    /// A portal.
    Portal(&'a [u8]),
}

/// `Query`: the text.
pub fn query(body: &[u8]) -> Result<&[u8], ProtocolError> {
    let mut fields = Fields::new(b'Q', body);
    let text = fields.string("query string")?;
    fields.end().map(|()| text)
}

/// `Parse`
pub fn parse(body: &[u8]) -> Result<Parse<'_>, ProtocolError> {
    let mut fields = Fields::new(b'P', body);
    let name = fields.string("statement name")?;
    let text = fields.string("query string")?;
    // PostgreSQL reads the count as a signed word and loops below zero not at all.
    let count = fields.i16("parameter type count")?;
    let types = (0..count.max(0)).map(|_| fields.u32("parameter type")).collect::<Result<_, _>>()?;
    fields.end()?;
    Ok(Parse { name, text, types })
}

/// `Bind`
pub fn bind(body: &[u8]) -> Result<Bind<'_>, ProtocolError> {
    let mut fields = Fields::new(b'B', body);
    let portal = fields.string("portal name")?;
    let statement = fields.string("statement name")?;
    let values = Values::find(b'B', &mut fields)?;
    let results = usize::from(fields.u16("result format count")?);
    fields.bytes(2 * results, "result formats")?;
    fields.end()?;
    Ok(Bind { portal, statement, values })
}

/// `Execute`: portal name and row limit (0: none).
pub fn execute(body: &[u8]) -> Result<(&[u8], u32), ProtocolError> {
    let mut fields = Fields::new(b'E', body);
    let portal = fields.string("portal name")?;
    let limit = fields.i32("row limit")?;
    fields.end()?;
    Ok((portal, u32::try_from(limit).unwrap_or(0)))
}

/// `Describe` or `Close`, told apart by `tag`.
pub fn target(tag: u8, body: &[u8]) -> Result<Target<'_>, ProtocolError> {
    let mut fields = Fields::new(tag, body);
    let kind = fields.u8("kind")?;
    let name = fields.string("name")?;
    fields.end()?;
    match kind {
        b'S' => Ok(Target::Statement(name)),
        b'P' => Ok(Target::Portal(name)),
        _ => Err(ProtocolError::Invalid { tag, what: "kind" }),
    }
}

/// `FunctionCall`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionCall<'a> {
    /// OID of the function.
    pub function: u32,
    /// Arguments.
    pub values: Vec<Value<'a>>,
}

/// `FunctionCall`
pub fn function_call(body: &[u8]) -> Result<FunctionCall<'_>, ProtocolError> {
    const TAG: u8 = b'F';
    let mut fields = Fields::new(TAG, body);
    let function = fields.u32("function")?;
    let values = Values::find(TAG, &mut fields)?.collect();
    fields.u16("result format")?;
    fields.end()?;
    Ok(FunctionCall { function, values })
}

/// A password message: the text up to its terminator.
pub fn password(body: &[u8]) -> Result<&[u8], ProtocolError> {
    let mut fields = Fields::new(b'p', body);
    let password = fields.string("password")?;
    fields.end().map(|()| password)
}

/// `SASLInitialResponse`: the chosen mechanism, and what the client says first; the protocol lets it say nothing.
pub fn sasl_initial(body: &[u8]) -> Result<(&[u8], Option<&[u8]>), ProtocolError> {
    const WHAT: &str = "SASL response";
    let mut fields = Fields::new(b'p', body);
    let mechanism = fields.string("SASL mechanism")?;
    let first = match usize::try_from(fields.i32(WHAT)?) {
        Ok(length) => Some(fields.bytes(length, WHAT)?),
        // -1
        Err(_) => None,
    };
    fields.end().map(|()| (mechanism, first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_sasl_response_is_cut_by_its_length() {
        assert_eq!(sasl_initial(b"X\0\0\0\0\x02ab"), Ok((&b"X"[..], Some(&b"ab"[..]))));
        assert_eq!(sasl_initial(b"X\0\xff\xff\xff\xff"), Ok((&b"X"[..], None)));
        assert!(matches!(sasl_initial(b"X\0\0\0\0\x03ab"), Err(ProtocolError::Truncated { .. })));
        assert!(matches!(sasl_initial(b"X\0\0\0\0\x01ab"), Err(ProtocolError::Leftover { .. })));
        assert!(matches!(sasl_initial(b"X"), Err(ProtocolError::Truncated { .. })));
    }

    #[test]
    fn a_query_without_terminator_does_not_swallow_what_follows() {
        assert!(matches!(query(b"SELECT 1"), Err(ProtocolError::Truncated { .. })));
        assert!(matches!(query(b"SELECT 1\0Q"), Err(ProtocolError::Leftover { .. })));
    }

    #[test]
    fn every_prefix_of_a_parse_and_of_a_bind_is_an_error_and_never_a_panic() {
        let whole = b"s\0SELECT $1\0\0\x01\0\0\0\x17";
        assert_eq!(parse(whole).unwrap().types, [23]);
        for end in 0..whole.len() {
            assert!(parse(&whole[..end]).is_err());
        }
        let whole = b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\0";
        let bound: Vec<_> = bind(whole).unwrap().values().collect();
        assert_eq!(bound[0], Value { format: Format::Binary, bytes: Some(b"x") });
        assert_eq!(bound[1], Value { format: Format::Binary, bytes: None });
        for end in 0..whole.len() {
            assert!(bind(&whole[..end]).is_err());
        }
    }

    #[test]
    fn null_is_not_the_empty_string() {
        let bound = bind(b"\0\0\0\0\0\x02\xff\xff\xff\xff\0\0\0\0\0\0").unwrap();
        assert_eq!(bound.values().map(|v| v.bytes).collect::<Vec<_>>(), [None, Some(&b""[..])]);
    }

    #[test]
    fn sixty_five_thousand_parameters_are_read() {
        let mut body = b"\0\0\0\0".to_vec();
        body.extend(u16::MAX.to_be_bytes());
        body.extend((0..65_535).flat_map(|_| [0xff; 4]));
        body.extend([0, 0]);
        assert_eq!(bind(&body).unwrap().values().count(), 65_535);
    }
}
