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

/// A table of names. The empty one, which most clients use most, has a place of its own.
#[derive(Debug)]
pub(super) struct Names<T> {
    unnamed: Option<Entry<T>>,
    named: HashMap<Box<[u8]>, Entry<T>>,
    /// Sum of the sizes.
    size: usize,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { unnamed: None, named: HashMap::new(), size: 0 }
    }
}

impl<T> Names<T> {
    pub(super) fn len(&self) -> usize {
        self.named.len() + usize::from(self.unnamed.is_some())
    }

    /// Bytes that all values would hold if this name got one of `size`; `None` if that would be the only one.
    pub(super) fn size_with(&self, name: &[u8], size: usize) -> Option<usize> {
        let replaced = self.get(name).map_or(0, |entry| entry.size);
        let others = self.size - replaced;
        (others > 0).then_some(others + size)
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<&Entry<T>> {
        match key(name) {
            b"" => self.unnamed.as_ref(),
            name => self.named.get(name),
        }
    }

    pub(super) fn get_mut(&mut self, name: &[u8]) -> Option<&mut Entry<T>> {
        match key(name) {
            b"" => self.unnamed.as_mut(),
            name => self.named.get_mut(name),
        }
    }

    pub(super) fn set(&mut self, name: &[u8], entry: Entry<T>) -> Undo<T> {
        let name = key(name);
        self.size += entry.size;
        let previous = match name {
            b"" => self.unnamed.replace(entry),
            name => match self.named.get_mut(name) {
                // A known name keeps its key.
                Some(slot) => Some(std::mem::replace(slot, entry)),
                None => self.named.insert(name.into(), entry),
            },
        };
        self.size -= previous.as_ref().map_or(0, |entry| entry.size);
        Undo { name: name.into(), previous }
    }

    pub(super) fn remove(&mut self, name: &[u8]) -> Option<Undo<T>> {
        let name = key(name);
        let previous = match name {
            b"" => self.unnamed.take()?,
            name => self.named.remove(name)?,
        };
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
        let ours = self.get(&undo.name).is_none_or(|entry| entry.by == by);
        if ours {
            match undo.previous {
                Some(previous) => drop(self.set(&undo.name, previous)),
                None => drop(self.remove(&undo.name)),
            }
        }
    }

    pub(super) fn for_each(&mut self, visit: impl FnMut(&mut T)) {
        self.unnamed.iter_mut().chain(self.named.values_mut()).map(|entry| &mut entry.value).for_each(visit);
    }

    /// Takes the entries out that `leaves` points at, and hands their values over.
    pub(super) fn drain_matching(
        &mut self,
        mut leaves: impl FnMut(&[u8], &Entry<T>) -> bool,
        mut take: impl FnMut(T),
    ) {
        if let Some(entry) = self.unnamed.take_if(|entry| leaves(b"", entry)) {
            self.size -= entry.size;
            take(entry.value);
        }
        if self.named.is_empty() {
            return;
        }
        for (_, entry) in self.named.extract_if(|name, entry| leaves(name, entry)) {
            self.size -= entry.size;
            take(entry.value);
        }
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
