//! TLS on both sides: certificates of clients and of the gateway, and a real PostgreSQL that asks for every
//! kind of login.
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use pgwitness::config::{
    AuthMethod, ChannelBinding, ClientCertificates, Config, Credential, ListenTls, RoleMapping, SslMode,
    TlsFiles, TlsVersion, Upstream,
};
use pgwitness::demo::postgres::{self as private, PrivatePostgres, Role};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::support::gateway::{Settings, TestGateway};
use super::support::wire::{SSL_REQUEST, Wire, connect, error_code, message, startup};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls").join(name)
}

fn files(name: &str) -> TlsFiles {
    TlsFiles { cert: file(&format!("{name}.crt")), key: file(&format!("{name}.key")) }
}

/// A client that trusts one certificate, and may show one of its own.
fn connector(
    trusted: &str,
    own: Option<&str>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file(trusted)).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_protocol_versions(versions).with_root_certificates(roots);
    let config = match own.map(files) {
        None => config.with_no_client_auth(),
        Some(own) => {
            let chain = vec![CertificateDer::from_pem_file(own.cert).unwrap()];
            config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(own.key).unwrap()).unwrap()
        }
    };
    TlsConnector::from(Arc::new(config))
}

async fn handshake(gateway: &TestGateway, connector: TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    let mut stream = connect(gateway).await;
    stream.write_all(&SSL_REQUEST).await?;
    assert_eq!(stream.read_u8().await?, b'S');
    connector.connect(ServerName::try_from("localhost").unwrap(), stream).await
}

async fn session(gateway: &TestGateway, connector: TlsConnector) -> Wire {
    let stream = handshake(gateway, connector).await.unwrap();
    let mut wire = Wire { stream: Box::new(stream) };
    wire.log_in(gateway).await;
    wire
}

/// Whether TLS comes to the point where the gateway answers a startup message.
async fn is_let_in(gateway: &TestGateway, connector: TlsConnector) -> bool {
    let Ok(mut stream) = handshake(gateway, connector).await else { return false };
    let packet = startup(0, &[("user", "ann@example.com"), ("database", gateway.database())]);
    stream.write_all(&packet).await.is_ok() && matches!(stream.read(&mut [0; 8]).await, Ok(1..))
}

