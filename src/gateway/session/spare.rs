//! Buffers that idle connections have given back, for the next that reads: a few for each thread, so that
//! whoever rests between any two statements costs no memory and takes no new.

use std::cell::RefCell;

use super::{BytesMut, FrameBuffer, READ_MIN};

const SPARE_MAX: usize = 32;

thread_local! {
    static SPARE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn give(memory: Option<BytesMut>) {
    if let Some(memory) = memory.filter(|memory| memory.capacity() <= READ_MIN) {
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARE_MAX {
                spare.push(memory);
            }
        });
    }
}

pub(super) fn space(buffer: &mut FrameBuffer, room: usize) -> &mut BytesMut {
    if buffer.rests()
        && let Some(memory) = SPARE.with_borrow_mut(Vec::pop)
    {
        buffer.reuse(memory);
    }
    buffer.space(room)
}
