//! Merged records as an Apache Parquet file, row group by row group.
//!
//! Every field of the record is a column of its own name: `time` a timestamp in microseconds UTC,
//! counts 64-bit integers, lists `LIST` of strings, the rest strings; what has no one type (`auth`,
//! `params`) is JSON text. A column is null where the record has no such field, and a list is empty
//! where it has none of them. Pages are compressed by Snappy, which every reader knows.
//!
//! Memory: one row group, at most [`GROUP_ROWS`] records or [`GROUP_BYTES`] of their values.

use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;
use serde_json::Value;

use super::ExportError;
use crate::view::{View, parse_time};

/// Most records of one row group.
pub const GROUP_ROWS: usize = 65_536;
/// Bytes of values from which on a row group is written.
pub const GROUP_BYTES: usize = 32 << 20;

/// Memory of a value beside its text.
const VALUE_BYTES: usize = 48;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Texts,
    Json,
    Count,
    Time,
    Flag,
}

/// The fields of the record and their types, in the order of the file.
const COLUMNS: &[(&str, Kind)] = &[
    ("seq", Kind::Count),
    ("time", Kind::Time),
    ("id", Kind::Text),
    ("event", Kind::Text),
    ("outcome", Kind::Text),
    ("txn_outcome", Kind::Text),
    ("user", Kind::Text),
    ("sub", Kind::Text),
    ("iss", Kind::Text),
    ("groups", Kind::Texts),
    ("login", Kind::Text),
    ("session", Kind::Text),
    ("auth", Kind::Json),
    ("role", Kind::Text),
    ("db", Kind::Text),
    ("upstream", Kind::Text),
    ("search_path", Kind::Text),
    ("ip", Kind::Text),
    ("app", Kind::Text),
    ("device", Kind::Text),
    ("sql", Kind::Text),
    ("sql_hex", Kind::Text),
    ("params", Kind::Json),
    ("fingerprint", Kind::Text),
    ("command", Kind::Text),
    ("class", Kind::Texts),
    ("tables", Kind::Texts),
    ("columns", Kind::Texts),
    ("reads", Kind::Texts),
    ("filters", Kind::Texts),
    ("writes", Kind::Texts),
    ("via", Kind::Texts),
    ("analysis", Kind::Text),
    ("analysis_notes", Kind::Texts),
    ("rows", Kind::Count),
    ("bytes", Kind::Count),
    ("duration_us", Kind::Count),
    ("sqlstate", Kind::Text),
    ("error", Kind::Text),
    ("detail", Kind::Text),
    ("tags", Kind::Texts),
    ("is", Kind::Texts),
    ("running", Kind::Flag),
];

/// A file that is being written.
pub(super) struct Table {
    writer: SerializedFileWriter<Vec<u8>>,
    columns: Vec<Column>,
    rows: usize,
    bytes: usize,
}

