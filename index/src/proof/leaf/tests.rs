//! Leaves against their description: known bytes, nothing left out, nothing said that may be erased.

use uuid::Uuid;

use super::*;
use crate::record::{Certainty, Class, Event, Outcome, Timestamp, TxnOutcome};

const PLACE: Place<'static> = Place { salt: Some([0x5a; 16]), index: 3, seals: None };

fn shape() -> Shape {
    Shape {
        fingerprint: "00ff".into(),
        command: "SELECT".into(),
        class: vec![Class::Read],
        tables: vec!["public.users".into()],
        reads: vec!["public.users.name".into()],
        filters: vec!["public.users.id".into()],
        writes: Vec::new(),
        via: Vec::new(),
        analysis: Certainty::Exact,
        analysis_notes: Vec::new(),
        tags: vec!["pii".into()],
    }
}

fn end() -> Completion {
    Completion {
        seq: Seq(7),
        command: "SELECT".into(),
        rows: Some(2),
        bytes: 40,
        duration_us: 1500,
        sqlstate: "57014".into(),
        error: "canceled by ann".into(),
        notes: vec!["a view".into()],
        ..Completion::new(Outcome::Canceled, TxnOutcome::RolledBack)
    }
}

fn record() -> Record {
    let who = Who {
        user: "ann@example.com".into(),
        groups: vec!["staff".into()],
        auth: vec![("mode".into(), "device".into())],
        ip: "10.0.0.1".into(),
        ..Who::default()
    };
    Record {
        id: Uuid::from_bytes([0x11; 16]),
        time: Timestamp(1_795_000_000_123_456),
        event: Event::Query,
        who: Arc::new(who),
        sql: Some(Sql::Once(b"select name from users where id = $1".as_slice().into())),
        shape: Some(Arc::new(shape())),
        params: vec![Param::Int(-1), Param::Null, Param::Text("x".into()), Param::Bool(true)],
        detail: "by_id".into(),
        done: None,
    }
}

