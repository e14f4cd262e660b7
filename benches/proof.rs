//! What the proof costs: a leaf, a signed head, following a journal, verifying it; and what it costs to drop the texts
//! of a segment, and then its records, so that all of it still holds.
//!
//! `cargo bench -p pgwitness-index --bench proof [-- RECORDS]`, 200,000 by default; each record ends, so that there
//! are two entries a record. Times are CPU time of the one thread (Linux: `/proc/thread-self/schedstat`), which other
//! load on the machine changes little; megabytes are of the journal's files.
#![expect(clippy::disallowed_methods, reason = "a benchmark has a clock")]

use std::sync::Arc;
use std::time::Instant;

use pgwitness_index::journal::{Archive, Journal, Options, Partition, Position, Reader};
use pgwitness_index::proof::checkpoint::Checkpoint;
use pgwitness_index::proof::leaf::{Leaves, Place};
use pgwitness_index::proof::merkle::Frontier;
use pgwitness_index::proof::note::SignerKey;
use pgwitness_index::proof::{Latest, Published, TreeReader, TreeWriter, verify};
use pgwitness_index::record::{
    Certainty, Class, Completion, Entry, Event, Outcome, Param, Record, Seq, Shape, Sql, Timestamp,
    TxnOutcome, Who,
};
use pgwitness_index::retention::{Deed, Holds, Survey, drop_records, drop_texts};
use pgwitness_index::storage::{DirStorage, Storage};
use uuid::Uuid;

type Failure = Box<dyn std::error::Error>;

const RECORDS: u64 = 200_000;
/// Records written together, as a busy gateway's group commit does.
const BATCH: u64 = 16;
/// Sessions and shapes that records share.
const SHARED: u64 = 200;
const HEADS: u32 = 2_000;
const EVERYTHING: Position = Position { segment: u64::MAX, offset: u64::MAX };

fn main() -> Result<(), Failure> {
    let records = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(RECORDS);
    let dir = tempfile::tempdir()?;
    let storage: Arc<dyn Storage> = Arc::new(DirStorage::create(dir.path())?);
    let bytes = write(&storage, records)?;
    println!("{records} records, {} entries, {:.1} MB of journal", 2 * records, megabytes(bytes));
    leaves(&storage)?;
    heads()?;
    let key = SignerKey::from_seed("example.com/log", &[7; 32])?;
    let latest = Latest::default();
    follow(&storage, &key, &latest)?;
    prove(&storage, latest, records)?;
    check(&storage, bytes)?;
    retain(&storage, &key, records)
}

/// CPU time of this thread, seconds; wall time where the system does not say.
fn cpu(began: Instant) -> f64 {
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = spent.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    nanos.map_or_else(|| began.elapsed().as_secs_f64(), |nanos| nanos / 1e9)
}

