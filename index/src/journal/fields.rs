//! What the payloads of all format versions have in common: sessions, shapes, parameters, and what
//! is open when a segment begins.

use super::seqs::SeqSet;
use super::wire::{Input, Malformed, put_bytes, put_i64, put_strings, put_time, put_u64};
use crate::record::{
    Certainty, Class, Digest, ERASABLE_VALUES, Param, Seal, Seals, Seq, Shape, Timestamp, Who,
};

/// Most records one settlement may name.
pub(crate) const SETTLEMENT_SEQS_MAX: usize = 1 << 22;

/// The tags of parameters.
mod param {
    pub(super) const NULL: u8 = 0;
    pub(super) const FALSE: u8 = 1;
    pub(super) const TRUE: u8 = 2;
    pub(super) const INT: u8 = 3;
    pub(super) const FLOAT: u8 = 4;
    pub(super) const TEXT: u8 = 5;
    pub(super) const BYTES: u8 = 6;
}

/// Reads one byte that stands for a value of a list.
pub(super) fn code<T>(
    input: &mut Input<'_>,
    read: fn(u8) -> Option<T>,
    why: &'static str,
) -> Result<T, Malformed> {
    read(input.u8()?).ok_or(Malformed(why))
}

pub(super) fn flag(input: &mut Input<'_>) -> Result<bool, Malformed> {
    match input.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed("a flag is neither 0 nor 1")),
    }
}

pub(super) fn put_who(out: &mut Vec<u8>, who: &Who) {
    let Who {
        user,
        sub,
        iss,
        groups,
        login,
        session,
        auth,
        role,
        db,
        upstream,
        search_path,
        ip,
        app,
        device,
    } = who;
    for text in [user, sub, iss, login, session, role, db, upstream, search_path, ip, app, device] {
        put_bytes(out, text.as_bytes());
    }
    put_strings(out, groups);
    put_u64(out, auth.len() as u64);
    for (key, value) in auth {
        put_bytes(out, key.as_bytes());
        put_bytes(out, value.as_bytes());
    }
}

pub(super) fn who(input: &mut Input<'_>) -> Result<Who, Malformed> {
    // In the order in which they were written; struct expressions are evaluated as listed.
    Ok(Who {
        user: input.string()?,
        sub: input.string()?,
        iss: input.string()?,
        login: input.string()?,
        session: input.string()?,
        role: input.string()?,
        db: input.string()?,
        upstream: input.string()?,
        search_path: input.string()?,
        ip: input.string()?,
        app: input.string()?,
        device: input.string()?,
        groups: input.strings()?,
        auth: input.list(|input| Ok((input.string()?, input.string()?)))?,
    })
}

pub(super) fn put_shape(out: &mut Vec<u8>, shape: &Shape) {
    put_bytes(out, shape.fingerprint.as_bytes());
    put_bytes(out, shape.command.as_bytes());
    out.push(shape.analysis.code());
    put_u64(out, shape.class.len() as u64);
    out.extend(shape.class.iter().map(|class| class.code()));
    let Shape { tables, reads, filters, writes, via, analysis_notes, tags, .. } = shape;
    for list in [tables, reads, filters, writes, via, analysis_notes, tags] {
        put_strings(out, list);
    }
}

pub(super) fn shape(input: &mut Input<'_>) -> Result<Shape, Malformed> {
    Ok(Shape {
        fingerprint: input.string()?,
        command: input.string()?,
        analysis: code(input, Certainty::from_code, "a shape has an unknown certainty")?,
        class: input.list(|input| code(input, Class::from_code, "a shape has an unknown class"))?,
        tables: input.strings()?,
        reads: input.strings()?,
        filters: input.strings()?,
        writes: input.strings()?,
        via: input.strings()?,
        analysis_notes: input.strings()?,
        tags: input.strings()?,
    })
}

