//! What is kept of the tree beside the journal, in its folder `tiles`:
//!
//! ```text
//! checkpoint               the last checkpoint that was published
//! checkpoints/SIZE         earlier ones that were kept, by the size of their tree (20 digits)
//! key                      the verifier key
//! marks                    where segments of the journal begin in the tree, a JSON object a line
//! tile/L/N[.p/W]           c2sp.org/tlog-tiles; see below
//! leaves/SEGMENT           what is kept of a segment whose records were dropped: its mark and its leaves
//! ```
//! Of level 0, which is 32 bytes for each entry, only the partial tiles at the beginnings of segments are
//! kept: the others follow from the journal, and `verify` writes them all where they are wanted. Tiles of
//! higher levels are kept as they become full, together 0.13 bytes an entry. Everything but the
//! checkpoints, the key and the leaves of dropped segments can be made again from the journal.
//!
//! The leaves of a segment: `magic 8 | segment u64 | first seq u64 | leaves before u64 | leaves u64`, little
//! endian, then the hashes.

use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::note::{Note, NoteError, VerifierKey};
use super::tile::{HASH_BYTES, TILE_LEVELS, TILE_WIDTH, Tile, hash_bytes, read_hashes};
use crate::record::Digest;
use crate::storage::{ReadFile, Storage};

/// Name of the folder beside the journal's segments.
pub const FOLDER: &str = "tiles";

const CHECKPOINT: &str = "checkpoint";
const CHECKPOINTS: &str = "checkpoints";
const KEY: &str = "key";
const MARKS: &str = "marks";
const LEAVES: &str = "leaves";
const LEAVES_MAGIC: [u8; 8] = *b"PGWleav\n";
const LEAVES_HEADER: u64 = 40;
/// Hashes written or read at once.
const LEAVES_CHUNK: usize = 8192;
/// Most bytes of one of our files that is read.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Digits of a size in a file name: sorting names sorts sizes.
const SIZE_DIGITS: usize = 20;

/// Where a segment of the journal begins in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// Number of the segment.
    pub segment: u64,
    /// The number of the first record in it, or of the next one.
    pub seq: u64,
    /// Leaves before it.
    pub size: u64,
}

/// Why the tree's files could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk.
    #[error("could not {action} {FOLDER}/{file}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        file: String,
        /// Why not.
        source: io::Error,
    },
    /// A note or a key that cannot be read.
    #[error("{FOLDER}/{file} cannot be used: {source}")]
    Note {
        /// Which.
        file: String,
        /// What is wrong.
        source: NoteError,
    },
    /// A file that is not as we write it.
    #[error("{FOLDER}/{file} is damaged")]
    Damaged {
        /// Which.
        file: String,
    },
}

impl StoreError {
    fn damaged(file: impl Into<String>) -> Self {
        Self::Damaged { file: file.into() }
    }
}

fn io_error(action: &'static str, file: &str) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { action, file: file.to_owned(), source }
}

/// The folder.
#[derive(Clone)]
pub struct TileStore {
    folder: Arc<dyn Storage>,
}

impl TileStore {
    /// The folder beside a journal, if there is one.
    ///
    /// # Errors
    /// The disk.
    pub fn open(journal: &dyn Storage) -> Result<Option<Self>, StoreError> {
        match journal.folder(FOLDER) {
            Ok(folder) => Ok(Some(Self { folder })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("open", "")(error)),
        }
    }

    /// The folder beside a journal, made if missing.
    ///
    /// # Errors
    /// The disk.
    pub fn create(journal: &dyn Storage) -> Result<Self, StoreError> {
        Ok(Self { folder: journal.make_folder(FOLDER).map_err(io_error("make", ""))? })
    }

    /// Any other folder, for an export.
    pub fn in_folder(folder: Arc<dyn Storage>) -> Self {
        Self { folder }
    }

    /// The last published checkpoint.
    ///
    /// # Errors
    /// The disk, or a file that is no note.
    pub fn checkpoint(&self) -> Result<Option<Note>, StoreError> {
        read(&*self.folder, CHECKPOINT)?.map(|bytes| note(CHECKPOINT, &bytes)).transpose()
    }