fn bytes(entry: &Entry) -> Vec<u8> {
    Leaves::new().bytes(Some(Seq(7)), entry, &PLACE).to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn record_entry(record: Record) -> Entry {
    Entry::Record(Box::new(record))
}

/// The salt as the description has it.
fn salt_by_hand(block: u8, second: bool) -> Salt {
    let mut input = vec![0x5a; 16];
    input.extend([0, 0, 0, 3, block]);
    let hash = sha256(&input).0;
    let half = if second { &hash[16..] } else { &hash[..16] };
    half.try_into().unwrap()
}

fn committed_by_hand(block: u8, second: bool, value: &[u8]) -> String {
    let mut input = salt_by_hand(block, second).to_vec();
    input.extend(sha256(value).0);
    hex(&sha256(&input).0)
}

#[test]
fn a_record_is_written_as_described() {
    let who = b"\0\0\0\x0fann@example.com\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\x05staff\0\0\0\0\0\0\0\0\
                \0\0\0\x01\0\0\0\x04mode\0\0\0\x06device\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x0810.0.0.1\
                \0\0\0\0\0\0\0\0";
    let shape = b"\0\0\0\x0400ff\0\0\0\x06SELECT\0\0\0\x01\0\0\0\x04read\0\0\0\x01\0\0\0\x0cpublic.users\
                  \0\0\0\x01\0\0\0\x11public.users.name\0\0\0\x01\0\0\0\x0fpublic.users.id\0\0\0\0\0\0\0\0\
                  \0\0\0\x05exact\0\0\0\0\0\0\0\x01\0\0\0\x03pii";
    let params = b"\0\0\0\x04\x02\xff\xff\xff\xff\xff\xff\xff\xff\0\x04\0\0\0\x01x\x01\x01";
    let expected = [
        "01010000000000000007".to_owned(),
        "11".repeat(16),
        format!("{:016x}", 1_795_000_000_123_456_u64),
        format!("05{}", hex(b"query")),
        committed_by_hand(0, false, who),
        format!("01{}", hex(&sha256(shape).0)),
        format!("01{}", committed_by_hand(0, true, b"select name from users where id = $1")),
        format!("01{}", committed_by_hand(1, false, params)),
        format!("01{}", committed_by_hand(1, true, b"by_id")),
        "00".to_owned(),
    ];
    assert_eq!(hex(&bytes(&record_entry(record()))), expected.concat());
}

#[test]
fn an_end_is_written_as_described_alone_and_inside_a_record() {
    let body = [
        format!("08{}0b{}06{}", hex(b"canceled"), hex(b"rolled_back"), hex(b"SELECT")),
        format!("01{:016x}{:016x}{:016x}", 2, 40, 1500),
        format!("05{}", hex(b"57014")),
        format!("01{}", committed_by_hand(2, false, b"canceled by ann")),
        format!("01{}", committed_by_hand(2, true, b"\0\0\0\x01\0\0\0\x06a view")),
    ]
    .concat();
    assert_eq!(hex(&bytes(&Entry::Completion(end()))), format!("01020000000000000007{body}"));
    let over = bytes(&record_entry(Record { done: Some(end()), ..record() }));
    assert!(hex(&over).ends_with(&format!("01{body}")));
    let plain = Completion { rows: None, ..Completion::new(Outcome::Ok, TxnOutcome::None) };
    let plain = hex(&bytes(&Entry::Completion(Completion { seq: Seq(1), ..plain })));
    assert_eq!(
        plain,
        format!("0102{:016x}02{}04{}0000{:016x}{:016x}000000", 1, hex(b"ok"), hex(b"none"), 0, 0)
    );
}

#[test]
fn a_settlement_is_of_one_size_however_many_records_it_names() {
    let settlement =
        |seqs: Vec<Seq>| bytes(&Entry::Settlement(Settlement { seqs, txn_outcome: TxnOutcome::Committed }));
    let seqs = sha256(&[[0, 0, 0, 0, 0, 0, 0, 5], [0, 0, 0, 0, 0, 0, 0, 9]].concat());
    let expected = format!("010309{}00000002{:016x}{}", hex(b"committed"), 5, hex(&seqs.0));
    assert_eq!(hex(&settlement(vec![Seq(5), Seq(9)])), expected);
    assert_eq!(settlement((1..100_000).map(Seq).collect()).len(), expected.len() / 2);
    assert_ne!(settlement(vec![Seq(5), Seq(9)]), settlement(vec![Seq(5), Seq(8)]));
}

/// Each changes one thing that is remembered.
type Change = fn(&mut Record);

fn who(record: &mut Record) -> &mut Who {
    Arc::make_mut(&mut record.who)
}

fn shaped(record: &mut Record) -> &mut Shape {
    Arc::make_mut(record.shape.as_mut().unwrap())
}

fn done(record: &mut Record) -> &mut Completion {
    record.done.as_mut().unwrap()
}

const CHANGES: &[Change] = &[
    |_| {},
    |r| r.id = Uuid::nil(),
    |r| r.time.0 += 1,
    |r| r.event = Event::Denied,
    |r| r.sql = None,
    |r| r.sql = Some(Sql::Once(b"select 1".as_slice().into())),
    |r| r.shape = None,
    |r| r.params.clear(),
    |r| r.params[0] = Param::Int(1),
    |r| r.params[0] = Param::Float(1.0),
    |r| r.params[0] = Param::Text("1".into()),
    |r| r.params[0] = Param::Bytes(b"1".to_vec()),
    |r| r.params.push(Param::Null),
    |r| r.detail.clear(),
    |r| r.detail.push('x'),
    |r| r.done = None,
    |r| who(r).user.push('x'),
    |r| who(r).sub.push('x'),
    |r| who(r).iss.push('x'),
    |r| who(r).groups.push("x".into()),
    |r| who(r).groups[0].push('x'),
    |r| who(r).login.push('x'),
    |r| who(r).session.push('x'),
    |r| who(r).auth.clear(),
    |r| who(r).auth[0].0.push('x'),
    |r| who(r).auth[0].1.push('x'),
    |r| who(r).role.push('x'),
    |r| who(r).db.push('x'),
    |r| who(r).upstream.push('x'),
    |r| who(r).search_path.push('x'),
    |r| who(r).ip.push('x'),
    |r| who(r).app.push('x'),
    |r| who(r).device.push('x'),
    |r| shaped(r).fingerprint.push('x'),
    |r| shaped(r).command.push('x'),
    |r| shaped(r).class.push(Class::Misc),
    |r| shaped(r).tables.push("x".into()),
    |r| shaped(r).reads.push("x".into()),
    |r| shaped(r).filters.push("x".into()),
    |r| shaped(r).writes.push("x".into()),
    |r| shaped(r).via.push("x".into()),
    |r| shaped(r).analysis = Certainty::Partial,
    |r| shaped(r).analysis_notes.push("x".into()),
    |r| shaped(r).tags.push("x".into()),
    |r| done(r).outcome = Outcome::Error,
    |r| done(r).txn_outcome = TxnOutcome::Unknown,
    |r| done(r).command = "FETCH".into(),
    |r| done(r).command = "x".repeat(300).into(),
    |r| done(r).command = "y".repeat(300).into(),
    |r| done(r).rows = None,
    |r| done(r).rows = Some(3),
    |r| done(r).bytes += 1,
    |r| done(r).duration_us += 1,
    |r| done(r).sqlstate.clear(),
    |r| done(r).error.clear(),
    |r| done(r).error.push('x'),
    |r| done(r).notes.clear(),
    |r| done(r).notes.push("x".into()),
];

#[test]
fn whatever_is_remembered_changes_the_leaf() {
    let with = |change: Change| {
        let mut changed = Record { done: Some(end()), ..record() };
        change(&mut changed);
        bytes(&record_entry(changed))
    };
    let leaves: std::collections::BTreeSet<_> = CHANGES.iter().map(|change| with(*change)).collect();
    assert_eq!(leaves.len(), CHANGES.len());
    let other = Leaves::new().bytes(Some(Seq(8)), &record_entry(record()), &PLACE).to_vec();
    assert_ne!(other, bytes(&record_entry(record())));
}

#[test]
fn every_value_that_may_be_erased_opens_its_commitment_and_stands_nowhere_else() {
    let entry = record_entry(Record { done: Some(end()), ..record() });
    let leaf = bytes(&entry);
    for value in Erasable::ALL {
        let plain = value.value(&entry).unwrap();
        let commitment = commitment(&PLACE.salt(value).unwrap(), &plain).0;
        let found = leaf.windows(32).filter(|window| *window == commitment).count();
        assert_eq!(found, 1, "{}", value.as_str());
    }
    for secret in ["ann", "10.0.0.1", "select name", "by_id", "a view"] {
        assert!(!leaf.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret}");
    }
    for value in Erasable::ALL {
        assert_eq!(
            value.value(&Entry::Settlement(Settlement { seqs: vec![], txn_outcome: TxnOutcome::Unknown })),
            None
        );
    }
}

#[test]
fn the_same_value_has_another_commitment_in_every_place_and_field() {
    let mut seen = std::collections::HashSet::new();
    for salt in [None, Some([1; 16]), Some([2; 16])] {
        for index in [0, 1, 256] {
            for value in Erasable::ALL {
                seen.insert(commitment(&Place { salt, index, seals: None }.salt(value).unwrap(), b"same"));
            }
        }
    }
    assert_eq!(seen.len(), 3 * 3 * Erasable::ALL.len());
}

#[test]
fn remembering_digests_changes_no_leaf() {
    let mut leaves = Leaves::new();
    for round in 0..REMEMBERED_MAX + 10 {
        let mut own = record();
        Arc::make_mut(&mut own.who).session = round.to_string();
        own.sql = Some(Sql::Shared(format!("select {round}").into_bytes().into()));
        let once =
            Record { sql: own.sql.as_ref().map(|sql| Sql::Once(sql.as_bytes().into())), ..own.clone() };
        let expected = bytes(&record_entry(once));
        for _ in 0..2 {
            assert_eq!(leaves.bytes(Some(Seq(7)), &record_entry(own.clone()), &PLACE), expected);
        }
    }
}

#[test]
fn the_largest_leaf_is_bounded() {
    let long = "x".repeat(TEXT_MAX);
    let done = Completion { command: long.clone().into(), sqlstate: long, ..end() };
    assert!(bytes(&record_entry(Record { done: Some(done), ..record() })).len() <= LEAF_BYTES_MAX);
}