fn changed(change: impl FnOnce(&mut Config) + Send + 'static) -> Settings {
    Settings { tls: ListenTls::Require(files("server")), change: Box::new(change), ..Settings::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_read_again_while_sessions_go_on_and_a_broken_file_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let own = TlsFiles { cert: folder.path().join("c.crt"), key: folder.path().join("c.key") };
    let put = |name: &str| {
        std::fs::copy(files(name).cert, &own.cert).unwrap();
        std::fs::copy(files(name).key, &own.key).unwrap();
    };
    put("server");
    let gateway =
        TestGateway::with(Settings { tls: ListenTls::Require(own.clone()), ..Settings::default() }).await;
    let mut before = session(&gateway, connector("server.crt", None, rustls::ALL_VERSIONS)).await;
    put("renewed");
    gateway.reload();
    let mut after = session(&gateway, connector("renewed.crt", None, rustls::ALL_VERSIONS)).await;
    assert!(!is_let_in(&gateway, connector("server.crt", None, rustls::ALL_VERSIONS)).await);
    gateway.records("event:config.reload outcome:ok", 1).await;
    // A certificate whose key is another's, then none at all.
    std::fs::copy(files("server").cert, &own.cert).unwrap();
    gateway.reload();
    std::fs::write(&own.cert, "no certificate").unwrap();
    gateway.reload();
    assert!(is_let_in(&gateway, connector("renewed.crt", None, rustls::ALL_VERSIONS)).await);
    let records = gateway.records("event:config.reload outcome:error", 2).await;
    assert!(
        records.iter().all(|record| record["error"].as_str().unwrap().starts_with("listen: ")),
        "{records:?}"
    );
    for wire in [&mut before, &mut after] {
        assert_eq!(wire.value("SELECT 'goes on'").await, "goes on");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_tls_than_the_least_is_refused() {
    let gateway =
        TestGateway::with(changed(|config| config.listen.tls_min_version = TlsVersion::Tls13)).await;
    assert!(!is_let_in(&gateway, connector("server.crt", None, &[&rustls::version::TLS12])).await);
    assert!(is_let_in(&gateway, connector("server.crt", None, &[&rustls::version::TLS13])).await);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_certificate_is_asked_for_and_stands_in_the_record() {
    let require = |config: &mut Config| {
        config.listen.tls_clients = ClientCertificates::Require(file("client_ca.crt"));
    };
    let gateway = TestGateway::with(changed(require)).await;
    assert!(!is_let_in(&gateway, connector("server.crt", None, rustls::ALL_VERSIONS)).await);
    assert!(!is_let_in(&gateway, connector("server.crt", Some("renewed"), rustls::ALL_VERSIONS)).await);
    let refused = gateway.records("event:denied", 2).await;
    assert!(refused[0]["error"].as_str().unwrap().contains("no certificate"), "{refused:?}");
    assert!(refused[1]["error"].as_str().unwrap().contains("was refused"), "{refused:?}");
    let mut wire = session(&gateway, connector("server.crt", Some("client"), rustls::ALL_VERSIONS)).await;
    assert_eq!(wire.value("SELECT 'shown'").await, "shown");
    let auth = &gateway.records("sql:shown", 1).await[0]["auth"];
    assert_eq!(auth["tls_subject"], "CN=ann laptop,O=Example\\, Inc.");
    assert_eq!(auth["tls_sha256"].as_str().unwrap().len(), 64);
    assert_eq!(auth["tls"], "TLSv1.3");
    gateway.stop().await;
    let optional = |config: &mut Config| {
        config.listen.tls_clients = ClientCertificates::Optional(file("client_ca.crt"));
    };
    let gateway = TestGateway::with(changed(optional)).await;
    let mut wire = session(&gateway, connector("server.crt", None, rustls::ALL_VERSIONS)).await;
    assert_eq!(wire.value("SELECT 'bare'").await, "bare");
    assert_eq!(gateway.records("sql:bare", 1).await[0]["auth"]["tls_sha256"], json!(null));
    assert!(!is_let_in(&gateway, connector("server.crt", Some("renewed"), rustls::ALL_VERSIONS)).await);
    gateway.stop().await;
}

/// A PostgreSQL that speaks TLS and asks each role for another kind of login.
struct Database {
    server: PrivatePostgres,
    port: u16,
    roles: Vec<Role>,
    _folder: tempfile::TempDir,
}

const HBA: &str = "\
local all all scram-sha-256
hostssl all by_scram 127.0.0.1/32 scram-sha-256
hostssl all by_md5 127.0.0.1/32 md5
hostssl all by_clear 127.0.0.1/32 password
hostssl all app_write 127.0.0.1/32 cert
hostssl all by_trust 127.0.0.1/32 trust
";

/// Files that the server's own user may read, and nobody else the key.
fn hand_over(folder: &Path) {
    let id = Command::new("id").args(["-g", "postgres"]).output().unwrap();
    let group = String::from_utf8(id.stdout).unwrap().trim().parse().ok();
    let is_root =
        std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).unwrap();
    let key = folder.join("server.key");
    if let (true, Some(group)) = (is_root, group) {
        chown(&key, None, Some(group)).unwrap();
        std::fs::set_permissions(key, PermissionsExt::from_mode(0o640)).unwrap();
    } else {
        std::fs::set_permissions(key, PermissionsExt::from_mode(0o600)).unwrap();
    }
}

async fn database(certificate: &str) -> Database {
    let folder = tempfile::Builder::new().prefix("pgw-tls").tempdir_in("/tmp").unwrap();
    for (from, to) in [
        (files(certificate).cert, "server.crt"),
        (files(certificate).key, "server.key"),
        (file("client_ca.crt"), "ca.crt"),
    ] {
        std::fs::copy(from, folder.path().join(to)).unwrap();
        std::fs::set_permissions(folder.path().join(to), PermissionsExt::from_mode(0o644)).unwrap();
    }
    std::fs::write(folder.path().join("hba.conf"), HBA).unwrap();
    hand_over(folder.path());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let extra = [
        ("listen_addresses", "127.0.0.1".to_owned()),
        ("ssl", "on".to_owned()),
        ("ssl_cert_file", at("server.crt")),
        ("ssl_key_file", at("server.key")),
        ("ssl_ca_file", at("ca.crt")),
        ("hba_file", at("hba.conf")),
    ];
    let extra = extra.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let settings = private::Settings { port, extra, ..private::Settings::default() };
    let started =
        tokio::task::spawn_blocking(move || PrivatePostgres::start(&private::find(None).unwrap(), settings));
    let server = started.await.unwrap().unwrap();
    let admin = private::connect(&server.config(server.superuser(), "postgres")).await.unwrap();
    let mut roles = Vec::new();
    for name in ["by_scram", "by_clear", "app_write", "by_trust"] {
        let role = Role::random(name);
        role.create(&admin).await.unwrap();
        roles.push(role);
    }
    let by_md5 = Role::random("by_md5");
    let sql = "SET password_encryption = 'md5'; CREATE ROLE by_md5 LOGIN PASSWORD";
    admin.batch_execute(&format!("{sql} '{}'", by_md5.password.reveal())).await.unwrap();
    roles.push(by_md5);
    for name in ["usual", "bound", "lenient", "strict"] {
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    }
    admin.close().await;
    Database { server, port, roles, _folder: folder }
}

impl Database {
    /// A way to it for the database of this name.
    fn upstream(
        &self,
        like: &Upstream,
        name: &str,
        auth: &[AuthMethod],
        channel_binding: ChannelBinding,
    ) -> Upstream {
        let credential = |role: &Role| match role.name.as_str() {
            "app_write" => {
                Credential { role: role.name.clone(), password: None, certificate: Some(files("app_write")) }
            }
            _ => Credential::password(&role.name, role.password.clone()),
        };
        Upstream {
            name: name.into(),
            host: "localhost".into(),
            port: self.port,
            sslmode: SslMode::Require,
            databases: vec![name.into()],
            auth: auth.to_vec(),
            channel_binding,
            credentials: self.roles.iter().map(credential).collect(),
            ..like.clone()
        }
    }
}

/// Asks for a role with the auditor's token. The error's code if there is one, else what the database says
/// of the connection.
async fn log_in(gateway: &TestGateway, database: &str, role: &str) -> Result<String, String> {
    let mut wire = Wire::silent(gateway).await;
    let options = ("options", "-c pgwitness.login=password");
    wire.send(&startup(0, &[("user", role), ("database", database), options])).await;
    assert_eq!(wire.next().await.unwrap(), (b'R', vec![0, 0, 0, 3]));
    wire.send(&message(b'p', format!("{}\0", gateway.auditor_token()).as_bytes())).await;
    loop {
        match wire.next().await {
            Some((b'Z', _)) => break,
            Some((b'E', body)) => return Err(error_code(&body)),
            Some(_) => {}
            None => return Err("cut off".into()),
        }
    }
    let sql =
        "SELECT concat_ws(' ', session_user, ssl, client_dn) FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    Ok(wire.value(sql).await)
}

async fn gateway_before(database: &Database) -> TestGateway {
    let (scram, md5, clear) = (AuthMethod::Scram, AuthMethod::Md5, AuthMethod::Cleartext);
    let like = super::support::gateway::any_upstream();
    let upstreams = vec![
        database.upstream(&like, "usual", &[scram], ChannelBinding::Prefer),
        database.upstream(&like, "bound", &[scram, md5, clear], ChannelBinding::Require),
        database.upstream(&like, "lenient", &[scram, md5, clear], ChannelBinding::Disable),
        database.upstream(&like, "strict", &[md5], ChannelBinding::Prefer),
    ];
    let roles = database.roles.iter().map(|role| role.name.clone()).collect();
    let carol = vec!["carol@example.com".to_owned()];
    let mapping = RoleMapping { groups: vec![], users: carol, roles, ..RoleMapping::default() };
    let change = move |config: &mut Config| {
        config.upstreams = upstreams;
        config.role_map = vec![mapping];
    };
    TestGateway::with(Settings { change: Box::new(change), ..Settings::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_logs_in_bound_to_tls_by_certificate_and_weakly_only_where_it_is_written_out() {
    // Its signature's hash is SHA-512: the binding must use the same.
    let database = database("sha512").await;
    let gateway = gateway_before(&database).await;
    let ok = |text: &str| Ok(text.to_owned());
    let refused = || Err("08001".to_owned());
    for (name, role, expected) in [
        ("usual", "by_scram", ok("by_scram t")),
        ("bound", "by_scram", ok("by_scram t")),
        ("lenient", "by_scram", ok("by_scram t")),
        ("strict", "by_scram", refused()),
        ("usual", "by_md5", refused()),
        ("strict", "by_md5", ok("by_md5 t")),
        ("lenient", "by_md5", ok("by_md5 t")),
        ("bound", "by_md5", refused()),
        ("usual", "by_clear", refused()),
        ("lenient", "by_clear", ok("by_clear t")),
        ("usual", "app_write", ok("app_write t /CN=app_write")),
        ("usual", "by_trust", ok("by_trust t")),
        ("bound", "by_trust", refused()),
    ] {
        assert_eq!(log_in(&gateway, name, role).await, expected, "{name} as {role}");
    }
    let told = gateway.records("event:session.start outcome:error", 5).await;
    for (record, words) in told.iter().zip([
        "auth leaves out",
        "auth = [\"scram-sha-256\", \"md5\"]",
        "channel_binding is \"require\"",
        "auth = [\"scram-sha-256\", \"password\"]",
        "channel_binding is \"require\"",
    ]) {
        assert!(record["error"].as_str().unwrap().contains(words), "{words}: {record}");
    }
    gateway.stop().await;
    database.server.stop().unwrap();
}
