//! Strict reading of what servers answer: only the messages that carry evidence.

use std::borrow::Cow;

use crate::ProtocolError;
use crate::read::Fields;

/// Transaction status of `ReadyForQuery`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// `I`: no transaction.
    Idle,
    /// `T`: inside one.
    Transaction,
    /// `E`: inside a failed one.
    Failed,
}

/// `ReadyForQuery`
pub fn ready(body: &[u8]) -> Result<Status, ProtocolError> {
    match body {
        b"I" => Ok(Status::Idle),
        b"T" => Ok(Status::Transaction),
        b"E" => Ok(Status::Failed),
        _ => Err(ProtocolError::Invalid { tag: b'Z', what: "transaction status" }),
    }
}

/// The words and the row count of a command tag (`INSERT 0 5` is `INSERT`, 5).
pub fn command_complete(body: &[u8]) -> Result<(&str, Option<u64>), ProtocolError> {
    let mut fields = Fields::new(b'C', body);
    let tag = fields.string("command tag")?;
    fields.end()?;
    let tag =
        std::str::from_utf8(tag).map_err(|_| ProtocolError::Invalid { tag: b'C', what: "command tag" })?;
    let of_words = |byte: &u8| !byte.is_ascii_digit() && *byte != b' ';
    let end = tag.as_bytes().iter().rposition(of_words).map_or(0, |last| last + 1);
    let (words, numbers) = tag.split_at_checked(end).unwrap_or((tag, ""));
    Ok((words, numbers.rsplit(' ').next().and_then(|number| number.parse().ok())))
}

/// The words of a command tag, without memory of their own for the most common ones.
pub(crate) fn shared_words(words: &str) -> Cow<'static, str> {
    const COMMON: [&str; 10] =
        ["SELECT", "INSERT", "UPDATE", "DELETE", "BEGIN", "COMMIT", "SET", "COPY", "ROLLBACK", "FETCH"];
    match COMMON.iter().find(|common| **common == words) {
        Some(common) => Cow::Borrowed(common),
        None => Cow::Owned(words.to_owned()),
    }
}

/// The fields of `ErrorResponse` or `NoticeResponse` that are evidence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Severity, never localised (`V`), else localised (`S`).
    pub severity: String,
    /// SQLSTATE.
    pub code: String,
    /// Primary message; bytes that are not UTF-8 are replaced.
    pub message: String,
    /// 1-based position in the query string, in characters.
    pub position: Option<usize>,
}

/// Reads as many fields as there are: a long report may have been cut, so a missing end is no error.
pub fn report(body: &[u8]) -> Report {
    let mut fields = Fields::new(b'E', body);
    let mut report = Report::default();
    let mut set_severity = false;
    while !fields.is_empty() {
        let Ok(kind) = fields.u8("field type") else { break };
        if kind == 0 {
            break;
        }
        let Ok(value) = fields.string("field value") else { break };
        let text = || String::from_utf8_lossy(value).into_owned();
        match kind {
            b'V' => {
                report.severity = text();
                set_severity = true;
            }
            b'S' if !set_severity => report.severity = text(),
            b'C' => report.code = text(),
            b'M' => report.message = text(),
            b'P' => report.position = text().parse().ok(),
            _ => {}
        }
    }
    report
}

impl Report {
    /// Whether the server ends the connection with it.
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }
}

/// `ParameterStatus`: name and value.
pub fn parameter_status(body: &[u8]) -> Result<(&[u8], &[u8]), ProtocolError> {
    let mut fields = Fields::new(b'S', body);
    let name = fields.string("parameter name")?;
    let value = fields.string("parameter value")?;
    fields.end()?;
    Ok((name, value))
}

/// `BackendKeyData`: process id and secret key.
pub fn key_data(body: &[u8]) -> Result<(u32, &[u8]), ProtocolError> {
    match body.split_first_chunk::<4>() {
        Some((pid, key)) if (4..=256).contains(&key.len()) => Ok((u32::from_be_bytes(*pid), key)),
        _ => Err(ProtocolError::Invalid { tag: b'K', what: "key" }),
    }
}

/// Where a result column comes from, as the server tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The table's oid.
    pub table: u32,
    /// The column's number.
    pub column: i16,
}

/// `RowDescription`: where the columns come from that are plain columns of a table; the others are left out.
///
/// # Errors
/// A body of another shape.
pub fn row_description(body: &[u8]) -> Result<Vec<Origin>, ProtocolError> {
    let mut fields = Fields::new(b'T', body);
    let count = fields.u16("column count")?;
    let mut origins = Vec::new();
    for _ in 0..count {
        fields.string("column name")?;
        let (table, column) = (fields.u32("table")?, fields.i16("column number")?);
        // Type, its size and modifier, and format.
        fields.bytes(4 + 2 + 4 + 2, "column type")?;
        if table != 0 && column != 0 {
            origins.push(Origin { table, column });
        }
    }
    fields.end()?;
    Ok(origins)
}