impl Table {
    /// Begins a file with some columns, or all if none are named.
    pub(super) fn begin(fields: &[String]) -> Result<Table, ExportError> {
        let kind =
            |name: &str| COLUMNS.iter().find(|(known, _)| *known == name).map_or(Kind::Text, |one| one.1);
        let columns: Vec<Column> = match fields {
            [] => COLUMNS.iter().map(|(name, kind)| Column::new(name, *kind)).collect(),
            asked => asked.iter().map(|name| Column::new(name, kind(name))).collect(),
        };
        let message: String = columns.iter().map(Column::declaration).collect();
        let schema = Arc::new(parse_message_type(&format!("message pgwitness {{ {message} }}"))?);
        let properties = WriterProperties::builder()
            .set_created_by(concat!("pgwitness ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_compression(Compression::SNAPPY)
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_key_value_metadata(Some(vec![KeyValue::new("pgwitness.record".to_owned(), "1".to_owned())]))
            .build();
        let writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
        Ok(Table { writer, columns, rows: 0, bytes: 0 })
    }

    /// Adds a record; a full row group is written.
    pub(super) fn push(&mut self, view: &View) -> Result<(), ExportError> {
        for column in &mut self.columns {
            self.bytes += column.push(view.get(&column.name));
        }
        self.rows += 1;
        if self.rows >= GROUP_ROWS || self.bytes >= GROUP_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// The bytes of the file that are ready.
    pub(super) fn take(&mut self) -> Result<Vec<u8>, ExportError> {
        if self.rows == 0 {
            // Only whole row groups are in there.
            self.writer.flush().map_err(ParquetError::from)?;
            return Ok(std::mem::take(self.writer.inner_mut()));
        }
        Ok(Vec::new())
    }

    /// Ends the file: the rest of its bytes.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, ExportError> {
        if self.rows > 0 {
            self.flush()?;
        }
        Ok(self.writer.into_inner()?)
    }

    fn flush(&mut self) -> Result<(), ExportError> {
        let mut group = self.writer.next_row_group()?;
        for column in &mut self.columns {
            let Some(mut writer) = group.next_column()? else {
                return Err(ParquetError::General("a column is missing".to_owned()).into());
            };
            column.write(&mut writer)?;
            writer.close()?;
        }
        group.close()?;
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }
}

/// One column of the row group that fills. Levels as in Dremel's encoding: how much of the path is
/// defined, and where a list goes on.
struct Column {
    name: String,
    kind: Kind,
    texts: Vec<ByteArray>,
    numbers: Vec<i64>,
    flags: Vec<bool>,
    defined: Vec<i16>,
    repeated: Vec<i16>,
}

impl Column {
    fn new(name: &str, kind: Kind) -> Column {
        Column {
            name: name.to_owned(),
            kind,
            texts: Vec::new(),
            numbers: Vec::new(),
            flags: Vec::new(),
            defined: Vec::new(),
            repeated: Vec::new(),
        }
    }

    fn declaration(&self) -> String {
        let name = &self.name;
        match self.kind {
            Kind::Text => format!("OPTIONAL BYTE_ARRAY {name} (STRING);"),
            Kind::Json => format!("OPTIONAL BYTE_ARRAY {name} (JSON);"),
            Kind::Count => format!("OPTIONAL INT64 {name};"),
            Kind::Time => format!("OPTIONAL INT64 {name} (TIMESTAMP(MICROS,true));"),
            Kind::Flag => format!("OPTIONAL BOOLEAN {name};"),
            Kind::Texts => format!(
                "OPTIONAL group {name} (LIST) {{ REPEATED group list {{ REQUIRED BYTE_ARRAY element (STRING); }} }}"
            ),
        }
    }

    /// Adds a value; returns the memory it takes, about.
    fn push(&mut self, value: Option<&Value>) -> usize {
        let value = value.filter(|value| !value.is_null());
        match (self.kind, value) {
            (Kind::Texts, Some(Value::Array(items))) => return self.push_list(items),
            (Kind::Text, Some(Value::String(text))) => return self.push_text(text),
            (Kind::Text | Kind::Json, Some(value)) => return self.push_text(&value.to_string()),
            (Kind::Flag, Some(Value::Bool(flag))) => self.flags.push(*flag),
            (Kind::Count, Some(Value::Number(number))) => {
                let number = number.as_u64().unwrap_or_default();
                self.numbers.push(i64::try_from(number).unwrap_or(i64::MAX));
            }
            (Kind::Time, Some(Value::String(text))) if let Some(time) = parse_time(text) => {
                self.numbers.push(time.0);
            }
            _ => {
                self.level(0, 0);
                return VALUE_BYTES;
            }
        }
        self.level(1, 0);
        VALUE_BYTES
    }

    fn push_list(&mut self, items: &[Value]) -> usize {
        if items.is_empty() {
            self.level(1, 0);
            return VALUE_BYTES;
        }
        let mut bytes = 0;
        for (index, item) in items.iter().enumerate() {
            bytes += self.text(item.as_str().unwrap_or_default());
            self.level(2, i16::from(index > 0));
        }
        bytes
    }

    fn push_text(&mut self, text: &str) -> usize {
        self.level(1, 0);
        self.text(text)
    }

    /// Neighbours often say the same, and then share it.
    fn text(&mut self, text: &str) -> usize {
        match self.texts.last() {
            Some(last) if last.data() == text.as_bytes() => {
                self.texts.push(last.clone());
                VALUE_BYTES
            }
            _ => {
                self.texts.push(ByteArray::from(text.as_bytes().to_vec()));
                VALUE_BYTES + text.len()
            }
        }
    }

    fn level(&mut self, defined: i16, repeated: i16) {
        self.defined.push(defined);
        if self.kind == Kind::Texts {
            self.repeated.push(repeated);
        }
    }

    fn write(&mut self, writer: &mut SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        match self.kind {
            Kind::Text | Kind::Json | Kind::Texts => {
                batch::<ByteArrayType>(writer, &self.texts, &self.defined, &self.repeated)?;
            }
            Kind::Count | Kind::Time => {
                batch::<Int64Type>(writer, &self.numbers, &self.defined, &self.repeated)?;
            }
            Kind::Flag => batch::<BoolType>(writer, &self.flags, &self.defined, &self.repeated)?,
        }
        self.texts.clear();
        self.numbers.clear();
        self.flags.clear();
        self.defined.clear();
        self.repeated.clear();
        Ok(())
    }
}

fn batch<T: DataType>(
    writer: &mut SerializedColumnWriter<'_>,
    values: &[T::T],
    defined: &[i16],
    repeated: &[i16],
) -> Result<(), ParquetError> {
    let repeated = (!repeated.is_empty()).then_some(repeated);
    writer.typed::<T>().write_batch(values, Some(defined), repeated).map(|_| ())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use serde_json::json;

    use super::*;
    use crate::search::Field;

    fn view(value: Value) -> View {
        value.as_object().cloned().unwrap()
    }

    /// Writes records and reads them back, one text a row.
    fn round_trip(fields: &[&str], views: &[View]) -> Vec<String> {
        let fields: Vec<String> = fields.iter().map(|&name| name.to_owned()).collect();
        let mut table = Table::begin(&fields).unwrap();
        let mut file = Vec::new();
        for view in views {
            table.push(view).unwrap();
            file.append(&mut table.take().unwrap());
        }
        file.append(&mut table.finish().unwrap());
        let reader = SerializedFileReader::new(Bytes::from(file)).unwrap();
        reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect()
    }

    #[test]
    fn every_field_that_a_query_can_name_is_a_column() {
        for field in Field::ALL {
            assert!(COLUMNS.iter().any(|(name, _)| *name == field.name()), "{}", field.name());
        }
    }

    #[test]
    fn null_empty_and_full_lists_stay_apart() {
        let views = [
            view(
                json!({ "seq": 3, "tables": ["public.a", "public.b"], "time": "2026-11-21T12:00:00.000001Z" }),
            ),
            view(json!({ "seq": 2, "tables": [], "sql": "", "running": true })),
            view(json!({ "seq": 1, "rows": null })),
        ];
        let rows = round_trip(&["seq", "tables", "sql", "time", "running"], &views);
        assert_eq!(
            rows,
            [
                "{seq: 3, tables: [\"public.a\", \"public.b\"], sql: null, time: 2026-11-21 12:00:00.000001 +00:00, running: null}",
                "{seq: 2, tables: [], sql: \"\", time: null, running: true}",
                "{seq: 1, tables: null, sql: null, time: null, running: null}",
            ]
        );
    }

    #[test]
    fn what_has_no_one_type_is_json_text() {
        let record = view(json!({ "params": [1, null, "x"], "auth": { "mode": "device" } }));
        let [row] = &round_trip(&["params", "auth"], &[record])[..] else { panic!("one row") };
        assert!(row.contains(r#"[1,null,"x"]"#) && row.contains(r#"{"mode":"device"}"#), "{row}");
    }

    #[test]
    fn a_full_row_group_is_given_out_and_forgotten() {
        let long = "x".repeat(GROUP_BYTES / 4);
        let mut table = Table::begin(&[]).unwrap();
        let sizes: Vec<bool> = (0..8)
            .map(|seq| {
                table.push(&view(json!({ "seq": seq, "sql": format!("{seq}{long}") }))).unwrap();
                !table.take().unwrap().is_empty()
            })
            .collect();
        assert_eq!(sizes, [false, false, false, true, false, false, false, true]);
        assert!(table.columns.iter().all(|column| column.texts.is_empty() && column.defined.is_empty()));
    }
}
