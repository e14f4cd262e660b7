//! What search costs: CPU for each record indexed, bytes for each record, and how long answers take.
//!
//! `cargo bench -p pgwitness-index --bench search [-- RECORDS] [mixed] [hot] [pgbench] [found]`
//! (100,000 records and all parts unless said). With a folder (`/var/tmp/log`) the log is kept there, or
//! taken from there; `x10` asks an index that has each of its segments ten times. The log is made
//! up: 5,000 statement shapes, 2,000 people, 40 databases, each by Zipf's law; half of the statements
//! are prepared and carry parameters, half carry literals. CPU is that of the whole process, journal
//! reading included and journal writing not. On a machine that does other work compare CPU, not time.

#![allow(clippy::disallowed_methods, reason = "a benchmark looks at the clock")]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pgwitness_index::journal::{self, Journal};
use pgwitness_index::record::{Entry, Seq, Timestamp};
use pgwitness_index::search::{
    Count, Field, IndexError, Indexer, Options, Part, Query, Scope, Search, Window, Written,
};
use pgwitness_index::storage::DirStorage;
use traffic::{NOON, Traffic};

#[path = "search/traffic.rs"]
mod traffic;

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let records = words.iter().find_map(|word| word.parse().ok()).unwrap_or(100_000_u64);
    let wants = |part: &str| {
        !words.iter().any(|word| PARTS.contains(&word.as_str())) || words.iter().any(|word| word == part)
    };
    let kept = words.iter().find(|word| word.starts_with('/')).map(Path::new);
    let times = words.iter().find_map(|word| word.strip_prefix('x')?.parse().ok()).unwrap_or(1_usize);
    if wants("mixed") {
        let dir = tempfile::tempdir()?;
        let dir = kept.unwrap_or(dir.path());
        if !dir.join("index").exists() {
            index(dir, "mixed", records, Traffic::mixed(7))?;
        }
        let mounted = mount(dir, times)?;
        let began = Instant::now();
        let (indexer, search) = Indexer::open(&mounted, storage(dir)?, Options::default())?;
        let (took, newest) = (began.elapsed().as_secs_f64() * 1e3, search.newest());
        println!("{newest} records {times} times: opened in {took:.1} ms, {} MiB resident", resident_mib());
        answers(&search)?;
        println!("{} MiB resident after all answers", resident_mib());
        drop(indexer);
    }
    if wants("hot") {
        let dir = tempfile::tempdir()?;
        index(dir.path(), "one statement, three values", records.min(300_000), Traffic::hot(7))?;
    }
    if wants("pgbench") {
        let dir = tempfile::tempdir()?;
        index(dir.path(), "pgbench -S", records.min(300_000), Traffic::pgbench(7))?;
    }
    if wants("found") {
        found_after_its_end()?;
    }
    Ok(())
}

/// What can be asked for by name; else all of it.
const PARTS: [&str; 4] = ["mixed", "hot", "pgbench", "found"];

/// How long after its end was written to the journal a record is found with it, while 5,000 records a
/// second arrive and the index is written at the same time.
fn found_after_its_end() -> Result<(), Failure> {
    const TICKS: u64 = 2_000;
    const EACH: u64 = 25;
    let dir = tempfile::tempdir()?;
    let (mut journal, _) = Journal::open(storage(dir.path())?, journal::Options::default())?;
    let (mut indexer, search) =
        Indexer::open(&dir.path().join("index"), storage(dir.path())?, Options::default())?;
    let (ended, stop) = (&AtomicU64::new(0), &AtomicBool::new(false));
    let took = thread::scope(|scope| -> Result<Vec<Duration>, Failure> {
        let follower = scope.spawn(move || follow(&mut indexer, stop));
        let prober = scope.spawn(move || probe(&search, ended, stop));
        let mut traffic = Traffic::mixed(11);
        let mut batch = Vec::new();
        let began = Instant::now();
        for tick in 0..TICKS {
            traffic.batch(tick * EACH + 1, EACH, &mut batch);
            journal.append(&batch)?;
            batch.clear();
            ended.store((tick + 1) * EACH, Ordering::Release);
            thread::sleep(
                (began + Duration::from_millis((tick + 1) * 5)).saturating_duration_since(Instant::now()),
            );
        }
        stop.store(true, Ordering::Release);
        let took = prober.join().map_err(|_| "the prober panicked")??;
        follower.join().map_err(|_| "the follower panicked")??;
        Ok(took)
    });
    report("found after its end at 5,000 a second", took?, "");
    Ok(())
}