/// CPU seconds of some work.
fn timed<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<(T, f64), Failure> {
    let began = Instant::now();
    let before = cpu(began);
    let done = work()?;
    Ok((done, cpu(began) - before))
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn write(storage: &Arc<dyn Storage>, records: u64) -> Result<u64, Failure> {
    let who: Vec<Arc<Who>> = (0..SHARED).map(|number| Arc::new(who(number))).collect();
    let shapes: Vec<Arc<Shape>> = (0..SHARED).map(|number| Arc::new(shape(number))).collect();
    let mut journal = Journal::open(Arc::clone(storage), Options::default())?.0;
    let mut seq = 1;
    while seq <= records {
        let count = BATCH.min(records + 1 - seq);
        let begun: Vec<Entry> = (seq..seq + count)
            .map(|number| {
                let pick = |shared: u64| (number * 7919 % shared) as usize;
                Entry::Record(Box::new(record(number, &who[pick(SHARED)], &shapes[pick(SHARED - 1)])))
            })
            .collect();
        let ended: Vec<Entry> = (seq..seq + count).map(end).collect();
        journal.append(&begun)?;
        journal.append(&ended)?;
        seq += count;
    }
    journal.begin_segment()?;
    journal.close()?;
    let names = storage.list()?;
    let files = names.iter().filter(|name| name.ends_with(".journal"));
    files.map(|name| Ok(storage.read(name)?.len()?)).sum()
}

fn leaves(storage: &Arc<dyn Storage>) -> Result<(), Failure> {
    let mut reader = Reader::open(Arc::clone(storage), None)?;
    let (mut made, mut tree, mut entries, mut spent) = (Leaves::new(), Frontier::default(), 0_u64, 0.0);
    loop {
        // Decoding is the reader's cost: frames are read first, then hashed.
        let mut frames = Vec::new();
        while frames.len() < 1000 {
            let Some(frame) = reader.next_frame()? else { break };
            frames.push(frame);
        }
        if frames.is_empty() {
            break;
        }
        let (hashed, time) = timed(|| {
            let mut hashed = 0;
            for frame in &frames {
                for (index, (seq, entry)) in (0..).zip(&frame.entries) {
                    let leaf = made.hash(*seq, entry, &Place::within(frame.salt, &frame.seals, index));
                    tree.push(leaf, |_, _, _| {});
                    hashed += 1;
                }
            }
            Ok(hashed)
        })?;
        entries += hashed;
        spent += time;
    }
    println!("leaf and tree      {:8.3} µs an entry", spent * 1e6 / entries as f64);
    Ok(())
}

fn heads() -> Result<(), Failure> {
    let key = SignerKey::from_seed("example.com/log", &[7; 32])?;
    let mut tree = Frontier::default();
    let (_, time) = timed(|| {
        for number in 0..HEADS {
            tree.push(pgwitness_index::proof::merkle::leaf_hash(&number.to_be_bytes()), |_, _, _| {});
            let head = pgwitness_index::proof::merkle::TreeHead { size: tree.size(), root: tree.root() };
            std::hint::black_box(Checkpoint::new(&key, head).sign(&key)?.to_string());
        }
        Ok(())
    })?;
    println!("signed head        {:8.1} µs", time * 1e6 / f64::from(HEADS));
    Ok(())
}

fn follow(storage: &Arc<dyn Storage>, key: &SignerKey, latest: &Latest) -> Result<(), Failure> {
    let (size, time) = timed(|| {
        let mut writer = TreeWriter::open(Arc::clone(storage), key.public(), latest.clone())?;
        while !writer.step(EVERYTHING, 4096)? {
            writer.publish(key)?;
        }
        writer.publish(key)?;
        Ok(writer.size())
    })?;
    println!("read, grow, sign   {:8.3} µs an entry (a head for each 4,096)", time * 1e6 / size as f64);
    let files = kept(&**storage)?;
    println!("kept of the tree   {:8.3} bytes an entry", files as f64 / size as f64);
    Ok(())
}

/// Bytes of the files in the tree's folder.
fn kept(journal: &dyn Storage) -> Result<u64, Failure> {
    let mut bytes = 0;
    let mut folders = vec![journal.folder(pgwitness_index::proof::FOLDER)?];
    while let Some(folder) = folders.pop() {
        for name in folder.list()? {
            bytes += folder.read(&name)?.len()?;
        }
        for name in folder.folders()? {
            folders.push(folder.folder(&name)?);
        }
    }
    Ok(bytes)
}

fn prove(storage: &Arc<dyn Storage>, latest: Latest, records: u64) -> Result<(), Failure> {
    let reader = TreeReader::new(Arc::clone(storage), latest);
    for (what, seq) in [("first", 1), ("middle", records / 2), ("last", records)] {
        let (proof, time) = timed(|| Ok(reader.record(Seq(seq))?))?;
        let leaves = proof.map_or(0, |proof| proof.leaves.len());
        println!("proof, {what:<6}      {:8.1} ms ({leaves} leaves)", time * 1e3);
    }
    Ok(())
}

fn check(storage: &Arc<dyn Storage>, bytes: u64) -> Result<(), Failure> {
    let (report, time) = timed(|| Ok(verify(&**storage, None, None)?))?;
    let rate = |count: f64| count / time;
    println!(
        "verify             {:8.1} MB/s, {:.0} records/s ({})",
        rate(megabytes(bytes)),
        rate(report.records as f64),
        if report.intact { "intact" } else { "BROKEN" }
    );
    Ok(())
}

/// Drops the texts of the first segment, then its records.
fn retain(storage: &Arc<dyn Storage>, key: &SignerKey, records: u64) -> Result<(), Failure> {
    let first = || Ok::<_, Failure>(*Partition::all(storage)?.first().ok_or("there is no segment")?);
    let partition = first()?;
    let own = partition.end.map_or(records, |end| end.0 - 1);
    let size = || Ok::<_, Failure>(storage.read("00000000000000000001.journal")?.len()?);
    let rule = || "full = 90d".to_owned();
    let (by, published) = announced(
        storage,
        key,
        &Deed::Texts { segment: 1, first: Seq(1), last: Seq(own), held: 0, rule: rule() },
    )?;
    let before = size()?;
    let (erased, time) = timed(|| {
        let survey = Survey::of(storage, &Archive::new(Arc::clone(storage)), &partition, &Holds::default())?;
        Ok(drop_texts(storage, &published, &partition, &survey, by)?)
    })?;
    println!(
        "texts dropped      {:8.3} µs a record ({own} records, {erased} values; {:.1} to {:.1} bytes a record)",
        time * 1e6 / own as f64,
        before as f64 / own as f64,
        size()? as f64 / own as f64
    );
    let (report, time) = timed(|| Ok(verify(&**storage, None, None)?))?;
    println!("verify, without    {:8.0} records/s ({})", report.records as f64 / time, report.intact);
    let (by, published) =
        announced(storage, key, &Deed::Records { through: 1, last: Seq(own), rule: rule() })?;
    let partition = first()?;
    let (_, time) = timed(|| Ok(drop_records(storage, &published, &partition, by)?))?;
    println!("records dropped    {:8.3} µs a record", time * 1e6 / own as f64);
    let report = verify(&**storage, None, None)?;
    println!("verify             {}", if report.intact { "intact" } else { "BROKEN" });
    Ok(())
}

/// Writes what is to be done, signed.
fn announced(
    storage: &Arc<dyn Storage>,
    key: &SignerKey,
    deed: &Deed,
) -> Result<(Seq, Arc<Published>), Failure> {
    let mut journal = Journal::open(Arc::clone(storage), Options::default())?.0;
    let said = Record {
        event: deed.event(),
        sql: None,
        shape: None,
        params: deed.params(),
        detail: deed.sentence(),
        done: Some(Completion::new(Outcome::Ok, TxnOutcome::None)),
        ..record(1, &Arc::default(), &Arc::new(shape(1)))
    };
    let seq = journal.append(&[Entry::Record(Box::new(said))])?.first;
    journal.close()?;
    let latest = Latest::default();
    let mut writer = TreeWriter::open(Arc::clone(storage), key.public(), latest.clone())?;
    while !writer.step(EVERYTHING, 4096)? {}
    writer.publish(key)?;
    Ok((seq, latest.get().ok_or("nothing was published")?))
}

fn record(number: u64, who: &Arc<Who>, shape: &Arc<Shape>) -> Record {
    let text = format!(
        "SELECT o.id, o.status FROM shop.orders o WHERE o.customer_id = {number} AND o.status = 'open'"
    );
    Record {
        id: Uuid::from_u128(u128::from(number) << 64 | 0x7000_8000),
        time: Timestamp(1_795_000_000_000_000 + number as i64 * 50),
        event: Event::Query,
        who: Arc::clone(who),
        sql: Some(Sql::Once(text.into_bytes().into())),
        shape: Some(Arc::clone(shape)),
        params: if number.is_multiple_of(2) { Vec::new() } else { vec![Param::Int(number as i64)] },
        detail: String::new(),
        done: None,
    }
}

fn end(number: u64) -> Entry {
    Entry::Completion(Completion {
        seq: Seq(number),
        command: "SELECT".into(),
        rows: Some(number % 50),
        bytes: number % 5000,
        duration_us: number % 20_000,
        ..Completion::new(Outcome::Ok, TxnOutcome::Committed)
    })
}

fn who(number: u64) -> Who {
    Who {
        user: format!("user{number}@example.com"),
        sub: format!("00u{number}"),
        iss: "https://id.example.com".into(),
        groups: vec!["engineering".into()],
        login: Uuid::from_u128(u128::from(number)).to_string(),
        session: Uuid::from_u128(u128::from(number) << 32).to_string(),
        auth: vec![("mode".into(), "device".into())],
        role: "app_read".into(),
        db: format!("shop{}", number % 40),
        upstream: "main".into(),
        search_path: "public".into(),
        ip: "10.1.2.3".into(),
        app: "psql".into(),
        device: String::new(),
    }
}

fn shape(number: u64) -> Shape {
    Shape {
        fingerprint: format!("{number:016x}"),
        command: "SELECT".into(),
        class: vec![Class::Read],
        tables: vec!["shop.orders".into()],
        reads: vec!["shop.orders.id".into(), "shop.orders.status".into()],
        filters: vec!["shop.orders.customer_id".into(), "shop.orders.status".into()],
        writes: Vec::new(),
        via: Vec::new(),
        analysis: Certainty::Exact,
        analysis_notes: Vec::new(),
        tags: Vec::new(),
    }
}
