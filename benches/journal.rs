//! What the journal costs: CPU and bytes a record, and how many records a second it takes.
//!
//! `cargo bench --bench journal [-- cpu] [-- burst]`. Data as of a busy place (`records`): 5,000 shapes,
//! 2,000 users, 40 databases, Zipf. `PGWITNESS_BENCH_DIR` names the folder for the files (a temporary one
//! otherwise: what is measured by `burst` depends on its disk). CPU is the time of the thread (or process) as the
//! system counts it, so that it can be compared on a busy machine.

#![allow(clippy::unwrap_used, reason = "a benchmark ends where something fails")]
#![allow(clippy::disallowed_methods, reason = "its tasks end with its own runtime")]

mod records;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pgwitness::config::Durability;
use pgwitness::recorder::{Batch, Recorder};
use pgwitness_index::journal::{Archive, Journal, Options, Position, Reader};
use pgwitness_index::proof::verify;
use pgwitness_index::record::{Entry, Record, Seq};
use pgwitness_index::storage::{DirStorage, Storage};
use records::Generator;

/// As in the gateway.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Records of one measurement of CPU.
const RECORDS: usize = 25 << 13;
/// Records that are made before they are appended, so that making them is not measured.
const BLOCK: usize = 1 << 13;
/// How long records are poured in.
const BURST: Duration = Duration::from_secs(10);
/// Sessions that record at the same time.
const SESSIONS: usize = 64;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wants = |part: &str| wanted.is_empty() || wanted.iter().any(|word| word == part);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{cores} cores, load {}", load.split(' ').next().unwrap_or("?"));
    if wants("cpu") {
        println!("\nload      a frame  records  append us  read us  bytes/record  frames  place us  find us");
        for (name, make) in [("mixed", mixed as fn(&mut Generator) -> Record), ("hot", hot)] {
            for size in [1, 8, 64, 1024] {
                cpu(name, make, size);
            }
        }
    }
    if wants("burst") {
        println!("\nmode    sessions  batch  seconds  records/s  cpu us/record  bytes/record");
        for durability in [Durability::Strict, Durability::Held, Durability::Batch] {
            for batch in [1, 16] {
                burst(durability, batch);
            }
        }
    }
}

fn mixed(generator: &mut Generator) -> Record {
    generator.record()
}

/// One statement, one session: pgbench -S.
fn hot(generator: &mut Generator) -> Record {
    generator.record_of(1, 0, 0)
}

fn folder() -> tempfile::TempDir {
    match std::env::var_os("PGWITNESS_BENCH_DIR") {
        Some(dir) => tempfile::tempdir_in(dir).unwrap(),
        None => tempfile::tempdir().unwrap(),
    }
}

/// Time on a processor: of this thread, or of the process.
fn cpu_time(of: &str) -> Duration {
    let text = std::fs::read_to_string(of).unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

const THREAD: &str = "/proc/thread-self/schedstat";

fn each(time: Duration, count: usize) -> f64 {
    time.as_secs_f64() * 1e6 / count as f64
}

fn bytes(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).unwrap().map(|item| item.unwrap());
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "journal");
    files.filter(|item| is_segment(&item.path())).map(|item| item.metadata().unwrap().len()).sum()
}

/// Appends records, `size` in a frame, each with its end in the next frame; reads them all; reads some by place.
fn cpu(name: &str, make: fn(&mut Generator) -> Record, size: usize) {
    let folder = folder();
    let storage: Arc<dyn Storage> = Arc::new(DirStorage::create(folder.path()).unwrap());
    let (mut journal, _) = Journal::open(storage.clone(), Options::default()).unwrap();
    let mut generator = Generator::new(1);
    let (mut ends, mut spent, mut next) = (Vec::new(), Duration::ZERO, 1);
    for _ in 0..RECORDS / BLOCK {
        let mut frames = Vec::new();
        for _ in 0..BLOCK / size {
            let records: Vec<Record> = (0..size).map(|_| make(&mut generator)).collect();
            let over = |(record, seq): (&Record, u64)| Entry::Completion(generator.end(Seq(seq), record));
            let over: Vec<_> = records.iter().zip(next..).map(over).collect();
            next += size as u64;
            let mut entries = std::mem::replace(&mut ends, over);
            entries.extend(records.into_iter().map(|record| Entry::Record(Box::new(record))));
            frames.push(entries);
        }
        let before = cpu_time(THREAD);
        for entries in &frames {
            journal.append(entries).unwrap();
        }
        spent += cpu_time(THREAD) - before;
    }
    journal.append(&ends).unwrap();
    journal.close().unwrap();
    let (count, size_of) = (next as usize - 1, bytes(folder.path()));

    let before = cpu_time(THREAD);
    let mut reader = Reader::open(storage.clone(), None).unwrap();
    let mut places = Vec::new();
    while let Some(frame) = reader.next_frame().unwrap() {
        places.push(frame.at);
    }
    let read = cpu_time(THREAD) - before;
    let (place, find) = by_place(&storage, &places, count);
    println!(
        "{name:<8} {size:>8} {count:>8} {:>10.2} {:>8.2} {:>13.1} {:>7} {place:>9.1} {find:>8.1}",
        each(spent, count),
        each(read, count),
        size_of as f64 / count as f64,
        places.len(),
    );
}

