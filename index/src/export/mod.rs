//! Exports: merged records as a file of one format, written piece by piece.
//!
//! Pure: records in, bytes out. [`Export`] holds what the format must hold back (nothing, or one row
//! group of Parquet: see [`parquet`]), and counts and hashes every byte it gives out, so that a
//! [`Summary`] of the whole file stands at its end.
//!
//! - [`csv`]: for spreadsheets; cells that one of them would take for a formula are defused.
//! - [`jsonl`](Format::Jsonl): exact, one record a line.
//! - [`parquet`]: for analysis; typed columns.
//! - [`ocsf`]: for security products; one OCSF event a line.

pub mod csv;
pub mod ocsf;
pub mod parquet;

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::record::{Digest, Seq};
use crate::view::{View, chosen};

pub use csv::{CSV_FIELDS, csv_header, csv_row};

/// How an export is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// RFC 4180, safe for spreadsheets.
    Csv,
    /// One JSON object a line, exact.
    Jsonl,
    /// Apache Parquet.
    Parquet,
    /// One OCSF event a line.
    Ocsf,
}

impl Format {
    /// Every format.
    pub const ALL: &'static [Format] = &[Format::Csv, Format::Jsonl, Format::Parquet, Format::Ocsf];

    /// The word users meet.
    pub const fn as_str(self) -> &'static str {
        match self {
            Format::Csv => "csv",
            Format::Jsonl => "jsonl",
            Format::Parquet => "parquet",
            Format::Ocsf => "ocsf",
        }
    }

    /// The format for a word.
    pub fn from_word(word: &str) -> Option<Format> {
        Self::ALL.iter().copied().find(|format| format.as_str() == word)
    }

    /// As in `Content-Type`.
    pub const fn media_type(self) -> &'static str {
        match self {
            Format::Csv => "text/csv; charset=utf-8",
            Format::Jsonl | Format::Ocsf => "application/x-ndjson",
            Format::Parquet => "application/vnd.apache.parquet",
        }
    }

    /// The end of a file's name.
    pub const fn extension(self) -> &'static str {
        match self {
            Format::Csv => "csv",
            Format::Jsonl => "jsonl",
            Format::Parquet => "parquet",
            Format::Ocsf => "ocsf.jsonl",
        }
    }

    /// Which published schema the rows follow, if one does.
    pub const fn schema(self) -> Option<&'static str> {
        match self {
            Format::Ocsf => Some(ocsf::SCHEMA),
            _ => None,
        }
    }
}

/// Why a file could not be written.
#[derive(Debug, Error)]
pub enum ExportError {
    /// An OCSF event has the fields that OCSF says.
    #[error("an OCSF event has no fields to choose from")]
    NoChoice,
    /// The encoder failed.
    #[error("could not write Parquet: {0}")]
    Parquet(#[from] ::parquet::errors::ParquetError),
}

/// The whole file in a few numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Records.
    pub rows: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: Digest,
    /// The lowest and highest position among the records; none if there are none.
    pub seqs: Option<(Seq, Seq)>,
}

/// A file that is being written.
pub struct Export {
    rows: Rows,
    ready: Vec<u8>,
    hash: Sha256,
    summary: Summary,
}

enum Rows {
    Csv(Vec<String>),
    Jsonl(Vec<String>),
    Ocsf,
    Parquet(Box<parquet::Table>),
}

impl Export {
    /// Begins a file. `fields` are names of the record, in the order to write them; empty means all
    /// (in CSV: [`CSV_FIELDS`]).
    ///
    /// # Errors
    /// Fields for OCSF, which has its own.
    pub fn begin(format: Format, fields: &[String]) -> Result<Export, ExportError> {
        let mut ready = Vec::new();
        let rows = match format {
            Format::Csv => {
                let fields = match fields {
                    [] => CSV_FIELDS.iter().map(|&name| name.to_owned()).collect(),
                    asked => asked.to_vec(),
                };
                ready.extend(csv_header(&names(&fields)).into_bytes());
                Rows::Csv(fields)
            }
            Format::Jsonl => Rows::Jsonl(fields.to_vec()),
            Format::Ocsf if fields.is_empty() => Rows::Ocsf,
            Format::Ocsf => return Err(ExportError::NoChoice),
            Format::Parquet => Rows::Parquet(Box::new(parquet::Table::begin(fields)?)),
        };
        let summary = Summary { rows: 0, bytes: 0, sha256: Digest::default(), seqs: None };
        Ok(Export { rows, ready, hash: Sha256::new(), summary })
    }