    /// Publishes a checkpoint: it is durable when this returns.
    ///
    /// # Errors
    /// The disk.
    pub fn write_checkpoint(&self, checkpoint: &Note) -> Result<(), StoreError> {
        self.replace(CHECKPOINT, checkpoint.to_string().as_bytes())
    }

    /// Keeps a checkpoint beside the last one.
    ///
    /// # Errors
    /// The disk.
    pub fn keep_checkpoint(&self, checkpoint: &Note, size: u64) -> Result<(), StoreError> {
        let file = format!("{size:0SIZE_DIGITS$}");
        let folder = self.folder.make_folder(CHECKPOINTS).map_err(io_error("make", CHECKPOINTS))?;
        folder.replace(&file, checkpoint.to_string().as_bytes()).map_err(io_error("write", &file))
    }

    /// All checkpoints with the names of their files, the last one included.
    ///
    /// # Errors
    /// The disk, or a file that is no note.
    pub fn checkpoints(&self) -> Result<Vec<(String, Note)>, StoreError> {
        let mut all = Vec::new();
        match self.folder.folder(CHECKPOINTS) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error("open", CHECKPOINTS)(error)),
            Ok(folder) => {
                for name in folder.list().map_err(io_error("list", CHECKPOINTS))? {
                    let kept = name.len() == SIZE_DIGITS && name.bytes().all(|byte| byte.is_ascii_digit());
                    let path = format!("{CHECKPOINTS}/{name}");
                    if let Some(bytes) = read(&*folder, &name)?.filter(|_| kept) {
                        let note = note(&path, &bytes)?;
                        all.push((path, note));
                    }
                }
            }
        }
        all.extend(self.checkpoint()?.map(|note| (CHECKPOINT.to_owned(), note)));
        Ok(all)
    }

    /// The key that checks them.
    ///
    /// # Errors
    /// The disk, or a file that is no key.
    pub fn key(&self) -> Result<Option<VerifierKey>, StoreError> {
        let Some(bytes) = read(&*self.folder, KEY)? else { return Ok(None) };
        let text = std::str::from_utf8(&bytes).map_err(|_| StoreError::damaged(KEY))?;
        let key = text.trim_end().parse();
        key.map(Some).map_err(|source| StoreError::Note { file: KEY.into(), source })
    }

    /// Writes the key, if another one is there.
    ///
    /// # Errors
    /// The disk.
    pub fn write_key(&self, key: &VerifierKey) -> Result<(), StoreError> {
        let text = format!("{key}\n");
        if read(&*self.folder, KEY)?.is_some_and(|known| known == text.as_bytes()) {
            return Ok(());
        }
        self.replace(KEY, text.as_bytes())
    }

    /// Where segments begin, in order.
    ///
    /// # Errors
    /// The disk, or lines that are not in order.
    pub fn marks(&self) -> Result<Vec<Mark>, StoreError> {
        let bytes = read(&*self.folder, MARKS)?.unwrap_or_default();
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let marks: Vec<Mark> = lines
            .map(serde_json::from_slice)
            .collect::<Result<_, _>>()
            .map_err(|_| StoreError::damaged(MARKS))?;
        let in_order = |pair: &[Mark]| {
            pair[0].segment < pair[1].segment && pair[0].seq <= pair[1].seq && pair[0].size <= pair[1].size
        };
        if marks.windows(2).all(in_order) { Ok(marks) } else { Err(StoreError::damaged(MARKS)) }
    }

    /// Replaces the marks.
    ///
    /// # Errors
    /// The disk.
    pub fn write_marks(&self, marks: &[Mark]) -> Result<(), StoreError> {
        let mut text = String::new();
        for Mark { segment, seq, size } in marks {
            text.push_str(&format!("{{\"segment\":{segment},\"seq\":{seq},\"size\":{size}}}\n"));
        }
        self.replace(MARKS, text.as_bytes())
    }

    /// Keeps the leaves of a segment. They are durable when this returns.
    ///
    /// # Errors
    /// The disk.
    pub fn write_leaves(&self, mark: &Mark, leaves: &[Digest]) -> Result<(), StoreError> {
        let file = segment_name(mark.segment);
        let aside = format!("{file}.new");
        let folder = self.folder.make_folder(LEAVES).map_err(io_error("make", LEAVES))?;
        let to = folder.append(&aside).map_err(io_error("create", &aside))?;
        to.truncate(0).map_err(io_error("empty", &aside))?;
        let mut header = LEAVES_MAGIC.to_vec();
        for number in [mark.segment, mark.seq, mark.size, leaves.len() as u64] {
            header.extend_from_slice(&number.to_le_bytes());
        }
        to.write(&header).map_err(io_error("write", &aside))?;
        for chunk in leaves.chunks(LEAVES_CHUNK) {
            to.write(&hash_bytes(chunk)).map_err(io_error("write", &aside))?;
        }
        to.sync().map_err(io_error("sync", &aside))?;
        folder.rename(&aside, &file).map_err(io_error("write", &file))?;
        // The folder itself may be new.
        self.folder.sync_names().map_err(io_error("sync", LEAVES))
    }

    /// What is kept of dropped segments, in order: their marks, with the count of their leaves.
    ///
    /// # Errors
    /// The disk, or a file that is not as we write it.
    pub fn dropped(&self) -> Result<Vec<(Mark, u64)>, StoreError> {
        let Some(folder) = self.leaves_folder()? else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        for name in folder.list().map_err(io_error("list", LEAVES))? {
            let Some(segment) = name.parse().ok().filter(|segment| segment_name(*segment) == name) else {
                continue;
            };
            all.push(leaves_of(&*folder, segment)?.0);
        }
        Ok(all)
    }

    /// Some of the leaves of a dropped segment; none if they are not kept.
    ///
    /// # Errors
    /// The disk, or a file that is not as we write it.
    pub fn leaves(&self, segment: u64, from: u64, count: u64) -> Result<Option<Vec<Digest>>, StoreError> {
        let name = segment_name(segment);
        let Some(folder) = self.leaves_folder()? else { return Ok(None) };
        let ((_, all), file) = match leaves_of(&*folder, segment) {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            read => read?,
        };
        let count = count.min(all.saturating_sub(from));
        let mut bytes = vec![0; usize::try_from(count).unwrap_or_default() * HASH_BYTES];
        let read = file.read_at(LEAVES_HEADER + from * HASH_BYTES as u64, &mut bytes);
        bytes.truncate(read.map_err(io_error("read", &name))?);
        read_hashes(&bytes, count).map(Some).ok_or_else(|| StoreError::damaged(format!("{LEAVES}/{name}")))
    }

    fn leaves_folder(&self) -> Result<Option<Arc<dyn Storage>>, StoreError> {
        match self.folder.folder(LEAVES) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            folder => folder.map(Some).map_err(io_error("open", LEAVES)),
        }
    }

    /// The hashes of a tile; those of a partial one also from the full one. None if it is not kept.
    ///
    /// # Errors
    /// The disk, or a file of another size.
    pub fn tile(&self, tile: Tile) -> Result<Option<Vec<Digest>>, StoreError> {
        if let Some(hashes) = self.exact_tile(tile)? {
            return Ok(Some(hashes));
        }
        let Some(full) = Tile::new(tile.level(), tile.index(), TILE_WIDTH) else { return Ok(None) };
        let hashes = self.exact_tile(full)?;
        Ok(hashes.map(|hashes| hashes.into_iter().take(tile.width() as usize).collect()))
    }

    fn exact_tile(&self, tile: Tile) -> Result<Option<Vec<Digest>>, StoreError> {
        let path = tile.to_string();
        let Some(bytes) = self.read_path(&path)? else { return Ok(None) };
        read_hashes(&bytes, tile.width()).map(Some).ok_or_else(|| StoreError::damaged(path))
    }

    /// Writes a tile. Partial ones of higher levels, which it replaces, are removed.
    ///
    /// # Errors
    /// The disk.
    pub fn write_tile(&self, tile: Tile, hashes: &[Digest]) -> Result<(), StoreError> {
        self.write_path(&tile.to_string(), &hash_bytes(hashes))?;
        if tile.width() == TILE_WIDTH && tile.level() > 0 {
            self.remove_partials(tile)?;
        }
        Ok(())
    }

    /// Writes a file of an export (an entry bundle) below the folder.
    ///
    /// # Errors
    /// The disk.
    pub fn write_path(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let (folder, name) = self.walk(path, |folder, name| folder.make_folder(name))?;
        folder.replace(name, bytes).map_err(io_error("write", path))
    }

    /// Every tile that is kept.
    ///
    /// # Errors
    /// The disk. Files with other names are left alone.
    pub fn tiles(&self) -> Result<Vec<Tile>, StoreError> {
        let mut tiles = Vec::new();
        let mut folders = vec![("tile".to_owned(), Arc::clone(&self.folder))];
        while let Some((path, parent)) = folders.pop() {
            let name = path.rsplit('/').next().unwrap_or_default();
            let folder = match parent.folder(name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                folder => folder.map_err(io_error("open", &path))?,
            };
            let files = folder.list().map_err(io_error("list", &path))?;
            tiles.extend(files.iter().filter_map(|file| format!("{path}/{file}").parse::<Tile>().ok()));
            let inside = folder.folders().map_err(io_error("list", &path))?;
            folders.extend(inside.into_iter().map(|name| (format!("{path}/{name}"), Arc::clone(&folder))));
        }
        tiles.sort_unstable();
        Ok(tiles)
    }

    fn remove_partials(&self, full: Tile) -> Result<(), StoreError> {
        let path = format!("{full}.p/1");
        let (folder, _) = match self.walk(&path, |folder, name| folder.folder(name)) {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        for name in folder.list().map_err(io_error("list", &path))? {
            folder.remove(&name).map_err(io_error("remove", &path))?;
        }
        Ok(())
    }

    fn read_path(&self, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match self.walk(path, |folder, name| folder.folder(name)) {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            found => {
                let (folder, name) = found?;
                read(&*folder, name)
            }
        }
    }

    /// The folder that a path's file lies in, and the name of the file.
    fn walk<'a>(
        &self,
        path: &'a str,
        enter: fn(&dyn Storage, &str) -> io::Result<Arc<dyn Storage>>,
    ) -> Result<(Arc<dyn Storage>, &'a str), StoreError> {
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut folder = Arc::clone(&self.folder);
        for part in folders.split('/').filter(|part| !part.is_empty()) {
            folder = enter(&*folder, part).map_err(io_error("open", path))?;
        }
        Ok((folder, name))
    }

    fn replace(&self, file: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.folder.replace(file, bytes).map_err(io_error("write", file))
    }
}

