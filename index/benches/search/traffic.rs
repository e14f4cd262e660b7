//! Made-up traffic: the same for the same seed.

use std::sync::Arc;

use pgwitness_index::record::{
    Certainty, Class, Completion, Entry, Event, Outcome, Param, Record, Seq, Shape, Sql, Timestamp,
    TxnOutcome, Who,
};
use uuid::Uuid;

/// 2026-11-21T12:00:00Z.
pub(crate) const NOON: Timestamp = Timestamp(1_795_262_400_000_000);

const SHAPES: u64 = 5_000;
const USERS: u64 = 2_000;
const DATABASES: u64 = 40;
const TABLES: u64 = 400;
/// Between two records.
const STEP_US: i64 = 200;

/// One statement as programs send it.
struct Template {
    shape: Arc<Shape>,
    /// Prepared statements have their text here.
    prepared: Option<Arc<[u8]>>,
    text: String,
}

/// A source of entries.
pub(crate) struct Traffic {
    random: u64,
    templates: Vec<Template>,
    sessions: Vec<Arc<Who>>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Mixed,
    Hot,
    Pgbench,
}

impl Traffic {
    /// Many people, many statements.
    pub(crate) fn mixed(seed: u64) -> Traffic {
        Traffic {
            random: seed,
            templates: (0..SHAPES).map(template).collect(),
            sessions: (0..USERS).map(session).collect(),
            kind: Kind::Mixed,
        }
    }

    /// One prepared statement in one session, with a number, an e-mail address and a UUID.
    pub(crate) fn hot(seed: u64) -> Traffic {
        Traffic { kind: Kind::Hot, ..Traffic::mixed(seed) }
    }

    /// What `pgbench -S -c 8` sends: one statement with one number, in eight sessions by turns.
    pub(crate) fn pgbench(seed: u64) -> Traffic {
        let mut template = template(0);
        template.prepared = None;
        template.text = "SELECT abalance FROM pgbench_accounts WHERE aid = $1;".to_owned();
        let sessions = (0..8).map(session).collect();
        Traffic { random: seed, templates: vec![template], sessions, kind: Kind::Pgbench }
    }

    /// So many records from `first` on, each followed by its end within the batch.
    pub(crate) fn batch(&mut self, first: u64, count: u64, out: &mut Vec<Entry>) {
        for seq in first..first + count {
            let entry = self.record(seq);
            out.push(entry);
        }
        for seq in first..first + count {
            let entry = Entry::Completion(self.end(seq));
            out.push(entry);
        }
    }

    pub(crate) fn record(&mut self, seq: u64) -> Entry {
        let (shape, user) = match self.kind {
            Kind::Mixed => (self.zipf(SHAPES), self.zipf(USERS)),
            Kind::Hot => (0, 0),
            Kind::Pgbench => (0, self.next() % 8),
        };
        let (number, person, uuid) = (self.next() % 1_000_000, self.next() % 20_000, self.next());
        let random = (self.next() & 0xfff, self.next() >> 2);
        let template = &self.templates[shape as usize];
        let id = Uuid::from_u128(u128::from(uuid) << 64 | u128::from(number));
        let values = (number, mail(person), id.to_string());
        let (sql, params) = match &template.prepared {
            Some(text) => {
                let params = vec![
                    Param::Int(values.0 as i64),
                    Param::Text(values.1),
                    if shape.is_multiple_of(7) { Param::Text(values.2) } else { Param::Null },
                ];
                (Sql::Shared(Arc::clone(text)), params)
            }
            None => {
                let text = template
                    .text
                    .replace("$1", &values.0.to_string())
                    .replace("$2", &format!("'{}'", values.1))
                    .replace("$3", &format!("'{}'", values.2));
                (Sql::Once(text.into_bytes().into()), Vec::new())
            }
        };
        let time = Timestamp(NOON.0 + seq as i64 * STEP_US);
        Entry::Record(Box::new(Record {
            // As the gateway makes them: milliseconds, version 7, variant 2, and nothing to be guessed.
            id: Uuid::from_u128(
                ((time.0 / 1_000) as u128) << 80
                    | 0x7000_8000_0000_0000_0000
                    | u128::from(random.0) << 64
                    | u128::from(random.1),
            ),
            time,
            event: Event::Query,
            who: Arc::clone(&self.sessions[user as usize]),
            sql: Some(sql),
            shape: Some(Arc::clone(&template.shape)),
            params,
            detail: String::new(),
            done: None,
        }))
    }

