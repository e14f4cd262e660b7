//! `pgwitness tail`: records as they come, oldest first, until interrupted.
//!
//! A statement that still runs is held back for a moment, so that one line says how it ended.

use std::collections::{BTreeSet, HashMap};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Map, Value};

use super::client::{Client, ClientError, Connection, finish};
use super::search::{Answer, PAGE_MAX, Printer, Question, Range, Shape};

/// Between two looks.
const POLL: Duration = Duration::from_millis(500);
/// A running statement is shown after this time, ended or not.
const HOLD: Duration = Duration::from_secs(5);
/// Pages read at one look; what came beyond that is counted, not shown.
const PAGES_MAX: usize = 20;
/// Failed looks in a row before giving up.
const FAILURES_MAX: u32 = 20;

/// `pgwitness tail`
#[derive(Debug, Args)]
pub struct TailArgs {
    /// What to look for [default: everything]
    #[arg(value_name = "QUERY")]
    pub query: Vec<String>,
    /// Show this many records from before first
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 10)]
    pub lines: usize,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub shape: Shape,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: Connection,
}

/// Follows the log until interrupted.
pub async fn run(args: TailArgs) -> anyhow::Result<ExitCode> {
    let followed = tokio::select! {
        ended = follow(&args) => ended,
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::SUCCESS),
    };
    Ok(finish(followed))
}

async fn follow(args: &TailArgs) -> Result<ExitCode, ClientError> {
    if args.lines > PAGE_MAX {
        return Err(ClientError::Usage(format!("-n must be from 0 to {PAGE_MAX}")));
    }
    let client = Client::find(&args.connection)?;
    let mut printer = Printer::new(&args.shape);
    // All fields are asked for: whether a record is new, and still runs, is seen by others than the shown.
    let mut question = Question::new(&args.query, &Range::default(), &[]);
    let first = question.ask(&client, args.lines.max(1)).await?;
    first.say_warnings();
    let mut place = Place { low: first.indexed_seq, ..Place::default() };
    let mut before = first.items;
    before.truncate(args.lines);
    before.reverse();
    printer.print(&before)?;
    let mut failures = 0;
    loop {
        tokio::time::sleep(POLL).await;
        question.after = Some(place.low);
        match look(&client, &mut question).await {
            Ok((items, indexed)) => {
                failures = 0;
                printer.print(&place.ready(items, indexed, Instant::now()))?;
            }
            Err(error @ ClientError::Unreachable(_)) if failures < FAILURES_MAX => {
                if failures == 0 {
                    eprintln!("pgwitness: {error}. Trying again");
                }
                failures += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// What came since, oldest first, and how far the log is searchable.
async fn look(
    client: &Client,
    question: &mut Question,
) -> Result<(Vec<Map<String, Value>>, u64), ClientError> {
    let mut all = Vec::new();
    let mut indexed = None;
    question.cursor = None;
    for page in 1.. {
        let Answer { items, next_cursor, indexed_seq, .. } = question.ask(client, PAGE_MAX).await?;
        // Later pages may know more than the first; that comes with the next look.
        indexed.get_or_insert(indexed_seq);
        all.extend(items);
        question.cursor = next_cursor;
        if question.cursor.is_none() {
            break;
        }
        if page == PAGES_MAX {
            eprintln!(
                "pgwitness: more than {} records came at once; older ones of them are not shown",
                all.len()
            );
            break;
        }
    }
    question.cursor = None;
    all.sort_by_key(seq);
    Ok((all, indexed.unwrap_or(0)))
}

/// How far the log was shown.
#[derive(Default)]
struct Place {
    /// Everything up to here is done with.
    low: u64,
    /// Shown beyond that.
    shown: BTreeSet<u64>,
    /// Held back since.
    held: HashMap<u64, Instant>,
}

impl Place {
    /// Those of the records that are to be shown now.
    fn ready(
        &mut self,
        items: Vec<Map<String, Value>>,
        indexed: u64,
        now: Instant,
    ) -> Vec<Map<String, Value>> {
        let mut ready = Vec::new();
        let mut waiting = HashMap::new();
        for item in items {
            let seq = seq(&item);
            if seq <= self.low || self.shown.contains(&seq) {
                continue;
            }
            let since = self.held.get(&seq).copied().unwrap_or(now);
            let running = item.get("running").and_then(Value::as_bool).unwrap_or(false);
            if running && now.duration_since(since) < HOLD {
                waiting.insert(seq, since);
            } else {
                self.shown.insert(seq);
                ready.push(item);
            }
        }
        let last = self.shown.last().copied().unwrap_or(0).max(indexed).max(self.low);
        self.low = waiting.keys().min().map_or(last, |first| first.saturating_sub(1).max(self.low));
        self.shown = self.shown.split_off(&(self.low + 1));
        self.held = waiting;
        ready
    }
}

fn seq(item: &Map<String, Value>) -> u64 {
    item.get("seq").and_then(Value::as_u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(list: &[(u64, bool)]) -> Vec<Map<String, Value>> {
        let one = |&(seq, running): &(u64, bool)| serde_json::json!({ "seq": seq, "running": running });
        list.iter().map(one).filter_map(|item| item.as_object().cloned()).collect()
    }

    fn seqs(items: &[Map<String, Value>]) -> Vec<u64> {
        items.iter().map(seq).collect()
    }

    #[test]
    fn each_record_is_shown_once_and_a_running_one_when_it_ended() {
        let mut place = Place { low: 10, ..Place::default() };
        let now = Instant::now();
        assert_eq!(seqs(&place.ready(items(&[(11, false), (12, true), (13, false)]), 13, now)), [11, 13]);
        assert_eq!(place.low, 11);
        assert!(place.ready(items(&[(12, true), (13, false)]), 13, now).is_empty());
        assert_eq!(seqs(&place.ready(items(&[(12, false), (13, false), (14, false)]), 14, now)), [12, 14]);
        assert_eq!((place.low, place.shown.len()), (14, 0));
    }

    #[test]
    fn a_statement_that_runs_long_is_shown_running() {
        let mut place = Place::default();
        let now = Instant::now();
        assert!(place.ready(items(&[(1, true)]), 1, now).is_empty());
        assert_eq!(seqs(&place.ready(items(&[(1, true)]), 1, now + HOLD)), [1]);
        assert_eq!(place.low, 1);
    }
}