fn segment_name(segment: u64) -> String {
    format!("{segment:0SIZE_DIGITS$}")
}

/// A mark, the count of the leaves, and their file.
type KeptLeaves = ((Mark, u64), Arc<dyn ReadFile>);

/// What is kept of a dropped segment.
fn leaves_of(folder: &dyn Storage, segment: u64) -> Result<KeptLeaves, StoreError> {
    let name = segment_name(segment);
    let damaged = || StoreError::damaged(format!("{LEAVES}/{name}"));
    let file = folder.read(&name).map_err(io_error("open", &name))?;
    let mut header = [0; LEAVES_HEADER as usize];
    let read = file.read_at(0, &mut header).map_err(io_error("read", &name))?;
    let number = |index: usize| {
        header.get(8 + index * 8..).and_then(|rest| rest.first_chunk().copied()).map_or(0, u64::from_le_bytes)
    };
    let len = file.len().map_err(io_error("read", &name))?;
    let whole = number(3).checked_mul(HASH_BYTES as u64).and_then(|bytes| bytes.checked_add(LEAVES_HEADER));
    let good = read == header.len()
        && header.starts_with(&LEAVES_MAGIC)
        && number(0) == segment
        && whole == Some(len);
    if !good {
        return Err(damaged());
    }
    Ok(((Mark { segment, seq: number(1), size: number(2) }, number(3)), file))
}

fn note(file: &str, bytes: &[u8]) -> Result<Note, StoreError> {
    Note::parse(bytes).map_err(|source| StoreError::Note { file: file.into(), source })
}

/// A whole small file; none if there is none.
fn read(folder: &dyn Storage, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let file = match folder.read(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(io_error("open", name))?,
    };
    let len = file.len().map_err(io_error("read", name))?;
    if len > FILE_BYTES_MAX {
        return Err(StoreError::damaged(name));
    }
    let mut bytes = vec![0; len as usize];
    let count = file.read_at(0, &mut bytes).map_err(io_error("read", name))?;
    bytes.truncate(count);
    Ok(Some(bytes))
}

const _: () = assert!(TILE_LEVELS == 8 && HASH_BYTES == 32, "the figures above are of these tiles");