    /// Adds a record.
    ///
    /// # Errors
    /// An encoder that failed; the file is of no use then.
    pub fn push(&mut self, view: View) -> Result<(), ExportError> {
        self.summary.rows += 1;
        if let Some(seq) = view.get("seq").and_then(serde_json::Value::as_u64).map(Seq) {
            let (first, last) = self.summary.seqs.unwrap_or((seq, seq));
            self.summary.seqs = Some((first.min(seq), last.max(seq)));
        }
        match &mut self.rows {
            Rows::Csv(fields) => self.ready.extend(csv_row(&view, &names(fields)).into_bytes()),
            Rows::Jsonl(fields) => self.ready.extend(line(&chosen(view, fields))),
            Rows::Ocsf => self.ready.extend(line(&ocsf::event(&view))),
            Rows::Parquet(table) => {
                table.push(&view)?;
                self.ready.append(&mut table.take()?);
            }
        }
        Ok(())
    }

    /// The bytes that are ready, in the order of the file; empty while a row group fills.
    pub fn take(&mut self) -> Vec<u8> {
        self.hash.update(&self.ready);
        self.summary.bytes += self.ready.len() as u64;
        std::mem::take(&mut self.ready)
    }

    /// Ends the file: its last bytes, and what it is as a whole.
    ///
    /// # Errors
    /// An encoder that failed; the file is of no use then.
    pub fn finish(mut self) -> Result<(Vec<u8>, Summary), ExportError> {
        let rows = std::mem::replace(&mut self.rows, Rows::Ocsf);
        if let Rows::Parquet(table) = rows {
            self.ready.append(&mut table.finish()?);
        }
        let rest = self.take();
        let Export { hash, mut summary, .. } = self;
        summary.sha256 = Digest(hash.finalize().into());
        Ok((rest, summary))
    }
}

fn names(fields: &[String]) -> Vec<&str> {
    fields.iter().map(String::as_str).collect()
}

/// One object as a line of JSON.
fn line(object: &View) -> Vec<u8> {
    // Objects of strings, numbers and lists always have a text form.
    let mut line = serde_json::to_vec(object).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn views(count: u64) -> impl Iterator<Item = View> {
        let one = |seq: u64| {
            [
                ("seq".to_owned(), json!(seq)),
                ("sql".to_owned(), json!("a\nb\u{2028}=")),
                ("rows".to_owned(), json!(null)),
            ]
        };
        (0..count).rev().map(move |seq| View::from_iter(one(seq + 5)))
    }

    fn whole(format: Format, fields: &[&str], count: u64) -> (Vec<u8>, Summary) {
        let fields: Vec<String> = fields.iter().map(|&name| name.to_owned()).collect();
        let mut export = Export::begin(format, &fields).unwrap();
        let mut file = export.take();
        for view in views(count) {
            export.push(view).unwrap();
            file.extend(export.take());
        }
        let (rest, summary) = export.finish().unwrap();
        file.extend(rest);
        (file, summary)
    }

    #[test]
    fn the_summary_is_of_the_bytes_that_were_given_out() {
        for &format in Format::ALL {
            for count in [0, 1, 30] {
                let (file, summary) = whole(format, &[], count);
                assert_eq!((summary.rows, summary.bytes), (count, file.len() as u64), "{format:?}");
                assert_eq!(summary.sha256, Digest(Sha256::digest(&file).into()), "{format:?}");
                let range = (count > 0).then_some((Seq(5), Seq(4 + count)));
                assert_eq!(summary.seqs, range, "{format:?}");
            }
        }
    }

    #[test]
    fn the_range_of_positions_is_known_without_their_column() {
        let (file, summary) = whole(Format::Jsonl, &["sql"], 2);
        assert_eq!(String::from_utf8(file).unwrap(), "{\"sql\":\"a\\nb\u{2028}=\"}\n".repeat(2));
        assert_eq!(summary.seqs, Some((Seq(5), Seq(6))));
    }

    #[test]
    fn a_json_line_is_one_line_and_exact() {
        let (file, _) = whole(Format::Jsonl, &[], 1);
        assert_eq!(file.iter().filter(|&&byte| byte == b'\n').count(), 1);
        assert_eq!(serde_json::from_slice::<View>(&file).unwrap(), views(1).next().unwrap());
    }

    #[test]
    fn fields_of_an_ocsf_event_are_not_ours_to_choose() {
        assert!(matches!(Export::begin(Format::Ocsf, &["sql".to_owned()]), Err(ExportError::NoChoice)));
    }

    #[test]
    fn a_format_is_known_by_its_word() {
        for &format in Format::ALL {
            assert_eq!(Format::from_word(format.as_str()), Some(format));
        }
        assert_eq!(Format::from_word("xlsx"), None);
    }
}
