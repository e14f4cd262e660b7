//! Records as a busy place makes them: 5,000 shapes of statements, 2,000 users, 40 databases, all by
//! Zipf. For benchmarks; the same seed makes the same records.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use pgwitness_index::record::{
    Certainty, Class, Completion, Event, Outcome, Param, Record, Seq, Shape, Sql, Timestamp, TxnOutcome, Who,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub(crate) const SHAPES: usize = 5_000;
pub(crate) const USERS: usize = 2_000;
pub(crate) const DATABASES: usize = 40;
/// When the first record starts, microseconds since 1970.
const BEGIN: i64 = 1_795_000_000_000_000;
/// One statement in so many is prepared.
const PREPARED: usize = 3;

const COMMANDS: [(&str, Class); 4] =
    [("SELECT", Class::Read), ("INSERT", Class::Write), ("UPDATE", Class::Write), ("DELETE", Class::Write)];
const NOUNS: [&str; 10] = [
    "orders",
    "customers",
    "invoices",
    "payments",
    "sessions",
    "events",
    "products",
    "addresses",
    "users",
    "audit",
];
const COLUMNS: [&str; 10] =
    ["id", "email", "status", "created_at", "amount", "country", "name", "token", "kind", "parent_id"];

/// One kind of statement.
pub(crate) struct Kind {
    pub(crate) shape: Arc<Shape>,
    /// The text with `{}` where its values go.
    pattern: String,
    /// What the values are, in order: n number, e e-mail, u UUID, w word.
    values: &'static str,
    /// For a prepared statement.
    prepared: Option<Arc<[u8]>>,
}

/// Chooses among many, the first ones most often: item k with weight 1/k.
pub(crate) struct Zipf(Vec<f64>);

impl Zipf {
    pub(crate) fn new(count: usize) -> Self {
        let mut sum = 0.0;
        Self(
            (1..=count)
                .map(|k| {
                    sum += 1.0 / k as f64;
                    sum
                })
                .collect(),
        )
    }

    pub(crate) fn pick(&self, rng: &mut StdRng) -> usize {
        let total = self.0.last().copied().unwrap_or(1.0);
        let at = rng.gen_range(0.0..total);
        self.0.partition_point(|sum| *sum <= at).min(self.0.len() - 1)
    }
}

/// Makes records.
pub(crate) struct Generator {
    rng: StdRng,
    kinds: Arc<[Kind]>,
    kind: Arc<Zipf>,
    user: Arc<Zipf>,
    database: Arc<Zipf>,
    whos: HashMap<(usize, usize), Arc<Who>>,
    time: i64,
    /// Microseconds between two records, on average.
    pub(crate) pace_us: i64,
}

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            kinds: (0..SHAPES).map(kind).collect(),
            kind: Arc::new(Zipf::new(SHAPES)),
            user: Arc::new(Zipf::new(USERS)),
            database: Arc::new(Zipf::new(DATABASES)),
            whos: HashMap::new(),
            time: BEGIN,
            pace_us: 200,
        }
    }

    /// Another one for the same statements: for another thread or session.
    pub(crate) fn fork(&self, seed: u64) -> Self {
        let Self { kinds, kind, user, database, .. } = self;
        Self {
            rng: StdRng::seed_from_u64(seed),
            kinds: kinds.clone(),
            kind: kind.clone(),
            user: user.clone(),
            database: database.clone(),
            whos: HashMap::new(),
            time: self.time,
            pace_us: self.pace_us,
        }
    }

    /// The next record of one session.
    pub(crate) fn record_as(&mut self, user: usize, database: usize) -> Record {
        let kind = self.kind.pick(&mut self.rng);
        self.record_of(kind, user, database)
    }

    /// The next record of the mixed load; its end is promised.
    pub(crate) fn record(&mut self) -> Record {
        let kind = self.kind.pick(&mut self.rng);
        let user = self.user.pick(&mut self.rng);
        // Most people use one database.
        let own = self.database.pick(&mut StdRng::seed_from_u64(user as u64));
        let database = if self.rng.gen_ratio(1, 50) { self.database.pick(&mut self.rng) } else { own };
        self.record_of(kind, user, database)
    }

    /// The next record of one kind, one user and one database: a hot statement of a pool.
    pub(crate) fn record_of(&mut self, kind: usize, user: usize, database: usize) -> Record {
        self.time += self.rng.gen_range(0..=2 * self.pace_us);
        let time = Timestamp(self.time);
        let id =
            uuid::Builder::from_unix_timestamp_millis(self.time as u64 / 1000, &self.rng.r#gen()).into_uuid();
        let who = self.whos.entry((user, database)).or_insert_with(|| Arc::new(who(user, database))).clone();
        let kind = &self.kinds[kind];
        let (sql, params) = match &kind.prepared {
            Some(text) => {
                let params = kind.values.chars().map(|what| param(what, &mut self.rng)).collect();
                (Sql::Shared(text.clone()), params)
            }
            None => (Sql::Once(text(kind, &mut self.rng).into_bytes().into()), Vec::new()),
        };
        let detail = if params.is_empty() { String::new() } else { "s1".into() };
        let (sql, shape, event) = (Some(sql), Some(kind.shape.clone()), Event::Query);
        Record { id, time, event, who, sql, shape, params, detail, done: None }
    }

    /// How a record ends: of a hundred one fails.
    pub(crate) fn end(&mut self, seq: Seq, record: &Record) -> Completion {
        let command = record.shape.as_ref().map_or("SELECT", |shape| command(shape));
        let duration_us = self.rng.gen_range(80..4_000);
        if self.rng.gen_ratio(1, 100) {
            let (sqlstate, error) = ("23505".into(), "duplicate key value violates unique constraint".into());
            let end = Completion::new(Outcome::Error, TxnOutcome::RolledBack);
            return Completion { seq, sqlstate, error, duration_us, ..end };
        }
        let (rows, bytes) = (Some(self.rng.gen_range(0..50)), self.rng.gen_range(0..2_000));
        let end = Completion::new(Outcome::Ok, TxnOutcome::Committed);
        Completion { seq, command: command.into(), rows, bytes, duration_us, ..end }
    }
}

