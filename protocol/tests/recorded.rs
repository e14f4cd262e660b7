//! Recorded sessions of real drivers (`tests/data/sessions`), heard in every piece: however the bytes
//! of a side are cut, the events are the same, and those of the golden file.
//!
//! After a change that is meant, `PGWITNESS_BLESS=1 cargo test -p pgwitness-protocol --test recorded`
//! writes the golden files again.
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

use std::fs;
use std::path::{Path, PathBuf};

use pgwitness_protocol::conversation::{Alters, Ask, Bounds, Conversation, Event, ExecId, Slice};
use pgwitness_protocol::frame::FrameBuffer;
use proptest::prelude::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

type Piece = (Side, Vec<u8>);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/sessions")
}

/// Name and pieces of every session.
fn sessions() -> Vec<(String, Vec<Piece>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "session") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            found.push((name, fs::read_to_string(&path).unwrap().lines().map(piece).collect()));
        }
    }
    assert!(found.len() >= 7, "the recorded sessions are gone");
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found
}

fn piece(line: &str) -> Piece {
    let side = if line.starts_with('>') { Side::Client } else { Side::Server };
    let mut bytes = Vec::new();
    let mut parts = line[2..].split("\\x");
    bytes.extend(parts.next().unwrap().as_bytes());
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend(&part.as_bytes()[2..]);
    }
    (side, bytes)
}

/// Hears a session as the gateway does, and writes down what it would record.
struct Ear {
    conversation: Conversation,
    client: FrameBuffer,
    server: FrameBuffer,
    told: Vec<String>,
    /// Begun, ended.
    ends: Vec<u32>,
}

impl Ear {
    fn new() -> Self {
        let bounds = Bounds { message: 1 << 20, names: 1000, memory: 1 << 24, pipeline: 1000 };
        Self {
            conversation: Conversation::new(bounds),
            client: FrameBuffer::new(),
            server: FrameBuffer::new(),
            told: Vec::new(),
            ends: Vec::new(),
        }
    }

    fn hear(&mut self, side: Side, bytes: &[u8]) {
        match side {
            Side::Client => {
                self.client.space(bytes.len()).extend_from_slice(bytes);
                while self.hear_client() {}
            }
            Side::Server => {
                self.server.space(bytes.len()).extend_from_slice(bytes);
                while self.hear_server() {
                    // What had to wait for this answer.
                    while self.hear_client() {}
                }
            }
        }
    }

    fn begin(&mut self, what: &str) -> ExecId {
        self.ends.push(0);
        self.told.push(format!("#{} {what}", self.ends.len()));
        ExecId(self.ends.len() as u64)
    }

    fn hear_client(&mut self) -> bool {
        let Self { client, conversation, .. } = self;
        let Some(frame) = client.next(|tag, length| conversation.want_from_client(tag, length)).unwrap()
        else {
            return false;
        };
        let (tag, length) = (frame.tag, frame.length);
        let asked = match conversation.ask(&frame).unwrap() {
            Ask::Pass | Ask::Terminate => None,
            Ask::Wait => {
                client.hold_back(length);
                return false;
            }
            Ask::Query(text) => Some((String::from_utf8(text.to_vec()).unwrap(), None)),
            Ask::Execute(execution) => {
                let text = execution.prepared.as_ref().map_or(b"?".as_slice(), |prepared| &prepared.text);
                let values = execution.bind().map_or(0, |bind| bind.values().count());
                Some((format!("{} ({values} values)", String::from_utf8_lossy(text)), Some(execution.portal)))
            }
            Ask::Call(_) => Some(("call".to_owned(), Some(Box::default()))),
        };
        if let Some((text, portal)) = asked {
            self.start(tag, &text, portal);
        }
        let mut events = Vec::new();
        self.conversation.skip_ahead(&mut events);
        self.tell(events);
        let count = self.client.cleared().len();
        self.client.passed(count);
        true
    }

    fn start(&mut self, tag: u8, text: &str, portal: Option<Box<[u8]>>) {
        let copies = text.to_lowercase().starts_with("copy ") && text.to_lowercase().contains("from stdin");
        let exec = match portal {
            Some(portal) => {
                let exec = self.begin(text);
                self.conversation.started(tag, &portal, Some(exec));
                Some(exec)
            }
            None => {
                let mut slices = Vec::new();
                let mut start = 0;
                for part in text.split(';') {
                    if !part.trim().is_empty() {
                        slices.push(Slice { exec: self.begin(part.trim()), start });
                    }
                    start += part.chars().count() + 1;
                }
                self.conversation.started_query(slices.iter().copied());
                slices.first().map(|slice| slice.exec)
            }
        };
        if let Some(exec) = exec.filter(|_| copies) {
            self.conversation.alters(exec, Alters::Meaning);
        }
    }