/// `ParameterDescription`: the types of a statement's parameters, as far as they can be bound.
///
/// A statement may have more of them than its count has room for: PostgreSQL sends the count without its
/// upper bits, and all types.
pub fn parameter_description(body: &[u8]) -> Result<Vec<u32>, ProtocolError> {
    let mut fields = Fields::new(b't', body);
    let told = fields.u16("parameter count")?;
    let mut types = Vec::with_capacity(told.into());
    let mut count = 0_usize;
    while count & usize::from(u16::MAX) != usize::from(told) || !fields.is_empty() {
        let kind = fields.u32("parameter type")?;
        if types.len() < usize::from(u16::MAX) {
            types.push(kind);
        }
        count += 1;
    }
    Ok(types)
}

/// An authentication request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication<'a> {
    /// Logged in.
    Ok,
    /// Password in clear text.
    Cleartext,
    /// Password by MD5, with this salt.
    Md5([u8; 4]),
    /// SASL, with these mechanisms.
    Sasl(Vec<&'a [u8]>),
    /// SASL challenge.
    SaslContinue(&'a [u8]),
    /// SASL outcome.
    SaslFinal(&'a [u8]),
    /// Anything else (Kerberos, SSPI…).
    Other(u32),
}

/// `Authentication…`
pub fn authentication(body: &[u8]) -> Result<Authentication<'_>, ProtocolError> {
    const TAG: u8 = b'R';
    let mut fields = Fields::new(TAG, body);
    let code = fields.u32("authentication code")?;
    let rest = body.get(4..).unwrap_or_default();
    Ok(match code {
        0 => Authentication::Ok,
        3 => Authentication::Cleartext,
        5 => Authentication::Md5(
            rest.try_into().map_err(|_| ProtocolError::Invalid { tag: TAG, what: "salt" })?,
        ),
        10 => {
            let mut mechanisms = Vec::new();
            loop {
                match fields.string("mechanism")? {
                    [] => break,
                    name => mechanisms.push(name),
                }
            }
            fields.end()?;
            Authentication::Sasl(mechanisms)
        }
        11 => Authentication::SaslContinue(rest),
        12 => Authentication::SaslFinal(rest),
        code => Authentication::Other(code),
    })
}

/// The text values of one `DataRow`, as the gateway's own queries need them.
pub fn data_row(body: &[u8]) -> Result<Vec<Option<&[u8]>>, ProtocolError> {
    const TAG: u8 = b'D';
    let mut fields = Fields::new(TAG, body);
    let count = fields.u16("column count")?;
    let mut values = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let length = fields.i32("column length")?;
        values.push(match usize::try_from(length) {
            Ok(length) => Some(fields.bytes(length, "column value")?),
            Err(_) => None,
        });
    }
    fields.end()?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_with_more_parameters_than_can_be_counted_has_types_for_those_that_can_be_bound() {
        let body = |told: u16, sent: u32| {
            [told.to_be_bytes().to_vec(), (0..sent).flat_map(u32::to_be_bytes).collect()].concat()
        };
        assert_eq!(parameter_description(&body(0, 0)).unwrap(), []);
        assert_eq!(parameter_description(&body(2, 2)).unwrap(), [0, 1]);
        assert_eq!(parameter_description(&body(u16::MAX, 65_535)).unwrap().len(), 65_535);
        for (told, sent) in [(0, 65_536), (1, 65_537), (2, 131_074)] {
            let types = parameter_description(&body(told, sent)).unwrap();
            assert_eq!((types.len(), types.last()), (65_535, Some(&65_534)));
        }
        for (told, sent) in [(1, 0), (0, 1), (2, 3), (1, 65_536)] {
            parameter_description(&body(told, sent)).unwrap_err();
        }
        parameter_description(&[&body(1, 1)[..], b"x"].concat()).unwrap_err();
    }

    #[test]
    fn command_tags_give_words_and_rows() {
        for (tag, words, rows) in [
            (&b"SELECT 3\0"[..], "SELECT", Some(3)),
            (b"INSERT 0 5\0", "INSERT", Some(5)),
            (b"COPY 7\0", "COPY", Some(7)),
            (b"CREATE TABLE\0", "CREATE TABLE", None),
            (b"BEGIN\0", "BEGIN", None),
        ] {
            assert_eq!(command_complete(tag).unwrap(), (words, rows));
        }
    }

    #[test]
    fn a_report_cut_short_still_gives_what_came() {
        let whole = b"SFEHLER\0VERROR\0C42P01\0Mrelation \"x\" does not exist\0P15\0\0";
        let read = report(whole);
        assert_eq!((read.severity.as_str(), read.code.as_str(), read.position), ("ERROR", "42P01", Some(15)));
        for end in 0..whole.len() {
            report(&whole[..end]);
        }
        assert_eq!(report(&whole[..22]).code, "42P01");
    }
}
