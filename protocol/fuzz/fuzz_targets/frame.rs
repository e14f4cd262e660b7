//! A stream in arbitrary pieces against a cut of the whole: the same messages, the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgwitness_protocol::frame::{FrameBuffer, HEADER};
use pgwitness_protocol::{backend, frontend};

/// Beyond what it must hold, the buffer may take this much.
const SLACK: usize = 256 * 1024;

fuzz_target!(|data: &[u8]| {
    let [want, piece, stream @ ..] = data else { return };
    let (want, piece) = (usize::from(*want), usize::from(*piece) + 1);
    let expected = reference(stream, want);
    let mut buffer = FrameBuffer::new();
    let (mut seen, mut passed, mut refused) = (Vec::new(), Vec::new(), false);
    'stream: for (number, chunk) in stream.chunks(piece).enumerate() {
        buffer.space(16).extend_from_slice(chunk);
        loop {
            match buffer.next(|_, _| Ok(want)) {
                Ok(Some(frame)) => seen.push((frame.tag, frame.length, frame.body.to_vec())),
                Ok(None) => break,
                Err(_) => {
                    refused = true;
                    break 'stream;
                }
            }
        }
        // Some writes are short.
        let count = if number % 3 == 0 { buffer.cleared().len() / 2 } else { buffer.cleared().len() };
        passed.extend_from_slice(&buffer.cleared()[..count]);
        buffer.passed(count);
        assert!(buffer.len() <= 2 * (HEADER + want + piece) + SLACK, "the buffer holds what it should have passed");
    }
    passed.extend_from_slice(buffer.cleared());
    assert_eq!((seen, refused), expected);
    assert!(stream.starts_with(&passed), "bytes were changed on their way");
    for body in [stream, stream.get(..want.min(stream.len())).unwrap_or_default()] {
        read_everything(body);
    }
});

type Seen = Vec<(u8, usize, Vec<u8>)>;

/// The messages of a whole stream as far as they are there, and whether a length is refused.
fn reference(mut rest: &[u8], want: usize) -> (Seen, bool) {
    let mut seen = Seen::new();
    while let Some((header, body)) = rest.split_at_checked(HEADER) {
        let declared = i32::from_be_bytes(header[1..].try_into().expect("four bytes"));
        if declared < 4 {
            return (seen, true);
        }
        let length = declared as usize - 4;
        let Some(wanted) = body.get(..want.min(length)) else { break };
        seen.push((header[0], length, wanted.to_vec()));
        rest = body.get(length..).unwrap_or_default();
    }
    (seen, false)
}

/// Strict readers refuse or read; they never panic, and what they read lies within the message.
fn read_everything(body: &[u8]) {
    _ = frontend::query(body);
    _ = frontend::parse(body);
    _ = frontend::execute(body);
    _ = frontend::target(b'D', body);
    _ = frontend::function_call(body);
    _ = frontend::password(body);
    if let Ok(bind) = frontend::bind(body) {
        let held: usize = bind.values.iter().filter_map(|value| value.bytes).map(<[u8]>::len).sum();
        assert!(held + bind.portal.len() + bind.statement.len() < body.len());
    }
    _ = backend::ready(body);
    _ = backend::command_complete(body);
    _ = backend::report(body);
    _ = backend::parameter_status(body);
    _ = backend::parameter_description(body);
    _ = backend::key_data(body);
}
