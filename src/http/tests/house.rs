//! A whole house on loopback: the demo's identity provider, a journal with records, the index built
//! from it, and the API above them.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgwitness_index::journal::{Journal, Options, Position};
use pgwitness_index::proof::note::SignerKey;
use pgwitness_index::proof::{Latest, TreeWriter};
use pgwitness_index::record::*;
use pgwitness_index::search::{self, Indexer, Search};
use pgwitness_index::storage::{DirStorage, Storage};
use serde_json::{Value, json};
use sha2::Digest as _;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use url::Url;
use uuid::Uuid;

use crate::config::Access;
use crate::demo::provider::{DemoProvider, Person};
use crate::http::{Api, Erasure, NotErased, Parts, Reach, Witness, router, serve, when};
use crate::identity::{Logins, MintedTokens, Pairings, Provider, Whose};
use crate::proving::Proofs;

/// May read all.
pub(crate) const ANA: &str = "ana@shop.example";
/// Reads their own.
pub(crate) const MARIA: &str = "maria@shop.example";
/// Operates.
pub(crate) const TOM: &str = "tom@shop.example";

/// See the module.
pub(crate) struct House {
    pub(crate) url: Url,
    pub(crate) provider: DemoProvider,
    pub(crate) logins: Logins,
    pub(crate) pairings: Pairings,
    pub(crate) book: Arc<Book>,
    pub(crate) http: reqwest::Client,
    _stop: DropGuard,
    _dir: tempfile::TempDir,
}

/// The journal and its index, in the place of the gateway's recorder.
pub(crate) struct Book {
    journal: Mutex<Journal>,
    indexer: Mutex<Indexer>,
    full: AtomicBool,
    recorded: Mutex<Vec<Record>>,
    tree: Mutex<TreeWriter>,
    proofs: Proofs,
}

impl Book {
    fn open(dir: &Path) -> (Arc<Self>, Search) {
        let storage: Arc<dyn Storage> = Arc::new(DirStorage::create(dir.join("journal")).unwrap());
        let (journal, _) = Journal::open(Arc::clone(&storage), Options::default()).unwrap();
        let options = search::Options { memory_bytes: 15 << 20 };
        let (indexer, search) = Indexer::open(&dir.join("index"), Arc::clone(&storage), options).unwrap();
        let (latest, key) = (Latest::default(), sign_key().public().clone());
        let tree = TreeWriter::open(Arc::clone(&storage), &key, latest.clone()).unwrap();
        let book = Self {
            journal: Mutex::new(journal),
            indexer: Mutex::new(indexer),
            full: AtomicBool::new(false),
            recorded: Mutex::default(),
            tree: Mutex::new(tree),
            proofs: Proofs::new(storage, latest, key),
        };
        (Arc::new(book), search)
    }

    /// Writes entries and makes them findable.
    pub(crate) fn write(&self, entries: &[Entry]) {
        self.journal.lock().unwrap().append(entries).unwrap();
        let mut indexer = self.indexer.lock().unwrap();
        while !indexer.step(1000).unwrap().caught_up {}
        indexer.commit().unwrap();
    }

    /// The last record's position.
    pub(crate) fn head_seq(&self) -> u64 {
        self.journal.lock().unwrap().head().seq.0
    }

    /// Signs what was written.
    pub(crate) fn sign(&self) {
        let mut tree = self.tree.lock().unwrap();
        let all = Position { segment: u64::MAX, offset: u64::MAX };
        while !tree.step(all, 1000).unwrap() {}
        tree.publish(&sign_key()).unwrap();
    }

    /// From now on, nothing can be recorded; or it can again.
    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }

    /// The records about reading of one kind: who, and what they asked.
    pub(crate) fn readings(&self, event: Event) -> Vec<(String, String)> {
        let recorded = self.recorded.lock().unwrap();
        let of_kind = recorded.iter().filter(|record| record.event == event);
        of_kind.map(|record| (record.who.user.clone(), record.detail.clone())).collect()
    }
}

/// Signs the log.
fn sign_key() -> SignerKey {
    SignerKey::from_seed("shop.example/log", &[1; 32]).unwrap()
}

impl Witness for Book {
    fn record(&self, record: Record) -> Result<(), String> {
        if self.full.load(Ordering::SeqCst) {
            return Err("the disk is full".into());
        }
        self.write(&[Entry::Record(Box::new(record.clone()))]);
        self.recorded.lock().unwrap().push(record);
        Ok(())
    }

    fn head(&self) -> Value {
        let head = self.journal.lock().unwrap().head();
        json!({ "seq": head.seq.0, "frames": head.frames, "digest": head.digest.to_string() })
    }

