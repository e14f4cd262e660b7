//! One message, cut out of the stream by its declared length.
//!
//! A [`FrameBuffer`] holds what was read from one side and not yet passed to the other. It looks at
//! one message at a time; of each it holds no more than the reader asks for, the rest passes as it
//! comes. So a row of 1 GB needs no more memory than the buffer.
//!
//! Source: PostgreSQL documentation, "Message Formats"; `pq_getmessage` in
//! `src/backend/libpq/pqcomm.c`.

use bytes::{Buf, BytesMut};

use crate::ProtocolError;

/// Type byte and length word.
pub const HEADER: usize = 5;

/// After passing more than this, an empty buffer gives its memory back.
const KEEP_CAPACITY: usize = 64 * 1024;

/// One message as seen in the buffer: its type, its declared body length, and the part of the body
/// that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Message type.
    pub tag: u8,
    /// Length of the whole body, without header.
    pub length: usize,
    /// The beginning of the body, as much as was wanted; all of it if it is no longer than that.
    pub body: &'a [u8],
}

impl Frame<'_> {
    /// Whether [`Frame::body`] is the whole body.
    pub fn is_whole(&self) -> bool {
        self.body.len() == self.length
    }
}

/// Bytes from one peer, looked at message by message, then passed on exactly as they came.
///
/// The bytes before the mark are cleared to go ([`FrameBuffer::cleared`]); the reader moves the
/// mark by [`FrameBuffer::next`], the relay removes what it has written by [`FrameBuffer::passed`].
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: BytesMut,
    /// Bytes at the front that were looked at and may go.
    cleared: usize,
    /// Bytes of the last message that have not come yet and need no look.
    unseen: usize,
}

impl FrameBuffer {
    /// An empty buffer. Memory is taken at the first read.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where to read into, with room for at least `room` bytes.
    pub fn space(&mut self, room: usize) -> &mut BytesMut {
        if self.bytes.capacity() - self.bytes.len() < room {
            self.bytes.reserve(room);
        }
        &mut self.bytes
    }

    /// Bytes held.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether the stream stands between two messages, with nothing half read.
    pub fn is_at_boundary(&self) -> bool {
        self.unseen == 0 && self.cleared == self.bytes.len()
    }

    /// Whether what was cleared ends in the middle of a message.
    pub fn is_mid_message(&self) -> bool {
        self.unseen > 0
    }