    fn hear_server(&mut self) -> bool {
        let Some(frame) =
            self.server.next(|tag, length| Ok(Conversation::want_from_server(tag, length))).unwrap()
        else {
            return false;
        };
        let mut events = Vec::new();
        self.conversation.answer(&frame, &mut events).unwrap();
        self.tell(events);
        let count = self.server.cleared().len();
        self.server.passed(count);
        true
    }

    fn tell(&mut self, events: Vec<Event>) {
        for event in events {
            self.told.push(match event {
                Event::Finished(ExecId(exec), end) => {
                    self.ends[exec as usize - 1] += 1;
                    let rows = end.rows.map(|rows| format!(" {rows} rows")).unwrap_or_default();
                    let error = end.report.map(|report| report.code);
                    let error = error.map(|code| format!(" {code}")).unwrap_or_default();
                    format!("#{exec} {:?} {}{rows}{error}, {} bytes", end.how, end.command, end.bytes)
                }
                other => format!("{other:?}"),
            });
        }
    }
}

fn events<'a>(pieces: impl IntoIterator<Item = (Side, &'a [u8])>) -> Vec<String> {
    let mut ear = Ear::new();
    pieces.into_iter().for_each(|(side, bytes)| ear.hear(side, bytes));
    assert!(ear.conversation.is_idle(), "the session has ended and something is awaited");
    assert_eq!(ear.ends, vec![1; ear.ends.len()], "executions without one end");
    ear.told
}

fn whole(pieces: &[Piece]) -> impl Iterator<Item = (Side, &[u8])> {
    pieces.iter().map(|(side, bytes)| (*side, bytes.as_slice()))
}

#[test]
fn recorded_sessions_are_understood_as_they_were() {
    for (name, pieces) in sessions() {
        let told = events(whole(&pieces)).join("\n") + "\n";
        let golden = folder().join(format!("{name}.events"));
        if std::env::var_os("PGWITNESS_BLESS").is_some() {
            fs::write(&golden, &told).unwrap();
        }
        assert_eq!(told, fs::read_to_string(&golden).unwrap(), "{name}");
    }
}

#[test]
fn a_cut_anywhere_and_cuts_everywhere_change_no_event() {
    for (name, pieces) in sessions() {
        let expected = events(whole(&pieces));
        let bytewise = pieces.iter().flat_map(|(side, bytes)| bytes.chunks(1).map(|byte| (*side, byte)));
        assert_eq!(events(bytewise), expected, "{name}, byte by byte");
        for (cut, (side, bytes)) in pieces.iter().enumerate() {
            for at in 1..bytes.len() {
                let (left, right) = bytes.split_at(at);
                let before = whole(&pieces[..cut]);
                let after = whole(&pieces[cut + 1..]);
                let told = events(before.chain([(*side, left), (*side, right)]).chain(after));
                assert_eq!(told, expected, "{name}, piece {cut} cut at {at}");
            }
        }
    }
}

#[test]
fn every_prefix_tells_the_beginning_of_the_events_and_one_end_for_each_execution() {
    for (name, pieces) in sessions() {
        let expected = events(whole(&pieces));
        for (cut, (side, bytes)) in pieces.iter().enumerate() {
            for at in 0..bytes.len() {
                let mut ear = Ear::new();
                whole(&pieces[..cut]).for_each(|(side, bytes)| ear.hear(side, bytes));
                ear.hear(*side, &bytes[..at]);
                assert!(expected.starts_with(&ear.told), "{name}, ended in piece {cut} at {at}");
                let mut events = Vec::new();
                ear.conversation.abandon(&mut events);
                ear.tell(events);
                assert_eq!(ear.ends, vec![1; ear.ends.len()], "{name}, ended in piece {cut} at {at}");
            }
        }
    }
}

proptest! {
    #[test]
    fn random_cuts_change_no_event(lengths in prop::collection::vec(1usize..40, 1..30)) {
        for (name, pieces) in sessions() {
            let mut lengths = lengths.iter().cycle();
            let mut cut = Vec::new();
            for (side, bytes) in whole(&pieces) {
                let mut rest = bytes;
                while !rest.is_empty() {
                    let (left, right) = rest.split_at((*lengths.next().unwrap()).min(rest.len()));
                    cut.push((side, left));
                    rest = right;
                }
            }
            prop_assert_eq!(events(cut), events(whole(&pieces)), "{}", name);
        }
    }
}
