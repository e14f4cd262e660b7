//! One private PostgreSQL for this test process, with the sample shop in it, and a database of its own for
//! each test that wants one. The server goes when the process ends, however it ends.
#![allow(dead_code, reason = "not every way to look at the server is in use at all times")]
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use pgwitness::demo::postgres::{self, Connected, PrivatePostgres, Role, Settings};
use pgwitness::demo::shop::{self, Shop};

/// The server that all tests of this process share.
pub(crate) struct TestPostgres {
    server: PrivatePostgres,
    shop: Shop,
}

/// The shared server: started by the first test that asks.
pub(crate) fn server() -> &'static TestPostgres {
    static SERVER: OnceLock<TestPostgres> = OnceLock::new();
    // A thread of its own: the caller may be inside a runtime, which must not be blocked on another.
    SERVER.get_or_init(|| {
        // Logical decoding is one of the ways in which data leaves.
        let extra = vec![("wal_level".to_owned(), "logical".to_owned())];
        std::thread::spawn(|| start(extra)).join().expect("the shared server starts")
    })
}

fn start(extra: Vec<(String, String)>) -> TestPostgres {
    let bin = postgres::find(None).unwrap_or_else(|error| panic!("{error}"));
    let settings = Settings { extra, ..Settings::default() };
    let server = PrivatePostgres::start(&bin, settings).unwrap_or_else(|error| panic!("{error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let admin = server.config(server.superuser(), "postgres");
    let shop = runtime.block_on(Shop::load(&admin)).unwrap_or_else(|error| panic!("{error}"));
    TestPostgres { server, shop }
}

impl TestPostgres {
    /// Another server, for a test that changes or breaks it. Blocks: call it from a thread that may.
    pub(crate) fn start(extra: Vec<(String, String)>) -> Self {
        start(extra)
    }

    /// Stops it at once, without waiting for anybody.
    pub(crate) fn stop(self) {
        self.server.stop().unwrap();
    }

    /// What libpq calls host: the folder of the socket.
    pub(crate) fn socket_dir(&self) -> &Path {
        self.server.socket_dir()
    }

    /// What libpq calls port.
    pub(crate) fn port(&self) -> u16 {
        self.server.port()
    }

    /// The superuser.
    pub(crate) fn superuser(&self) -> &Role {
        self.server.superuser()
    }

    /// The connection string of the superuser.
    pub(crate) fn superuser_url(&self, dbname: &str) -> String {
        self.server.libpq_url(self.superuser(), dbname)
    }

    /// The shop's roles with their passwords; they exist once, for all databases.
    pub(crate) fn shop(&self) -> &Shop {
        &self.shop
    }

    /// Connects past any gateway.
    pub(crate) async fn connect(&self, role: &Role, dbname: &str) -> Connected {
        let config = self.server.config(role, dbname);
        postgres::connect(&config).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// A new empty database of the test's own.
    pub(crate) async fn database(&self) -> String {
        self.create("template0").await
    }

    /// A copy of the shop of the test's own. (The database `shop` itself is the template: leave it alone.)
    pub(crate) async fn shop_copy(&self) -> String {
        let name = self.create(shop::DATABASE).await;
        let admin = self.connect(self.superuser(), "postgres").await;
        admin.batch_execute(&shop::database_grants(&name)).await.unwrap();
        admin.close().await;
        name
    }

    /// A new role with a random password.
    pub(crate) async fn role(&self, name: &str) -> Role {
        let role = Role::random(name);
        let admin = self.connect(self.superuser(), "postgres").await;
        role.create(&admin).await.unwrap();
        admin.close().await;
        role
    }

    /// One of PostgreSQL's own programs (psql, pgbench, pg_dump), set up to reach a database as somebody.
    pub(crate) fn program(&self, name: &str, role: &Role, dbname: &str) -> Command {
        let mut command = Command::new(self.server.bin().program(name));
        command.env("PGHOST", self.socket_dir()).env("PGPORT", self.port().to_string());
        command.env("PGUSER", &role.name).env("PGPASSWORD", role.password.reveal());
        command.env("PGDATABASE", dbname).env("PSQLRC", "/dev/null").env("LC_ALL", "C.UTF-8");
        command
    }

    async fn create(&self, template: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let admin = self.connect(self.superuser(), "postgres").await;
        admin.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await.unwrap();
        admin.close().await;
        name
    }
}
