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
    /// Parameter values with their formats.
    pub values: Vec<Value<'a>>,
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
    const TAG: u8 = b'B';
    let mut fields = Fields::new(TAG, body);
    let portal = fields.string("portal name")?;
    let statement = fields.string("statement name")?;
    let format_count = usize::from(fields.u16("parameter format count")?);
    let formats = (0..format_count).map(|_| format(TAG, &mut fields)).collect::<Result<Vec<_>, _>>()?;
    let count = usize::from(fields.u16("parameter count")?);
    if format_count > 1 && format_count != count {
        return Err(ProtocolError::Invalid { tag: TAG, what: "number of parameter formats" });
    }
    let mut values = Vec::with_capacity(count);
    for index in 0..count {
        let format = formats.get(index).or(formats.first()).copied().unwrap_or(Format::Text);
        let bytes = match fields.i32("parameter length")? {
            -1 => None,
            length => {
                let length = usize::try_from(length)
                    .map_err(|_| ProtocolError::Invalid { tag: TAG, what: "parameter length" })?;
                Some(fields.bytes(length, "parameter value")?)
            }
        };
        values.push(Value { format, bytes });
    }
    let results = usize::from(fields.u16("result format count")?);
    fields.bytes(2 * results, "result formats")?;
    fields.end()?;
    Ok(Bind { portal, statement, values })
}

fn format(tag: u8, fields: &mut Fields<'_>) -> Result<Format, ProtocolError> {
    match fields.u16("parameter format")? {
        0 => Ok(Format::Text),
        1 => Ok(Format::Binary),
        _ => Err(ProtocolError::Invalid { tag, what: "parameter format" }),
    }
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
    let format_count = usize::from(fields.u16("argument format count")?);
    let formats = (0..format_count).map(|_| format(TAG, &mut fields)).collect::<Result<Vec<_>, _>>()?;
    let count = usize::from(fields.u16("argument count")?);
    if format_count > 1 && format_count != count {
        return Err(ProtocolError::Invalid { tag: TAG, what: "number of argument formats" });
    }
    let mut values = Vec::with_capacity(count);
    for index in 0..count {
        let format = formats.get(index).or(formats.first()).copied().unwrap_or(Format::Text);
        let length = fields.i32("argument length")?;
        let bytes = match usize::try_from(length) {
            Ok(length) => Some(fields.bytes(length, "argument value")?),
            Err(_) if length == -1 => None,
            Err(_) => return Err(ProtocolError::Invalid { tag: TAG, what: "argument length" }),
        };
        values.push(Value { format, bytes });
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let bound = bind(whole).unwrap();
        assert_eq!(bound.values[0], Value { format: Format::Binary, bytes: Some(b"x") });
        assert_eq!(bound.values[1], Value { format: Format::Binary, bytes: None });
        for end in 0..whole.len() {
            assert!(bind(&whole[..end]).is_err());
        }
    }

    #[test]
    fn null_is_not_the_empty_string() {
        let bound = bind(b"\0\0\0\0\0\x02\xff\xff\xff\xff\0\0\0\0\0\0").unwrap();
        assert_eq!(bound.values.iter().map(|v| v.bytes).collect::<Vec<_>>(), [None, Some(&b""[..])]);
    }

    #[test]
    fn sixty_five_thousand_parameters_are_read() {
        let mut body = b"\0\0\0\0".to_vec();
        body.extend(u16::MAX.to_be_bytes());
        body.extend((0..65_535).flat_map(|_| [0xff; 4]));
        body.extend([0, 0]);
        assert_eq!(bind(&body).unwrap().values.len(), 65_535);
    }
}
