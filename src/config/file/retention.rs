//! `[retention]`: how long which class of data is kept, and what is held longer.

use std::time::Duration;

use pgwitness_index::record::Timestamp;
use pgwitness_index::retention::Holds;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Reading;
use crate::config::Retention;

/// What is kept for less was not recorded.
const SHORTEST: Duration = Duration::from_secs(1);
/// Any moment will do to see whether a hold can be read; it must mean the same at every one.
const ANY_MOMENT: Timestamp = Timestamp(1_795_262_400_000_000);

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RetentionTable {
    full: Option<String>,
    metadata: Option<String>,
    #[serde(default)]
    legal_hold: Vec<String>,
}

impl Reading {
    pub(super) fn retention(&mut self, table: RetentionTable) -> Retention {
        let default = Retention::default();
        let full = self.duration("retention.full", table.full.as_deref(), default.full);
        let metadata = self.duration("retention.metadata", table.metadata.as_deref(), default.metadata);
        if full < SHORTEST {
            self.wrong("retention.full", "must be at least one second");
        }
        if metadata < full {
            self.wrong(
                "retention.metadata",
                "must not be shorter than retention.full: no text is kept without them",
            );
        }
        if let Err(error) = Holds::parse(&table.legal_hold, ANY_MOMENT, None) {
            self.wrong("retention.legal_hold", error);
        }
        Retention {
            full,
            metadata,
            full_rule: format!("retention.full = {}", table.full.unwrap_or_else(|| "90d".into())),
            metadata_rule: format!("retention.metadata = {}", table.metadata.unwrap_or_else(|| "7y".into())),
            legal_hold: table.legal_hold,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::file::tests::MINIMAL;
    use crate::config::file::{ConfigError, parse};
    use crate::config::{Config, Retention};

    fn read(table: &str) -> Result<Config, ConfigError> {
        parse(&format!("{MINIMAL}\n[retention]\n{table}\n"), Path::new("/etc"), std::iter::empty())
    }

    #[test]
    fn texts_are_kept_for_90_days_and_metadata_for_7_years_unless_said_otherwise() {
        assert_eq!(read("").unwrap().retention, Retention::default());
        let other =
            read("full = \"30d\"\nmetadata = \"1y\"\nlegal_hold = [\"user:ann@x.org\"]").unwrap().retention;
        assert_eq!(other.full.as_secs(), 30 * 86_400);
        assert_eq!(other.metadata.as_secs(), 365 * 86_400);
        assert_eq!(other.full_rule, "retention.full = 30d");
        assert_eq!(other.legal_hold, ["user:ann@x.org"]);
    }

    #[test]
    fn a_rule_that_cannot_be_kept_stops_the_start() {
        for (table, said) in [
            ("full = \"0s\"", "at least one second"),
            ("full = \"30d\"\nmetadata = \"7d\"", "must not be shorter"),
            ("full = \"soon\"", "is not a duration"),
            ("legal_hold = [\"nofield:x\"]", "is not a query"),
            ("legal_hold = [\"time:>-15m\"]", "by today's date"),
            ("legal_hold = [\"\"]", "is empty"),
            ("forever = true", "unknown field"),
        ] {
            let error = read(table).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
