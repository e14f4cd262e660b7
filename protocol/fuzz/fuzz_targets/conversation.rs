//! Any conversation against a strict model of the server (see `tests/model`), and arbitrary messages
//! from both sides, which may be nonsense: no panic, and every execution ends exactly once.
#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use pgwitness_protocol::conversation::{Alters, Ask, Bounds, Conversation, Event, ExecId, Slice};
use pgwitness_protocol::frame::Frame;

#[path = "../../tests/model/mod.rs"]
mod model;

const BOUNDS: Bounds = Bounds { message: 1 << 16, names: 8, memory: 1 << 14, pipeline: 64 };

fuzz_target!(|data: &[u8]| {
    match data.split_first() {
        Some((0..=199, rest)) => model::run(rest),
        Some((_, rest)) => nonsense(rest),
        None => {}
    }
});

/// Messages of one byte of direction and type, one of length, and a body.
fn nonsense(mut data: &[u8]) {
    let mut conversation = Conversation::new(BOUNDS);
    let mut next = 0;
    let mut open = HashSet::new();
    let mut events = Vec::new();
    while let [side, tag, length, rest @ ..] = data {
        let (body, after) = rest.split_at(usize::from(*length % 32).min(rest.len()));
        data = after;
        let failed = if side % 2 == 0 {
            ask(&mut conversation, *tag, body, *side, &mut next, &mut open).is_err()
        } else {
            let wanted = Conversation::want_from_server(*tag, body.len());
            let frame = Frame { tag: *tag, length: body.len(), body: &body[..wanted] };
            conversation.answer(&frame, &mut events).is_err()
        };
        if side % 7 == 0 {
            conversation.skip_ahead(&mut events);
        }
        settle(&mut events, &mut open);
        if failed {
            break;
        }
        assert!(conversation.in_flight() <= BOUNDS.pipeline + 64, "the pipeline grew beyond its bound");
    }
    conversation.abandon(&mut events);
    settle(&mut events, &mut open);
    assert!(open.is_empty(), "executions without an end: {open:?}");
}

fn ask(
    conversation: &mut Conversation,
    tag: u8,
    body: &[u8],
    side: u8,
    next: &mut u64,
    open: &mut HashSet<ExecId>,
) -> Result<(), pgwitness_protocol::ProtocolError> {
    let mut start = || {
        *next += 1;
        open.insert(ExecId(*next));
        ExecId(*next)
    };
    let wanted = conversation.want_from_client(tag, body.len())?;
    let frame = Frame { tag, length: body.len(), body: &body[..wanted] };
    let exec = match conversation.ask(&frame)? {
        Ask::Query(text) => {
            let slices: Vec<_> = (0..text.len() % 3).map(|start_at| Slice { exec: start(), start: start_at }).collect();
            conversation.started_query(slices.iter().copied());
            slices.first().map(|slice| slice.exec)
        }
        Ask::Execute(execution) => {
            let exec = (side % 5 != 0).then(&mut start);
            conversation.started(tag, &execution.portal, exec);
            exec
        }
        Ask::Call(_) => {
            let exec = start();
            conversation.started(tag, b"", Some(exec));
            Some(exec)
        }
        Ask::Pass | Ask::Terminate | Ask::Wait => None,
    };
    if let Some(exec) = exec.filter(|_| side % 11 == 0) {
        let alters = [Alters::Meaning, Alters::Statement(b"a".to_vec()), Alters::Portals, Alters::Everything];
        conversation.alters(exec, alters[usize::from(side / 11) % alters.len()].clone());
    }
    Ok(())
}

fn settle(events: &mut Vec<Event>, open: &mut HashSet<ExecId>) {
    for event in events.drain(..) {
        if let Event::Finished(exec, _) = event {
            assert!(open.remove(&exec), "{exec:?} ended twice, or never began");
        }
    }
}
