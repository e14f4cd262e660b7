//! Prepared statements and portals by name, as the server will know them when it reads the next
//! message; with a way back for definitions that the server turned down.

use std::collections::HashMap;
use std::sync::Arc;

use super::{ExecId, OpId, Prepared};

/// What a name stands for, and which operation made it so.
#[derive(Debug, Clone)]
pub(super) struct Entry<T> {
    pub(super) value: T,
    /// The operation that defined it.
    pub(super) by: OpId,
    /// The segment (stretch up to a Sync) of that operation.
    pub(super) segment: u64,
    /// Bytes that the value holds: its text, or its bound values.
    pub(super) size: usize,
}

/// A bound portal.
#[derive(Debug, Clone)]
pub(super) struct Portal {
    /// `None` if its statement is not known here.
    pub(super) prepared: Option<Arc<Prepared>>,
    /// The operation that parsed it.
    pub(super) parsed_by: Option<OpId>,
    /// Body of the Bind message, for its values.
    pub(super) bind: Arc<[u8]>,
    /// The execution it was first run as. A portal runs once; later Executes continue it.
    pub(super) exec: Option<ExecId>,
}

/// What a name stood for before an operation changed it.
#[derive(Debug, Clone)]
pub(super) struct Undo<T> {
    name: Box<[u8]>,
    previous: Option<Entry<T>>,
}

/// PostgreSQL keeps names of statements and portals in tables whose keys are this long: what is
/// beyond does not tell two names apart (NAMEDATALEN - 1, `string_compare` in `dynahash.c`).
const NAME_MAX: usize = 63;

fn key(name: &[u8]) -> &[u8] {
    name.get(..NAME_MAX).unwrap_or(name)
}

/// A table of names.
#[derive(Debug)]
pub(super) struct Names<T> {
    entries: HashMap<Box<[u8]>, Entry<T>>,
    /// Sum of the sizes.
    size: usize,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { entries: HashMap::new(), size: 0 }
    }
}

impl<T> Names<T> {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes that all values would hold if this name got one of `size`; `None` if that would be the only one.
    pub(super) fn size_with(&self, name: &[u8], size: usize) -> Option<usize> {
        let replaced = self.get(name).map_or(0, |entry| entry.size);
        let others = self.size - replaced;
        (others > 0).then_some(others + size)
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<&Entry<T>> {
        self.entries.get(key(name))
    }

    pub(super) fn get_mut(&mut self, name: &[u8]) -> Option<&mut Entry<T>> {
        self.entries.get_mut(key(name))
    }

    pub(super) fn set(&mut self, name: &[u8], entry: Entry<T>) -> Undo<T> {
        let name = key(name);
        self.size += entry.size;
        // An unnamed or known name keeps its key: no allocation for the common re-bind.
        match self.entries.get_mut(name) {
            Some(slot) => {
                let previous = std::mem::replace(slot, entry);
                self.size -= previous.size;
                Undo { name: name.into(), previous: Some(previous) }
            }
            None => {
                self.entries.insert(name.into(), entry);
                Undo { name: name.into(), previous: None }
            }
        }
    }

    pub(super) fn remove(&mut self, name: &[u8]) -> Option<Undo<T>> {
        let name = key(name);
        let previous = self.entries.remove(name)?;
        self.size -= previous.size;
        Some(Undo { name: name.into(), previous: Some(previous) })
    }

    /// Takes back what operation `by` did. `later` are the undos of operations after it: one of
    /// them may remember `by`'s entry as its own past.
    pub(super) fn undo<'u>(&mut self, undo: Undo<T>, by: OpId, later: impl Iterator<Item = &'u mut Undo<T>>)
    where
        T: 'u,
    {
        for next in later {
            if next.name == undo.name {
                // The first later change of this name inherits our past.
                next.previous = undo.previous;
                return;
            }
        }
        let ours = self.entries.get(&undo.name).is_none_or(|entry| entry.by == by);
        if ours {
            self.size += undo.previous.as_ref().map_or(0, |entry| entry.size);
            let gone = match undo.previous {
                Some(previous) => self.entries.insert(undo.name, previous),
                None => self.entries.remove(&undo.name),
            };
            self.size -= gone.map_or(0, |entry| entry.size);
        }
    }

    pub(super) fn for_each(&mut self, visit: impl FnMut(&mut T)) {
        self.entries.values_mut().map(|entry| &mut entry.value).for_each(visit);
    }

    /// Takes the entries out that `leave` points at.
    pub(super) fn drain_matching(&mut self, mut leave: impl FnMut(&[u8], &Entry<T>) -> bool) -> Vec<T> {
        let gone = self.entries.extract_if(|name, entry| leave(name, entry));
        let mut freed = 0;
        let values = gone
            .map(|(_, entry)| {
                freed += entry.size;
                entry.value
            })
            .collect();
        self.size -= freed;
        values
    }
}

impl<T> Undo<T> {
    pub(super) fn previous(&self) -> Option<&T> {
        self.previous.as_ref().map(|entry| &entry.value)
    }
}

impl Undo<Portal> {
    /// A portal that has run needs its bound values no more, even if it comes back.
    pub(super) fn lighten(&mut self) {
        if let Some(entry) = self.previous.as_mut().filter(|entry| entry.value.exec.is_some()) {
            entry.value.bind = Arc::default();
            entry.size = 0;
        }
    }
}