    /// Looks at the next message. `want` says how many bytes of its body are needed (capped by its
    /// length). `None`: more bytes must come first.
    ///
    /// # Errors
    /// A declared length below 4, or a body of which `want` forbids the size.
    pub fn next(
        &mut self,
        want: impl FnOnce(u8, usize) -> Result<usize, ProtocolError>,
    ) -> Result<Option<Frame<'_>>, ProtocolError> {
        self.pass_unseen();
        if self.unseen > 0 {
            return Ok(None);
        }
        let Some((tag, length)) = self.peek()? else { return Ok(None) };
        let wanted = want(tag, length)?.min(length);
        let start = self.cleared + HEADER;
        if self.bytes.len() < start + wanted {
            return Ok(None);
        }
        self.cleared = start + wanted;
        self.unseen = length - wanted;
        self.pass_unseen();
        // `start..start + wanted` was checked against the length above.
        let body = self.bytes.get(start..start + wanted).unwrap_or_default();
        Ok(Some(Frame { tag, length, body }))
    }

    /// Clears all messages of type `tag` that stand next in a row, of whose bodies nothing is needed: the
    /// rows of a result, the data of a COPY. Says how many, and how long their bodies are together.
    ///
    /// # Errors
    /// A declared length below 4.
    pub fn next_run(&mut self, tag: u8) -> Result<(u64, u64), ProtocolError> {
        let (mut count, mut bytes) = (0, 0);
        self.pass_unseen();
        while self.unseen == 0
            && let Some((found, length)) = self.peek()?
            && found == tag
        {
            self.cleared += HEADER;
            self.unseen = length;
            self.pass_unseen();
            count += 1;
            bytes += length as u64;
        }
        Ok((count, bytes))
    }

    /// Type and body length of the next message, if its header is here.
    ///
    /// # Errors
    /// A declared length below 4.
    pub fn peek(&self) -> Result<Option<(u8, usize)>, ProtocolError> {
        let Some(header) = self.bytes.get(self.cleared..).and_then(|rest| rest.first_chunk::<HEADER>())
        else {
            return Ok(None);
        };
        let [tag, a, b, c, d] = *header;
        let declared = u32::from_be_bytes([a, b, c, d]);
        match declared.checked_sub(4) {
            Some(length) if declared <= i32::MAX as u32 => Ok(Some((tag, length as usize))),
            _ => Err(ProtocolError::Length { tag, length: declared }),
        }
    }

    fn pass_unseen(&mut self) {
        let here = (self.bytes.len() - self.cleared).min(self.unseen);
        self.cleared += here;
        self.unseen -= here;
    }

    /// Removes the next message, of which [`FrameBuffer::next`] cleared the last `length` body
    /// bytes, so that it is not passed on. Only for a whole message at the very end of the cleared part.
    pub fn withdraw(&mut self, length: usize) {
        let size = HEADER + length;
        debug_assert!(self.cleared >= size && self.unseen == 0);
        let tail = self.bytes.split_off(self.cleared);
        self.cleared -= size;
        self.bytes.truncate(self.cleared);
        self.bytes.unsplit(tail);
    }

    /// Takes back the clearance of the last whole message: it will be looked at again.
    pub fn hold_back(&mut self, length: usize) {
        debug_assert!(self.cleared >= HEADER + length && self.unseen == 0);
        self.cleared -= HEADER + length;
    }

    /// The bytes that may go, in order.
    pub fn cleared(&self) -> &[u8] {
        self.bytes.get(..self.cleared).unwrap_or_default()
    }

    /// Says that `count` cleared bytes were written.
    pub fn passed(&mut self, count: usize) {
        debug_assert!(count <= self.cleared);
        self.bytes.advance(count);
        self.cleared -= count;
        if self.bytes.is_empty() && self.bytes.capacity() > KEEP_CAPACITY {
            self.bytes = BytesMut::new();
        }
    }

    /// Gives its memory away if nothing is held (an idle connection).
    pub fn rest(&mut self) -> Option<BytesMut> {
        let rests = self.bytes.is_empty() && self.bytes.capacity() > 0;
        rests.then(|| std::mem::take(&mut self.bytes))
    }

    /// Whether it has no memory, and takes some at the next read.
    pub fn rests(&self) -> bool {
        self.bytes.is_empty() && self.bytes.capacity() == 0
    }

    /// Takes over memory that another one gave away.
    pub fn reuse(&mut self, memory: BytesMut) {
        debug_assert!(self.rests() && memory.is_empty());
        self.bytes = memory;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend((body.len() as u32 + 4).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn a_run_of_messages_is_counted_alike_however_it_comes() {
        let rows =
            [message(b'D', b"one"), message(b'D', b""), message(b'D', &[b'x'; 300]), message(b'C', b"\0")];
        let stream = rows.concat();
        for first in 0..stream.len() {
            let mut buffer = FrameBuffer::new();
            let (mut count, mut bytes) = (0, 0);
            for part in [&stream[..first], &stream[first..]] {
                buffer.space(part.len()).extend_from_slice(part);
                let run = buffer.next_run(b'D').unwrap();
                (count, bytes) = (count + run.0, bytes + run.1);
            }
            assert_eq!((count, bytes), (3, 303), "after {first} bytes");
            assert_eq!(buffer.next(|_, _| Ok(1)).unwrap().unwrap().tag, b'C');
            assert_eq!(buffer.cleared(), stream);
        }
    }

    #[test]
    fn a_message_is_cut_by_its_declared_length() {
        let mut buffer = FrameBuffer::new();
        let mut stream = message(b'Q', b"SELECT 1\0");
        stream.extend(message(b'S', b""));
        buffer.space(64).extend_from_slice(&stream);
        let frame = buffer.next(|_, _| Ok(usize::MAX)).unwrap().unwrap();
        assert_eq!((frame.tag, frame.body), (b'Q', &b"SELECT 1\0"[..]));
        assert_eq!(buffer.next(|_, _| Ok(0)).unwrap().unwrap().tag, b'S');
        assert_eq!(buffer.cleared(), stream);
        assert!(buffer.is_at_boundary());
    }

    #[test]
    fn a_length_below_four_is_an_error() {
        let mut buffer = FrameBuffer::new();
        buffer.space(64).extend_from_slice(b"Q\0\0\0\x03");
        assert!(matches!(buffer.next(|_, _| Ok(0)), Err(ProtocolError::Length { .. })));
    }

    #[test]
    fn a_row_larger_than_the_buffer_passes_piece_by_piece() {
        let mut buffer = FrameBuffer::new();
        buffer.space(64).extend_from_slice(b"D\0\0\x10\0xxxx");
        assert_eq!(buffer.next(|_, _| Ok(0)).unwrap().unwrap().length, 0x1000 - 4);
        assert_eq!(buffer.cleared().len(), 9);
        buffer.passed(9);
        buffer.space(8192).extend_from_slice(&vec![b'x'; 0x1000 - 8]);
        buffer.space(8192).extend_from_slice(&message(b'Z', b"I"));
        assert_eq!(buffer.next(|_, _| Ok(1)).unwrap().unwrap().body, b"I");
    }

    #[test]
    fn a_withdrawn_message_leaves_its_neighbours_untouched() {
        let mut buffer = FrameBuffer::new();
        let (first, second, third) = (message(b'1', b"a"), message(b'K', b"secret"), message(b'Z', b"I"));
        buffer.space(64).extend_from_slice(&[first.clone(), second, third.clone()].concat());
        buffer.next(|_, _| Ok(9)).unwrap();
        let length = buffer.next(|_, _| Ok(9)).unwrap().unwrap().length;
        buffer.withdraw(length);
        buffer.next(|_, _| Ok(9)).unwrap();
        assert_eq!(buffer.cleared(), [first, third].concat());
    }

    proptest! {
        #[test]
        fn every_split_of_a_stream_yields_the_same_messages(
            messages in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 1..20),
            cuts in prop::collection::vec(1usize..17, 1..60),
            want in 0usize..50,
        ) {
            let stream: Vec<u8> = messages.iter().flat_map(|(tag, body)| message(*tag, body)).collect();
            let mut buffer = FrameBuffer::new();
            let (mut seen, mut passed, mut at) = (Vec::new(), Vec::new(), 0);
            let mut cuts = cuts.iter().cycle();
            while at < stream.len() {
                let end = (at + cuts.next().unwrap()).min(stream.len());
                buffer.space(16).extend_from_slice(&stream[at..end]);
                at = end;
                while let Some(frame) = buffer.next(|_, _| Ok(want)).unwrap() {
                    seen.push((frame.tag, frame.length, frame.body.to_vec()));
                }
                let count = buffer.cleared().len();
                passed.extend_from_slice(buffer.cleared());
                buffer.passed(count);
            }
            let expected: Vec<_> = messages.iter()
                .map(|(tag, body)| (*tag, body.len(), body[..want.min(body.len())].to_vec())).collect();
            prop_assert_eq!(seen, expected);
            prop_assert_eq!(passed, stream);
        }
    }
}
