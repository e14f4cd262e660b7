//! What prepared statements of a session meant when they last ran: the server may follow that still.
//!
//! It plans a statement anew when other schemas are searched than before, or when something was done to what the statement names
//! (plancache.c, `RevalidateCachedQuery`). A relation that came to be and hides another is no such thing: the plan may be kept, and
//! the old relation read.

use std::collections::HashMap;
use std::sync::Arc;

use rustc_hash::FxBuildHasher;

use super::reading::{Context, Reading};

/// Statements remembered; beyond, all are forgotten.
const MAX_PLANS: usize = 1024;

/// By the address of a statement's text, which is kept so that the address is not used again.
#[derive(Debug, Default)]
pub(super) struct Plans(HashMap<usize, Plan, FxBuildHasher>);

#[derive(Debug)]
struct Plan {
    reading: Arc<Reading>,
    /// The schemas that were searched.
    path: Option<Box<[String]>>,
    _text: Arc<[u8]>,
}

impl Plans {
    /// A statement's reading under the present context, with what it may mean instead.
    pub(super) fn follow(
        &mut self,
        text: &Arc<[u8]>,
        reading: Arc<Reading>,
        context: &Context,
    ) -> Arc<Reading> {
        let at = text.as_ptr().addr();
        if let Some(before) = self.0.get(&at).filter(|before| before.path.as_deref() == context.path()) {
            let now = &reading.shape.tables;
            let mut left = before.reading.shape.tables.iter().filter(|table| !now.contains(table));
            if left.any(|table| context.has_relation(table)) {
                let note = "prepared before what its names mean now was there: the plan may have been kept";
                return Arc::new(reading.doubted(note, &before.reading));
            }
        }
        if self.0.len() >= MAX_PLANS {
            self.0.clear();
        }
        let path = context.path().map(Into::into);
        self.0.insert(at, Plan { reading: reading.clone(), path, _text: text.clone() });
        reading
    }
}