/// Reads every 10 ms and writes every second, as the gateway does.
fn follow(indexer: &mut Indexer, stop: &AtomicBool) -> Result<(), String> {
    let text = |error: &dyn Error| error.to_string();
    thread::scope(|scope| {
        let mut under_way: Option<thread::ScopedJoinHandle<'_, Result<Written, IndexError>>> = None;
        let mut due = Instant::now();
        while !stop.load(Ordering::Acquire) {
            indexer.step(2_000).map_err(|error| text(&error))?;
            if under_way.as_ref().is_some_and(thread::ScopedJoinHandle::is_finished)
                && let Some(ended) = under_way.take()
            {
                let written = ended.join().map_err(|_| "the writer panicked")?;
                indexer.finish(written.map_err(|error| text(&error))?).map_err(|error| text(&error))?;
            }
            if under_way.is_none() && Instant::now() >= due {
                due = Instant::now() + Duration::from_secs(1);
                under_way = indexer.begin(Part::Ended).map(|writing| scope.spawn(|| writing.run()));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    })
}

fn probe(search: &Search, ended: &AtomicU64, stop: &AtomicBool) -> Result<Vec<Duration>, String> {
    let mut took = Vec::new();
    while !stop.load(Ordering::Acquire) {
        let (seq, began) = (Seq(ended.load(Ordering::Acquire)), Instant::now());
        while seq > Seq(0) && !stop.load(Ordering::Acquire) {
            let found = search.get_seq(seq, &Scope::All).map_err(|error| error.to_string())?;
            if found.is_some_and(|view| view.get("running").is_none()) {
                took.push(began.elapsed());
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(3));
    }
    Ok(took)
}

fn report(name: &str, mut took: Vec<Duration>, last: &str) {
    took.sort();
    let at = |share: f64| {
        took.get((took.len().saturating_sub(1) as f64 * share) as usize).map_or(0.0, Duration::as_secs_f64)
            * 1e3
    };
    println!("{name}: p50 {:.2} ms, p99 {:.2} ms {last}", at(0.5), at(0.99));
}

fn storage(dir: &Path) -> Result<Arc<DirStorage>, Failure> {
    Ok(Arc::new(DirStorage::create(dir.join("journal"))?))
}

/// Writes a journal, then builds the index from it.
fn index(dir: &Path, name: &str, records: u64, mut traffic: Traffic) -> Result<(), Failure> {
    const BATCH: u64 = 64;
    let began = Instant::now();
    let (mut journal, _) = Journal::open(storage(dir)?, journal::Options::default())?;
    let mut first = 1;
    let mut batch: Vec<Entry> = Vec::new();
    while first <= records {
        traffic.batch(first, BATCH.min(records + 1 - first), &mut batch);
        journal.append(&batch)?;
        batch.clear();
        first += BATCH;
    }
    drop(journal);
    println!("{name}: {records} records made and written in {:.1} s", began.elapsed().as_secs_f64());
    let place = dir.join("index");
    let (cpu, began) = (cpu(), Instant::now());
    let (mut indexer, _) = Indexer::open(&place, storage(dir)?, Options::default())?;
    while !indexer.step(2_000)?.caught_up {}
    indexer.commit()?;
    let (used, took) = (self::cpu() - cpu, began.elapsed());
    let files = size(&place)?;
    let documents = documents(&place)?;
    println!(
        "{name}: {records} records, {:.1} us CPU and {:.1} us a record, {:.0} bytes index and {:.0} bytes journal \
         a record, {:.2} documents a record, {} MiB resident, built in {:.1} s",
        used.as_secs_f64() * 1e6 / records as f64,
        took.as_secs_f64() * 1e6 / records as f64,
        files.0 as f64 / records as f64,
        size(&dir.join("journal"))?.0 as f64 / records as f64,
        documents as f64 / records as f64,
        resident_mib(),
        took.as_secs_f64(),
    );
    Ok(())
}

/// How many documents an index has, with those that define what others share.
fn documents(index: &Path) -> Result<u64, Failure> {
    let meta: serde_json::Value = serde_json::from_slice(&fs::read(index.join("meta.json"))?)?;
    let segments = meta["segments"].as_array().map_or(&[][..], Vec::as_slice);
    Ok(segments.iter().filter_map(|segment| segment["max_doc"].as_u64()).sum())
}

/// The index in `dir` with each of its segments so many times, under other names: as large as one of
/// that many times the records, which then have the same numbers.
fn mount(dir: &Path, times: usize) -> Result<PathBuf, Failure> {
    let index = dir.join("index");
    if times < 2 {
        return Ok(index);
    }
    let mounted = dir.join(format!("mounted-{times}"));
    fs::remove_dir_all(&mounted).or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    fs::create_dir(&mounted)?;
    let mut meta: serde_json::Value = serde_json::from_slice(&fs::read(index.join("meta.json"))?)?;
    let mut segments = Vec::new();
    for segment in meta["segments"].as_array().map_or(&[][..], Vec::as_slice) {
        let id: uuid::Uuid = segment["segment_id"].as_str().unwrap_or_default().parse()?;
        for time in 0..times {
            let other = uuid::Uuid::from_u128(id.as_u128().wrapping_add(time as u128));
            for entry in fs::read_dir(&index)? {
                let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
                if let Some(end) = name.to_string_lossy().strip_prefix(&id.simple().to_string()) {
                    fs::hard_link(&path, mounted.join(format!("{}{end}", other.simple())))?;
                }
            }
            let mut segment = segment.clone();
            segment["segment_id"] = other.to_string().into();
            segments.push(segment);
        }
    }
    meta["segments"] = segments.into();
    fs::write(mounted.join("meta.json"), meta.to_string())?;
    Ok(mounted)
}

fn answers(search: &Search) -> Result<(), Failure> {
    let all = Window::default();
    let hour = Window { from: Some(NOON), to: Some(Timestamp(NOON.0 + 3_600_000_000)) };
    let page = |text: &str, count: Count| -> Result<(usize, Option<u64>), Failure> {
        let query = Query::parse(text, NOON)?;
        let page = search.page(&query, &Scope::All, &all, 50, None, count)?;
        Ok((page.items.len(), page.total))
    };
    let person = |n: u64| format!("user{n}@example.org");
    let ask = |name: &str, times: u64, one: &dyn Fn(u64) -> Result<String, Failure>| -> Result<(), Failure> {
        let mut took = Vec::new();
        let mut last = String::new();
        let before = cpu();
        for n in 0..times {
            let began = Instant::now();
            last = one(n)?;
            took.push(began.elapsed());
        }
        took.sort();
        let at = |share: f64| {
            took.get(((took.len() - 1) as f64 * share) as usize).unwrap_or(&Duration::ZERO).as_secs_f64()
                * 1e3
        };
        let each = (cpu() - before).as_secs_f64() * 1e3 / times as f64;
        println!("{name}: p50 {:.2} ms, p99 {:.2} ms, {each:.2} ms CPU (last: {last})", at(0.5), at(0.99));
        Ok(())
    };
    ask("newest 50", 50, &|_| Ok(format!("{:?}", page("", Count::None)?)))?;
    ask("newest 50 by words + user + table", 200, &|n| {
        let text = format!("select user:{} table:table{}", person(n % 50), n % 20);
        Ok(format!("{:?}", page(&text, Count::None)?))
    })?;
    ask("the same, count capped", 100, &|n| {
        let text = format!("select user:{} table:table{}", person(n % 50), n % 20);
        Ok(format!("{:?}", page(&text, Count::Capped)?))
    })?;
    ask("exact value", 200, &|n| Ok(format!("{:?}", page(&traffic::mail(n * 37 % 20_000), Count::None)?)))?;
    let ids = uuids(search)?;
    ask("exact UUID", 200, &|n| {
        let id = ids.get(n as usize % ids.len()).ok_or("no record has a UUID")?;
        Ok(format!("{:?}", page(id, Count::None)?))
    })?;
    ask("letters in a word", 5, &|n| Ok(format!("{:?}", page(&format!("*tomer77{n}*"), Count::None)?)))?;
    ask("a phrase over a literal", 50, &|n| {
        Ok(format!("{:?}", page(&format!("sql:\"limit {}\"", n % 100 + 1), Count::None)?))
    })?;
    ask("a word nobody wrote", 100, &|n| Ok(format!("{:?}", page(&format!("zz{n}"), Count::None)?)))?;
    ask("the beginning of a word", 50, &|n| {
        Ok(format!("{:?}", page(&format!("customer{}*", n % 10), Count::None)?))
    })?;
    ask("exact count of one user", 50, &|n| {
        Ok(format!("{:?}", page(&format!("user:{}", person(n % 20)), Count::Exact)?))
    })?;
    ask("top users of one table", 20, &|n| {
        let query = Query::parse(&format!("table:table{}", n % 20), NOON)?;
        let facets = search.facets(&query, &Scope::All, &all, &[Field::User], 10)?;
        Ok(format!("{:?}", facets.first().and_then(|facet| facet.values.first())))
    })?;
    ask("top tables", 5, &|_| {
        let facets = search.facets(&Query::all(), &Scope::All, &all, &[Field::Tables], 10)?;
        Ok(format!("{:?}", facets.first().and_then(|facet| facet.values.first())))
    })?;
    ask("histogram of all", 5, &|_| {
        let bars = search.histogram(&Query::all(), &Scope::All, &hour, 100)?;
        Ok(format!("{}", bars.counts.iter().sum::<u64>()))
    })
}

/// UUIDs among the values of records from all of the log.
fn uuids(search: &Search) -> Result<Vec<String>, Failure> {
    let newest = search.newest().0;
    let mut found = Vec::new();
    for n in 0..400 {
        let view = search.get_seq(Seq(newest * n / 400 + 1), &Scope::All)?.unwrap_or_default();
        let text = [&view["sql"], &view["params"]].map(ToString::to_string).concat();
        let mut values = text.split(['"', '\'']).filter(|word| word.parse::<uuid::Uuid>().is_ok());
        found.extend(values.next().map(str::to_owned));
    }
    Ok(found)
}

/// CPU of the process so far, user and system (`proc_pid_stat(5)`, in hundredths of a second).
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 =
        after_name.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

fn resident_mib() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages / 256
}

/// Bytes and number of the files in a folder.
fn size(dir: &Path) -> Result<(u64, usize), Failure> {
    let mut sum = (0, 0);
    for entry in fs::read_dir(dir)? {
        sum.0 += entry?.metadata()?.len();
        sum.1 += 1;
    }
    Ok(sum)
}