    fn status(&self) -> Value {
        json!({ "state": "serving" })
    }

    fn sessions(&self) -> Vec<Value> {
        let one = |user: &str, sql: &str| {
            let (iss, sub) = (self.issuer(), subject(user));
            json!({ "session": format!("s-{user}"), "user": user, "iss": iss, "sub": sub, "state": "active", "sql": sql })
        };
        vec![one(MARIA, "select 1"), one(ANA, "select 2")]
    }

    fn erased(&self, _: Seq) -> Result<Vec<Value>, String> {
        Ok(Vec::new())
    }

    fn erase(&self, erasure: Erasure) -> Result<Seq, NotErased> {
        let mut head = Seq(self.head_seq());
        head.0 += 1;
        match erasure.reason.as_str() {
            "held" => Err(NotErased::Refused("the record is under a legal hold".into())),
            _ => Ok(head),
        }
    }

    fn end(&self, whose: &Whose) -> usize {
        usize::from(*whose != Whose::Session(String::new()))
    }

    fn keep(&self) -> Result<(), String> {
        if self.full.load(Ordering::SeqCst) { Err("the disk is full".into()) } else { Ok(()) }
    }
}

impl Book {
    fn issuer(&self) -> String {
        self.recorded.lock().unwrap().iter().map(|record| record.who.iss.clone()).next().unwrap_or_default()
    }
}

impl House {
    /// Opens the house with the sample records.
    pub(crate) async fn open() -> Self {
        Self::reached(Reach::PlainLoopback).await
    }