fn command(shape: &Shape) -> &'static str {
    COMMANDS.iter().find(|(command, _)| *command == shape.command).map_or("SELECT", |(command, _)| command)
}

fn kind(number: usize) -> Kind {
    let (command, class) = COMMANDS[[0, 0, 0, 0, 0, 0, 1, 2, 2, 3][number % 10]];
    let table = format!("{}_{}", NOUNS[number % 7], number / 70);
    let column = |n: usize| COLUMNS[(number / 10 + n) % 10];
    let (a, b, c, d) = (column(0), column(1), column(2), column(3));
    let (pattern, values) = match command {
        "INSERT" => (
            format!(
                "INSERT INTO public.{table} ({a}, {b}, {c}, {d}) VALUES ({{}}, {{}}, {{}}, {{}}) RETURNING id"
            ),
            "newu",
        ),
        "UPDATE" => {
            (format!("UPDATE public.{table} SET {a} = {{}}, updated_at = now() WHERE {b} = {{}}"), "wn")
        }
        "DELETE" => (format!("DELETE FROM public.{table} WHERE {a} = {{}}"), "u"),
        _ if number.is_multiple_of(2) => (
            format!(
                "SELECT t.{a}, t.{b}, t.{c} FROM public.{table} t WHERE t.{d} = {{}} AND t.{a} > {{}} ORDER BY t.{b} DESC LIMIT 50"
            ),
            "en",
        ),
        _ => (format!("SELECT {a}, {b} FROM public.{table} WHERE {c} = {{}}"), "n"),
    };
    let prepared = number.is_multiple_of(PREPARED).then(|| {
        let mut text = String::new();
        for (index, part) in pattern.split("{}").enumerate() {
            if index > 0 {
                let _ = write!(text, "${index}");
            }
            text.push_str(part);
        }
        Arc::from(text.into_bytes())
    });
    let named = |column: &str| format!("public.{table}.{column}");
    let reads = if class == Class::Read { vec![named(a), named(b)] } else { Vec::new() };
    let writes = if class == Class::Write { vec![named(a), named(b)] } else { Vec::new() };
    let shape = Shape {
        fingerprint: format!("{:016x}", (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        command: command.into(),
        class: vec![class],
        tables: vec![format!("public.{table}")],
        reads,
        filters: vec![named(c)],
        writes,
        via: Vec::new(),
        analysis: Certainty::Exact,
        analysis_notes: Vec::new(),
        tags: if b == "email" { vec!["pii".into()] } else { Vec::new() },
    };
    Kind { shape: Arc::new(shape), pattern, values, prepared }
}

fn who(user: usize, database: usize) -> Who {
    let login = format!("{:08x}-{database}", user * 7919);
    Who {
        user: format!("user{user}@example.com"),
        sub: format!("auth0|{:012x}", user * 104_729),
        iss: "https://login.example.com".into(),
        groups: vec!["staff".into(), format!("team-{}", user % 50)],
        session: format!("s-{login}"),
        login,
        auth: vec![("mode".into(), "device".into()), ("amr".into(), "pwd,otp".into())],
        role: "app_rw".into(),
        db: format!("db_{database}"),
        upstream: "main".into(),
        search_path: "\"$user\", public".into(),
        ip: format!("10.{}.{}.{}", user / 256 % 256, user % 256, database),
        app: ["psql", "DBeaver 24", "metabase", "rails"][user % 4].into(),
        device: String::new(),
    }
}

fn text(kind: &Kind, rng: &mut StdRng) -> String {
    let mut text = String::with_capacity(kind.pattern.len() + 64);
    let mut values = kind.values.chars();
    for (index, part) in kind.pattern.split("{}").enumerate() {
        if index > 0 {
            match param(values.next().unwrap_or('n'), rng) {
                Param::Int(number) => _ = write!(text, "{number}"),
                Param::Text(word) => _ = write!(text, "'{word}'"),
                _ => {}
            }
        }
        text.push_str(part);
    }
    text
}

fn param(what: char, rng: &mut StdRng) -> Param {
    match what {
        'e' => Param::Text(format!("user{}@example.com", rng.gen_range(0..1_000_000))),
        'u' => Param::Text(uuid::Uuid::from_u128(rng.r#gen()).to_string()),
        'w' => Param::Text(["new", "paid", "shipped", "closed", "returned"][rng.gen_range(0..5)].into()),
        _ => Param::Int(rng.gen_range(0..10_000_000)),
    }
}