    pub(crate) fn end(&mut self, seq: u64) -> Completion {
        let draw = self.next();
        let failed = self.kind != Kind::Pgbench && draw.is_multiple_of(200);
        let outcome = if failed { Outcome::Error } else { Outcome::Ok };
        let mut end = Completion::new(outcome, TxnOutcome::Committed);
        end.seq = Seq(seq);
        end.command = "SELECT".into();
        end.rows = Some(draw >> 8 & 15);
        end.bytes = draw >> 12 & 4095;
        end.duration_us = draw >> 24 & 16_383;
        if failed {
            end.txn_outcome = TxnOutcome::RolledBack;
            end.sqlstate = "23505".to_owned();
            end.error = "duplicate key value violates unique constraint \"table7_pkey\"".to_owned();
        }
        end
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Below `n`, the first the most frequent, by Zipf's law of exponent one.
    fn zipf(&mut self, n: u64) -> u64 {
        let uniform = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        (((n + 1) as f64).powf(uniform) as u64).clamp(1, n) - 1
    }
}

/// An address that occurs as a value.
pub(crate) fn mail(n: u64) -> String {
    format!("customer{n}@mail.example")
}

fn session(n: u64) -> Arc<Who> {
    Arc::new(Who {
        user: format!("user{n}@example.org"),
        sub: format!("00u{n:017}"),
        iss: "https://id.example.org/oauth2/default".to_owned(),
        groups: vec!["staff".to_owned(), format!("team-{}", n % 30)],
        login: format!("0190aaaa-0000-7000-8000-{n:012}"),
        session: format!("0190bbbb-0000-7000-8000-{n:012}"),
        auth: vec![("mode".to_owned(), "device".to_owned()), ("amr".to_owned(), "pwd,mfa".to_owned())],
        role: ["app_read", "app_write", "reporting"][n as usize % 3].to_owned(),
        db: format!("shop{}", n % DATABASES),
        upstream: "main".to_owned(),
        search_path: "\"$user\", public".to_owned(),
        ip: format!("10.{}.{}.{}", n % 7, n / 256 % 256, n % 256),
        app: ["psql", "DBeaver 24", "orders-service"][n as usize % 3].to_owned(),
        device: String::new(),
    })
}

fn template(n: u64) -> Template {
    let table = format!("public.table{}", n % TABLES);
    let other = format!("sales.order_items{}", n * 7 % TABLES);
    let columns = |table: &str, from: u64, count: u64| -> Vec<String> {
        let mut names: Vec<String> =
            (from..from + count).map(|column| format!("{table}.column_{}", column % 40)).collect();
        names.sort();
        names.dedup();
        names
    };
    let write = n % 5 == 4;
    let list: Vec<String> = (n..n + 6).map(|column| format!("t.column_{}", column % 40)).collect();
    let text = if write {
        format!(
            "UPDATE {table} AS t SET column_{} = $1 WHERE email = $2 AND token IS NOT DISTINCT FROM $3",
            n % 40
        )
    } else {
        format!(
            "SELECT {} FROM {table} t LEFT JOIN {other} i ON i.table_id = t.id WHERE t.column_{} > $1 AND \
             t.email = $2 AND t.token IS NOT DISTINCT FROM $3 ORDER BY t.created_at DESC LIMIT {}",
            list.join(", "),
            n % 40,
            n % 100 + 1
        )
    };
    let shape = Shape {
        fingerprint: format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        command: if write { "UPDATE" } else { "SELECT" }.to_owned(),
        class: vec![if write { Class::Write } else { Class::Read }],
        tables: if write { vec![table.clone()] } else { vec![table.clone(), other.clone()] },
        reads: if write { Vec::new() } else { columns(&table, n, 6) },
        filters: vec![format!("{table}.email"), format!("{table}.token")],
        writes: if write { columns(&table, n, 1) } else { Vec::new() },
        via: Vec::new(),
        analysis: Certainty::Exact,
        analysis_notes: Vec::new(),
        tags: if n.is_multiple_of(9) { vec!["pii".to_owned()] } else { Vec::new() },
    };
    let prepared = n.is_multiple_of(2).then(|| Arc::from(text.as_bytes()));
    Template { shape: Arc::new(shape), prepared, text }
}