    /// The same, reached in that way; HTTPS ends before us.
    pub(crate) async fn reached(reach: Reach) -> Self {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider = DemoProvider::start(listener, people(), &tracker, stop.clone()).unwrap();
        let (book, search) = Book::open(dir.path());
        book.write(&samples(provider.issuer()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let known = Provider::new(provider.oidc(Duration::from_secs(3600))).unwrap();
        let minted = MintedTokens::new();
        let pairings = Pairings::new(tracker.clone(), stop.clone());
        let mut public_url = url.clone();
        if reach == Reach::Https {
            public_url.set_scheme("https").unwrap();
        }
        let logins = Logins::new(known.clone(), Some(&public_url), (100, 50));
        let api = Api::new(Parts {
            search,
            provider: known,
            approvals: logins.page().cloned(),
            minted: minted.clone(),
            pairings: pairings.clone(),
            access: Access { auditor: vec!["group:security".into()], admin: vec!["group:platform".into()] },
            public_url,
            reach,
            warnings: Vec::new(),
            hashed: None,
            witness: Arc::clone(&book) as Arc<dyn Witness>,
            proofs: book.proofs.clone(),
        });
        tracker.spawn(serve(listener, router(api), tracker.clone(), stop.clone()));
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy();
        let http = http.timeout(Duration::from_secs(20)).build().unwrap();
        Self { url, provider, logins, pairings, book, http, _stop: stop.drop_guard(), _dir: dir }
    }

    /// A person's statement, now; its position.
    pub(crate) fn say(&self, user: &str, command: &str, sql: &str, done: Option<Completion>) -> u64 {
        let mut record =
            statement(self.provider.issuer(), user, when::now(), Uuid::now_v7(), sql, &[], &[], done);
        if let Some(shape) = &mut record.shape {
            Arc::make_mut(shape).command = command.into();
        }
        self.book.write(&[Entry::Record(Box::new(record))]);
        self.book.head_seq()
    }

    /// The end of a statement that ran.
    pub(crate) fn end(&self, seq: u64, outcome: Outcome) {
        let end = Completion::new(outcome, TxnOutcome::Committed);
        self.book.write(&[Entry::Completion(Completion { seq: Seq(seq), ..end })]);
    }

    /// An address of the API.
    pub(crate) fn at(&self, path: &str) -> Url {
        self.url.join(path).unwrap()
    }

    /// An ID token of a person, by device login.
    pub(crate) async fn token(&self, who: &str) -> String {
        let issuer = self.provider.issuer();
        let post = async |path: &str, form: &[(&str, &str)]| -> Value {
            self.http.post(format!("{issuer}{path}")).form(form).send().await.unwrap().json().await.unwrap()
        };
        let begun = post("/device_authorization", &[("client_id", "pgwitness"), ("scope", "openid")]).await;
        self.provider.approve(begun["user_code"].as_str().unwrap(), who).unwrap();
        let form = [
            ("client_id", "pgwitness"),
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", begun["device_code"].as_str().unwrap()),
        ];
        post("/token", &form).await["id_token"].as_str().unwrap().to_owned()
    }

    /// GET as a person: status and JSON.
    pub(crate) async fn get(&self, token: &str, path: &str) -> (u16, Value) {
        let answer = self.http.get(self.at(path)).bearer_auth(token).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }
}

/// The end of a statement that went well.
pub(crate) fn ended() -> Option<Completion> {
    Some(Completion::new(Outcome::Ok, TxnOutcome::Committed))
}

/// The end of a statement that failed.
pub(crate) fn failed() -> Option<Completion> {
    Some(Completion::new(Outcome::Error, TxnOutcome::RolledBack))
}

fn people() -> Vec<Person> {
    let one = |name: &str, email: &str, group: &str| Person {
        name: name.into(),
        email: email.into(),
        groups: vec![group.into()],
    };
    vec![one("Ana", ANA, "security"), one("Maria", MARIA, "analysts"), one("Tom", TOM, "platform")]
}

/// The demo provider's id of a person.
fn subject(email: &str) -> String {
    sha2::Sha256::digest(email.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Statements of Maria and Ana, a login, a refusal, one that still runs; oldest first.
fn samples(issuer: &str) -> Vec<Entry> {
    let now = when::now();
    let mut entries = Vec::new();
    let mut add =
        |user: &str, ago_s: i64, sql: &str, tables: &[&str], reads: &[&str], done: Option<Completion>| {
            let at = Timestamp(now.0 - ago_s * 1_000_000);
            let id = Uuid::now_v7();
            entries.push(Entry::Record(Box::new(statement(issuer, user, at, id, sql, tables, reads, done))));
        };
    let ok = |rows: u64, duration_us: u64| {
        let mut done = Completion::new(Outcome::Ok, TxnOutcome::Committed);
        (done.rows, done.duration_us, done.bytes) = (Some(rows), duration_us, rows * 64);
        Some(done)
    };
    let mut failed = Completion::new(Outcome::Error, TxnOutcome::RolledBack);
    (failed.sqlstate, failed.error) = ("42P01".into(), "relation \"custmers\" does not exist".into());
    for n in 0..40_i64 {
        let sql = format!("select id, total from orders where customer_id = {n} order by total desc");
        let done = ok(n.unsigned_abs(), 900 + 37 * n.unsigned_abs());
        add(
            MARIA,
            3000 - n * 61,
            &sql,
            &["public.orders"],
            &["public.orders.id", "public.orders.total"],
            done,
        );
    }
    let customers = ["public.customers.email", "public.customers.id"];
    add(
        MARIA,
        500,
        "select id, email from customers\nwhere country = 'PT'",
        &["public.customers"],
        &customers,
        ok(12, 2_345),
    );
    add(MARIA, 400, "select * from custmers", &[], &[], Some(failed));
    add(
        ANA,
        300,
        "select email from customers -- <img src=x onerror=alert(1)> \u{202e}\u{1b}[31m",
        &["public.customers"],
        &customers[..1],
        ok(50_000, 3_210_000),
    );
    add(MARIA, 2, "select pg_sleep(60)", &[], &[], None);
    entries
}

#[allow(clippy::too_many_arguments)]
fn statement(
    issuer: &str,
    user: &str,
    time: Timestamp,
    id: Uuid,
    sql: &str,
    tables: &[&str],
    reads: &[&str],
    done: Option<Completion>,
) -> Record {
    let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let who = Who {
        user: user.into(),
        sub: subject(user),
        iss: issuer.into(),
        groups: vec!["analysts".into()],
        login: "0197-login".into(),
        session: format!("session-{user}"),
        auth: vec![("mode".into(), "device".into()), ("amr".into(), "demo".into())],
        role: "app_read".into(),
        db: "shop".into(),
        upstream: "shop".into(),
        search_path: "\"$user\", public".into(),
        ip: "127.0.0.1".into(),
        app: "psql".into(),
        device: String::new(),
    };
    let shape = Shape {
        fingerprint: "9f0c1d2e3a4b5c6d".into(),
        command: "SELECT".into(),
        class: vec![Class::Read],
        tables: list(tables),
        reads: list(reads),
        filters: tables.iter().map(|table| format!("{table}.country")).collect(),
        writes: Vec::new(),
        via: Vec::new(),
        analysis: if tables.is_empty() { Certainty::Partial } else { Certainty::Exact },
        analysis_notes: Vec::new(),
        tags: if reads.iter().any(|name| name.ends_with("email")) { vec!["pii".into()] } else { Vec::new() },
    };
    Record {
        id,
        time,
        event: Event::Query,
        who: Arc::new(who),
        sql: Some(Sql::Once(sql.as_bytes().into())),
        shape: Some(Arc::new(shape)),
        params: vec![Param::Text("PT".into()), Param::Null],
        detail: String::new(),
        done,
    }
}
