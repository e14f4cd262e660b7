//! What a file may say, and what is told of mistakes in it.

use super::*;
use crate::config::{Durability, SslMode};

pub(super) const MINIMAL: &str = r#"
[listen]
address = "127.0.0.1:6432"
tls = "off"
[oidc]
issuer = "https://id.example.com"
client_id = "pgwitness"
[[upstream]]
name = "main"
url = "postgres://db.example.com"
credentials = [{ role = "app_read", password = "x" }]
[log]
dir = "journal"
"#;

fn mistakes(text: &str) -> String {
    match parse(text, Path::new("/etc"), std::iter::empty()) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_minimal_file_gets_the_documented_defaults() {
    let config = parse(MINIMAL, Path::new("/etc/pgwitness"), std::iter::empty()).unwrap();
    assert_eq!(config.log.dir, Path::new("/etc/pgwitness/journal"));
    assert_eq!(config.log.durability, Durability::Held);
    assert_eq!(config.upstreams[0].sslmode, SslMode::VerifyFull);
    assert_eq!((config.upstreams[0].host.as_str(), config.upstreams[0].port), ("db.example.com", 5432));
    assert_eq!(config.oidc.audience, "pgwitness");
    assert!(!config.index.paused);
}

#[test]
fn the_index_is_paused_where_the_file_says_so() {
    let config =
        parse(&format!("{MINIMAL}\n[index]\npaused = true\n"), Path::new("/etc"), std::iter::empty());
    assert!(config.unwrap().index.paused);
}

#[test]
fn a_credential_without_password_is_told_among_other_mistakes() {
    let text = MINIMAL.replace("\"off\"", "\"maybe\"").replace(", password = \"x\"", "");
    let told = mistakes(&text);
    assert!(told.contains("listen.tls") && told.contains("\"app_read\" password"), "{told}");
}

#[test]
fn every_mistake_is_told_at_once() {
    let text = MINIMAL
        .replace("\"off\"", "\"maybe\"")
        .replace("postgres://db.example.com", "mysql://db")
        .replace("[oidc]", "[oidc]\nrefresh_every = \"100ms\"")
        .replace("dir = \"journal\"", "dir = \"journal\"\ndurability = \"sometimes\"");
    let told = mistakes(&text);
    for key in ["listen.tls", "upstream \"main\".url", "log.durability", "oidc.refresh_every"] {
        assert!(told.contains(key), "{key} is missing in:\n{told}");
    }
}

#[test]
fn an_unknown_key_is_refused_with_its_name() {
    assert!(mistakes(&MINIMAL.replace("client_id", "client_name")).contains("client_name"));
}

#[test]
fn heads_are_kept_in_files_and_sent_by_https_alone() {
    let log = |lines: &str| MINIMAL.replace("dir = \"journal\"", &format!("dir = \"journal\"\n{lines}"));
    let read = |lines: &str| parse(&log(lines), Path::new("/etc"), std::iter::empty()).unwrap().log;
    assert_eq!(read("").sign_key_file, Path::new("/etc/journal/sign.key"));
    assert_eq!(read("sign_key_file = \"k\"").sign_key_file, Path::new("/etc/k"));
    let anchor =
        read("anchor = { every = \"5m\", to = [\"heads\", \"https://w.example/s3cret\"] }").anchor.unwrap();
    assert_eq!(anchor.every, Duration::from_secs(300));
    let places: Vec<String> = anchor.to.iter().map(ToString::to_string).collect();
    assert_eq!(places, ["/etc/heads", "the webhook at w.example"]);
    assert_eq!(read("anchor = { to = \"http://127.0.0.1:1/x\" }").anchor.unwrap().to.len(), 1);
    for (lines, told) in [
        ("anchor = {}", "names no place"),
        ("anchor = { every = \"10ms\", to = \"heads\" }", "at least one second"),
        ("anchor = { to = \"http://w.example/s3cret\" }", "https://"),
        ("anchor = { to = \"ftp://w.example/s3cret\" }", "https://"),
    ] {
        let mistakes = mistakes(&log(lines));
        assert!(mistakes.contains(told) && !mistakes.contains("s3cret"), "{lines}: {mistakes}");
    }
}

#[test]
fn tls_without_certificate_is_refused_rather_than_switched_off() {
    assert!(mistakes(&MINIMAL.replace("tls = \"off\"\n", "")).contains("tls_cert"));
}

#[test]
fn what_would_weaken_a_connection_unsaid_is_refused_with_what_to_write() {
    let upstream =
        |line: &str| mistakes(&MINIMAL.replace("name = \"main\"", &format!("name = \"main\"\n{line}")));
    assert_eq!(upstream("auth = [\"scram-sha-256\", \"md5\"]"), "");
    assert!(upstream("sslmode = \"prefer\"").contains("in clear text"));
    assert!(upstream("sslmode = \"allow\"").contains("verify-full"));
    assert!(upstream("sslmode = \"disable\"\nauth = [\"password\"]").contains("needs TLS"));
    assert!(upstream("sslmode = \"disable\"\nchannel_binding = \"require\"").contains("binds to TLS"));
    assert!(upstream("auth = [\"gss\"]").contains("\"md5\""));
    assert!(upstream("application_name = \"{who}\"").contains("{session}"));
    let own = |line: &str| mistakes(&MINIMAL.replace("password = \"x\"", line));
    assert_eq!(own("client_cert = \"a\", client_key_file = \"b\""), "");
    assert!(own("client_cert = \"a\"").contains("belong together"));
    let listen = |line: &str| mistakes(&MINIMAL.replace("tls = \"off\"", line));
    let files = "tls_cert = \"a\"\ntls_key_file = \"b\"\n";
    assert_eq!(
        listen(&format!(
            "{files}tls_client_auth = \"require\"\ntls_client_ca = \"c\"\ntls_min_version = \"1.3\""
        )),
        ""
    );
    assert!(listen(&format!("{files}tls_client_auth = \"require\"")).contains("tls_client_ca"));
    assert!(listen(&format!("{files}tls_client_ca = \"c\"")).contains("no effect"));
    assert!(
        listen("tls = \"off\"\ntls_client_auth = \"optional\"\ntls_client_ca = \"c\"")
            .contains("over TLS only")
    );
}

#[test]
fn the_environment_overrides_the_file() {
    let env = [
        ("PGWITNESS__LISTEN__MAX_CLIENTS".to_owned(), "7".to_owned()),
        ("PGWITNESS__LOG__DURABILITY".to_owned(), "batch".to_owned()),
        ("HOME".to_owned(), "/root".to_owned()),
    ];
    let config = parse(MINIMAL, Path::new("/"), env.into_iter()).unwrap();
    assert_eq!((config.listen.max_clients, config.log.durability), (7, Durability::Batch));
}

#[test]
fn a_unix_socket_is_named_by_its_folder() {
    let text = MINIMAL.replace("postgres://db.example.com", "postgres:///?host=/run/pg&port=6000");
    let config = parse(&text, Path::new("/"), std::iter::empty()).unwrap();
    assert_eq!((config.upstreams[0].host.as_str(), config.upstreams[0].port), ("/run/pg", 6000));
    assert_eq!(config.upstreams[0].sslmode, SslMode::Disable);
}

#[test]
fn a_secret_never_shows_itself() {
    let config = parse(MINIMAL, Path::new("/"), std::iter::empty()).unwrap();
    assert!(!format!("{config:?}").contains("\"x\""));
}