/// Microseconds to read an entry by its place, and to find a record by its number; each by somebody who remembers
/// nothing, from files that the system remembers.
fn by_place(storage: &Arc<dyn Storage>, places: &[Position], count: usize) -> (f64, f64) {
    const PROBES: usize = 200;
    let started = Instant::now();
    for probe in 0..PROBES {
        let at = places[probe * 7919 % places.len()];
        Archive::new(storage.clone()).entry(at, 0).unwrap();
    }
    let place = started.elapsed();
    let started = Instant::now();
    for probe in 0..PROBES {
        let seq = Seq((probe * 104_729 % count) as u64 + 1);
        Archive::new(storage.clone()).find(seq).unwrap().unwrap();
    }
    (each(place, PROBES), each(started.elapsed(), PROBES))
}

/// Pours records in from many sessions for some seconds, as fast as they are taken; then everything that was taken
/// must be in the journal.
fn burst(durability: Durability, batch: usize) {
    let folder = folder();
    let storage: Arc<dyn Storage> = Arc::new(DirStorage::create(folder.path()).unwrap());
    let (journal, _) = Journal::open(storage.clone(), Options::default()).unwrap();
    let (recorder, thread) = Recorder::start(journal, durability).unwrap();
    let (stop, taken) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (elapsed, spent) = runtime.block_on(async {
        let first = Generator::new(0);
        let (before, started) = (process_cpu(), Instant::now());
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|session| {
                let generator = first.fork(session as u64);
                tokio::spawn(pour(recorder.clone(), generator, session, batch, stop.clone(), taken.clone()))
            })
            .collect();
        tokio::time::sleep(BURST).await;
        stop.store(true, Ordering::Release);
        for session in sessions {
            session.await.unwrap();
        }
        (started.elapsed(), process_cpu() - before)
    });
    thread.close();
    let taken = taken.load(Ordering::Acquire);
    let report = verify(&*storage, None, None).unwrap();
    assert!(report.intact && report.open == 0, "{report}");
    assert_eq!(report.records, taken, "records are missing");
    println!(
        "{:<7} {SESSIONS:>8} {batch:>6} {:>8.1} {:>10.0} {:>14.2} {:>13.1}",
        format!("{durability:?}").to_lowercase(),
        elapsed.as_secs_f64(),
        taken as f64 / elapsed.as_secs_f64(),
        each(spent, taken as usize),
        bytes(folder.path()) as f64 / taken as f64,
    );
}

/// One session: a batch (a pipeline), what holds its results back, their ends, and again.
async fn pour(
    recorder: Recorder,
    mut generator: Generator,
    session: usize,
    size: usize,
    stop: Arc<AtomicBool>,
    taken: Arc<AtomicU64>,
) {
    let (mut batch, mut ends) = (Batch::default(), Vec::new());
    while !stop.load(Ordering::Acquire) {
        let records: Vec<Record> = (0..size).map(|_| generator.record_as(session, session % 40)).collect();
        ends.extend(records.iter().map(|record| generator.end(Seq(0), record)));
        records.into_iter().for_each(|record| batch.push(record));
        let receipt = recorder.admit(&mut batch).await.unwrap();
        if recorder.holds_results() {
            recorder.released(&receipt).await.unwrap();
        }
        for (end, seq) in ends.iter_mut().zip(receipt.first().0..) {
            end.seq = Seq(seq);
        }
        recorder.tell(&mut ends, &mut Vec::new());
        taken.fetch_add(size as u64, Ordering::AcqRel);
        tokio::task::yield_now().await;
    }
}

/// User and system time of all threads of the process.
fn process_cpu() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let of = |path: PathBuf| std::fs::read_to_string(path.join("schedstat")).ok();
    let nanos = tasks.filter_map(|task| of(task.ok()?.path())?.split(' ').next()?.parse::<u64>().ok()).sum();
    Duration::from_nanos(nanos)
}
