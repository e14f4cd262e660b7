//! Which segments are joined. Only neighbours in time, so that a segment holds a time of its own and
//! old ones are left alone by who asks for the newest. Segments of more than [`SEALED`] documents are
//! left as they are for ever.

/// So many neighbours of about one size make one.
const FAN: usize = 8;
/// The sizes below which segments are of one kind, from the smallest.
const SIZES: [u32; 5] = [64, 512, 4_096, 32_768, SEALED];
/// A larger segment is not joined any more: the result of a merge has about eight times as many
/// documents.
const SEALED: u32 = 300_000;

/// A segment.
#[derive(Debug, Clone)]
pub(crate) struct Piece<T> {
    pub(crate) id: T,
    /// Its newest record.
    pub(crate) last: u64,
    pub(crate) documents: u32,
}

/// The pieces to be joined next, if any.
pub(crate) fn neighbours<T>(mut pieces: Vec<Piece<T>>) -> Option<Vec<T>> {
    pieces.sort_by_key(|piece| piece.last);
    let ranges = SIZES.iter().zip(std::iter::once(&0).chain(&SIZES));
    let (start, end) = ranges.into_iter().find_map(|(most, less)| run(&pieces, *less, *most))?;
    Some(pieces.drain(start..=end).map(|piece| piece.id).collect())
}

/// The first and last of [`FAN`] pieces of more than `less` and at most `most` documents, with nothing
/// larger between them.
fn run<T>(pieces: &[Piece<T>], less: u32, most: u32) -> Option<(usize, usize)> {
    let mut members = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        match piece.documents {
            documents if documents > most => members.clear(),
            documents if documents > less => members.push(index),
            _ => {}
        }
        if let [first, .., last] = members.as_slice()
            && members.len() == FAN
        {
            return Some((*first, *last));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes that remain after each of `sizes` was added, one after the other.
    fn after(sizes: impl Iterator<Item = u32>) -> Vec<u32> {
        let mut pieces: Vec<Piece<u64>> = Vec::new();
        for (last, documents) in (1..).zip(sizes) {
            pieces.push(Piece { id: last, last, documents });
            while let Some(ids) = neighbours(pieces.clone()) {
                let (joined, rest): (Vec<_>, Vec<_>) =
                    pieces.into_iter().partition(|piece| ids.contains(&piece.id));
                let between = joined[0].last..=joined[joined.len() - 1].last;
                assert!(rest.iter().all(|piece| !between.contains(&piece.last)), "{joined:?} {rest:?}");
                pieces = rest;
                pieces.push(Piece {
                    id: *between.end(),
                    last: *between.end(),
                    documents: joined.iter().map(|piece| piece.documents).sum(),
                });
                pieces.sort_by_key(|piece| piece.last);
            }
        }
        pieces.iter().map(|piece| piece.documents).collect()
    }

    #[test]
    fn segments_are_joined_with_their_neighbours_until_they_are_large() {
        assert_eq!(after([5; 7].into_iter()), [5; 7]);
        assert_eq!(after([5; 8].into_iter()), [40]);
        let many = after(std::iter::repeat_n(20_000, 1_000));
        assert!(many.len() < 30, "{many:?}");
        assert!(many.iter().all(|documents| *documents < 9 * SEALED), "{many:?}");
        assert!(many.iter().any(|documents| *documents > 1_000_000), "{many:?}");
        assert_eq!(after([1, SEALED + 1].into_iter().cycle().take(40)).len(), 40);
    }
}
