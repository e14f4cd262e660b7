//! A real file system that fills up.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use pgwitness_index::journal::{Journal, Options};
use pgwitness_index::proof::verify;
use pgwitness_index::record::TxnOutcome;
use pgwitness_index::storage::DirStorage;

use crate::records::*;

/// A small file system in memory, gone when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, with the reason on the output, where mounting is not allowed.
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "none"]).arg(dir.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(dir)),
            Ok(output) => {
                println!("skipped: mount says {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                println!("skipped: mount cannot be run: {error}");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// Takes all the space that is left.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for size in [64 << 10, 4 << 10, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

#[test]
fn on_a_real_disk_that_is_full_the_reserve_is_used_and_with_space_all_goes_on() {
    let Some(disk) = SmallDisk::mount() else { return };
    let storage = Arc::new(DirStorage::create(disk.0.path().join("journal")).unwrap());
    let (mut journal, _) = Journal::open(storage.clone(), Options { segment_bytes: 20_000 }).unwrap();
    assert!(journal.refill_reserve().unwrap());
    let filler = disk.0.path().join("filler");
    fill(&filler);
    let (mut batches, mut refused) = (Vec::new(), 0);
    for number in 1.. {
        let batch = vec![over(number, TxnOutcome::None)];
        if let Err(error) = journal.append(&batch) {
            assert!(error.is_disk_full() && !error.is_final(), "{error}");
            refused += 1;
            match journal.append_reserved(&batch) {
                Err(error) if error.is_disk_full() => break,
                appended => _ = appended.unwrap(),
            }
        }
        batches.push(batch);
    }
    assert!(refused > 100, "{refused}");
    fs::remove_file(&filler).unwrap();
    assert!(journal.refill_reserve().unwrap());
    batches.push(vec![over(1, TxnOutcome::None)]);
    journal.append(batches.last().unwrap()).unwrap();
    journal.close().unwrap();
    let frames = frames_of(storage.clone(), None).unwrap();
    let entries: Vec<_> = frames.into_iter().flat_map(|frame| frame.entries).collect();
    assert_eq!(entries, numbered(&batches));
    assert!(verify(&*storage, None, None).unwrap().intact);
}
