//! `pgwitness tail`: records as they come, oldest first, until interrupted.
//!
//! The gateway sends them as server-sent events; after a broken connection the tail goes on where it
//! stood, and what comes twice is shown once.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use reqwest::Response;
use serde_json::{Map, Value};

use super::client::{Client, ClientError, Connection, finish, unreachable};
use super::search::{PAGE_MAX, Printer, Question, Range, Shape};

/// Between two attempts to connect.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Failed attempts in a row before giving up.
const FAILURES_MAX: u32 = 20;
/// Largest event, bytes.
const EVENT_BYTES_MAX: usize = 64 * 1024 * 1024;

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
    // All fields are asked for: whether a record came before is seen by others than the shown.
    let question = Question::new(&args.query, &Range::default(), &[]);
    let first = question.ask(&client, args.lines.max(1)).await?;
    first.say_warnings();
    let mut before = first.items;
    before.truncate(args.lines);
    before.reverse();
    printer.print(&before)?;
    let mut place = Place { after: first.indexed_seq, ..Place::default() };
    let query = args.query.join(" ");
    let mut failures = 0;
    loop {
        match listen(&client, &query, &mut place, &mut printer, &mut failures).await {
            ClientError::Unreachable(why) if failures < FAILURES_MAX => {
                if failures == 0 {
                    eprintln!("pgwitness: {why}. Trying again");
                }
            }
            error => return Err(error),
        }
        failures += 1;
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// Shows what comes, until the connection ends, and says why it did.
async fn listen(
    client: &Client,
    query: &str,
    place: &mut Place,
    printer: &mut Printer,
    failures: &mut u32,
) -> ClientError {
    match heard(client, query, place, printer, failures).await {
        Ok(()) => ClientError::Unreachable("the gateway ended the tail".into()),
        Err(error) => error,
    }
}

async fn heard(
    client: &Client,
    query: &str,
    place: &mut Place,
    printer: &mut Printer,
    failures: &mut u32,
) -> Result<(), ClientError> {
    let after = place.after.to_string();
    let params = [("q", Some(query)), ("after", Some(after.as_str()))];
    let mut response: Response = client.send("/api/v1/events/tail", &params).await?;
    let url = response.url().clone();
    let mut events = Events::default();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&url, &error))? {
        *failures = 0;
        let fresh: Vec<Map<String, Value>> =
            events.push(&chunk)?.into_iter().filter_map(|event| place.fresh(event)).collect();
        printer.print(&fresh)?;
    }
    Ok(())
}

/// How far the log was shown.
#[derive(Default)]
struct Place {
    /// Everything up to here is done with.
    after: u64,
    /// Shown beyond that: position, and whether it still ran.
    shown: BTreeSet<(u64, bool)>,
}

impl Place {
    /// The record of an event, unless it was shown.
    fn fresh(&mut self, event: Event) -> Option<Map<String, Value>> {
        let record = self.unseen(&event);
        if let Some(after) = event.id.parse().ok().filter(|after| *after >= self.after) {
            self.after = after;
            // What is done with does not come again.
            self.shown = self.shown.split_off(&(after + 1, false));
        }
        record
    }

    fn unseen(&mut self, event: &Event) -> Option<Map<String, Value>> {
        if event.kind != "record" {
            return None;
        }
        let record: Map<String, Value> = serde_json::from_str(&event.data).ok()?;
        let seq = record.get("seq").and_then(Value::as_u64)?;
        let running = record.get("running").and_then(Value::as_bool).unwrap_or(false);
        self.shown.insert((seq, running)).then_some(record)
    }
}

/// One server-sent event.
#[derive(Debug, Default, PartialEq, Eq)]
struct Event {
    id: String,
    kind: String,
    data: String,
}

/// Server-sent events out of pieces (WHATWG HTML, section 9.2.6; of ours, lines end with LF).
#[derive(Default)]
struct Events {
    buffer: Vec<u8>,
}

impl Events {
    /// Takes a piece; returns the events that are whole.
    fn push(&mut self, piece: &[u8]) -> Result<Vec<Event>, ClientError> {
        // The end of an event may lie across two pieces.
        let mut from = self.buffer.len().saturating_sub(1);
        self.buffer.extend_from_slice(piece);
        let (mut events, mut start) = (Vec::new(), 0);
        while let Some(at) = self.buffer[from..].windows(2).position(|pair| pair == b"\n\n") {
            events.extend(event(&self.buffer[start..from + at]));
            (start, from) = (from + at + 2, from + at + 2);
        }
        self.buffer.drain(..start);
        if self.buffer.len() > EVENT_BYTES_MAX {
            return Err(ClientError::Unreachable("what comes is too large for a record".into()));
        }
        Ok(events)
    }
}

/// An event's lines; none for comments alone.
fn event(lines: &[u8]) -> Option<Event> {
    let text = String::from_utf8_lossy(lines);
    let mut event = Event::default();
    for line in text.lines() {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "id" => value.clone_into(&mut event.id),
            "event" => value.clone_into(&mut event.kind),
            "data" => event.data.push_str(value),
            _ => {}
        }
    }
    (event != Event::default()).then_some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_wherever_the_pieces_end() {
        let stream = "id: 7\nevent: record\ndata: {\"seq\":8}\n\n:\n\nid: 9\nevent: end\ndata: {}\n\n";
        let one =
            |id: &str, kind: &str, data: &str| Event { id: id.into(), kind: kind.into(), data: data.into() };
        for size in 1..=stream.len() {
            let mut events = Events::default();
            let found: Vec<Event> =
                stream.as_bytes().chunks(size).flat_map(|piece| events.push(piece).unwrap()).collect();
            assert_eq!(found, [one("7", "record", "{\"seq\":8}"), one("9", "end", "{}")], "{size}");
            assert!(events.buffer.is_empty());
        }
    }

    #[test]
    fn a_record_is_shown_once_as_it_runs_and_once_as_it_ended() {
        let mut place = Place { after: 10, ..Place::default() };
        let mut show = |id: u64, seq: u64, running: bool| {
            let data = serde_json::json!({ "seq": seq, "running": running }).to_string();
            place.fresh(Event { id: id.to_string(), kind: "record".into(), data }).is_some()
        };
        assert!(show(10, 12, false));
        assert!(!show(10, 12, false), "it came again after a broken connection");
        assert!(show(10, 11, true));
        assert!(show(12, 11, false));
        assert!(show(13, 13, false));
        assert_eq!((place.after, place.shown.len()), (13, 0));
    }
}