pub(super) fn put_param(out: &mut Vec<u8>, value: &Param) {
    match value {
        Param::Null => out.push(param::NULL),
        Param::Bool(false) => out.push(param::FALSE),
        Param::Bool(true) => out.push(param::TRUE),
        Param::Int(number) => {
            out.push(param::INT);
            put_i64(out, *number);
        }
        Param::Float(number) => {
            out.push(param::FLOAT);
            out.extend_from_slice(&number.to_bits().to_le_bytes());
        }
        Param::Text(text) => {
            out.push(param::TEXT);
            put_bytes(out, text.as_bytes());
        }
        Param::Bytes(bytes) => {
            out.push(param::BYTES);
            put_bytes(out, bytes);
        }
    }
}

pub(super) fn one_param(input: &mut Input<'_>) -> Result<Param, Malformed> {
    Ok(match input.u8()? {
        param::NULL => Param::Null,
        param::FALSE => Param::Bool(false),
        param::TRUE => Param::Bool(true),
        param::INT => Param::Int(input.i64()?),
        param::FLOAT => Param::Float(f64::from_bits(u64::from_le_bytes(input.array()?))),
        param::TEXT => Param::Text(input.string()?),
        param::BYTES => Param::Bytes(input.bytes()?.to_vec()),
        _ => return Err(Malformed("a parameter is of an unknown kind")),
    })
}

/// The seals of an entry's values: one byte says which are there, one which were erased.
pub(super) fn put_seals(out: &mut Vec<u8>, seals: &Seals) {
    let bits = |is: fn(&Seal) -> bool| {
        (0..).zip(&seals.0).filter(|(_, seal)| is(seal)).fold(0_u8, |bits, (bit, _)| bits | 1 << bit)
    };
    out.push(bits(|seal| matches!(seal, Seal::Kept(_))));
    out.push(bits(|seal| matches!(seal, Seal::Erased { .. })));
    for seal in &seals.0 {
        match seal {
            Seal::Nothing => {}
            Seal::Kept(salt) => out.extend_from_slice(salt),
            Seal::Erased { commitment, by } => {
                out.extend_from_slice(&commitment.0);
                put_u64(out, by.0);
            }
        }
    }
}

pub(super) fn seals(input: &mut Input<'_>) -> Result<Seals, Malformed> {
    let (kept, erased) = (input.u8()?, input.u8()?);
    if kept & erased != 0 || (kept | erased) >> ERASABLE_VALUES != 0 {
        return Err(Malformed("the seals of an entry are unknown"));
    }
    let mut seals = Seals::default();
    for (bit, seal) in seals.0.iter_mut().enumerate() {
        if kept >> bit & 1 == 1 {
            *seal = Seal::Kept(input.array()?);
        } else if erased >> bit & 1 == 1 {
            *seal = Seal::Erased { commitment: Digest(input.array()?), by: Seq(input.u64()?) };
        }
    }
    Ok(seals)
}

/// What a segment needs to know of those before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Carry {
    /// Frames before this one, in all segments.
    pub(crate) frames: u64,
    /// Time of the last record.
    pub(crate) last_time: Option<Timestamp>,
    /// Records without an end.
    pub(crate) open: SeqSet,
    /// Records whose transaction has not ended.
    pub(crate) unsettled: SeqSet,
}

impl Carry {
    /// Whether all that is open lies before record `next`.
    pub(crate) fn fits(&self, next: Seq) -> bool {
        next > Seq(0)
            && [&self.open, &self.unsettled].iter().all(|set| set.last().is_none_or(|last| last < next))
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_u64(out, self.frames);
        match self.last_time {
            None => out.push(0),
            Some(time) => {
                out.push(1);
                put_time(out, time);
            }
        }
        self.open.put(out);
        self.unsettled.put(out);
    }

    pub(crate) fn get(input: &mut Input<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            frames: input.u64()?,
            last_time: if flag(input)? { Some(input.time()?) } else { None },
            open: SeqSet::get(input)?,
            unsettled: SeqSet::get(input)?,
        })
    }
}
