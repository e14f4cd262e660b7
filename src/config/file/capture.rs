//! `[capture]`: how much of texts and values is kept.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Reading;
use crate::config::{Capture, CaptureParameters, CaptureSql, Secret};

/// Shorter keys could be guessed.
const MIN_HMAC_KEY: usize = 32;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CaptureTable {
    sql: Option<String>,
    parameters: Option<String>,
    hmac_key: Option<String>,
    hmac_key_file: Option<PathBuf>,
    max_sql: Option<String>,
    #[serde(default)]
    tags: BTreeMap<String, Vec<String>>,
}

impl Reading {
    pub(super) fn capture(&mut self, table: CaptureTable) -> Capture {
        let words = [
            ("full", CaptureSql::Full),
            ("redacted", CaptureSql::Redacted),
            ("fingerprint", CaptureSql::Fingerprint),
        ];
        let sql = self.word("capture.sql", table.sql.as_deref(), &words, CaptureSql::Full);
        let key = self.secret("capture.hmac_key", table.hmac_key, table.hmac_key_file);
        let parameters = self.parameters(table.parameters.as_deref(), key);
        let max_sql = self.size("capture.max_sql", table.max_sql.as_deref(), 1 << 20);
        Capture { sql, parameters, max_sql, tags: table.tags.into_iter().collect() }
    }

    fn parameters(&mut self, word: Option<&str>, key: Option<Secret>) -> CaptureParameters {
        #[derive(Clone, Copy, PartialEq, Eq)]
        enum Mode {
            Full,
            Hmac,
            Off,
        }
        const KEY: &str = "capture.hmac_key";
        let words = [("full", Mode::Full), ("hmac", Mode::Hmac), ("off", Mode::Off)];
        let mode = self.word("capture.parameters", word, &words, Mode::Full);
        match (mode, key) {
            (Mode::Hmac, Some(key)) => {
                if key.reveal().len() < MIN_HMAC_KEY {
                    self.wrong(
                        KEY,
                        format_args!("is shorter than {MIN_HMAC_KEY} bytes; openssl rand -hex 32"),
                    );
                }
                CaptureParameters::Hmac(key)
            }
            (Mode::Hmac, None) => {
                self.wrong(
                    KEY,
                    "parameters = \"hmac\" needs hmac_key_file: a file with openssl rand -hex 32",
                );
                CaptureParameters::Off
            }
            (_, Some(_)) => {
                self.wrong(KEY, "is of no use without parameters = \"hmac\"");
                CaptureParameters::Off
            }
            (Mode::Full, None) => CaptureParameters::Full,
            (Mode::Off, None) => CaptureParameters::Off,
        }
    }
}
