//! Replication connections: refused unless a rule allows them, and then recorded command by command.
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

use std::process::Output;

use pgwitness::config::{Config, Credential, ReplicationRule, RoleMapping};
use pgwitness::demo::postgres::Role;
use serde_json::json;

use super::support::gateway::{Settings, TestGateway};
use super::support::postgres::server;
use super::support::wire::{Wire, error_code, error_text, query, startup};

const ANN: &str = "ann@example.com";

/// The client's own secret: approved once, it opens every connection of a program.
const SECRET: &str = "c0ffee2a1c4d59687aa01bc23de45f678";

/// A gateway that gives Ann a role with REPLICATION, and lets her replicate these databases.
async fn gateway(role: &str, databases: &[&str]) -> TestGateway {
    let role = server().role(role).await;
    let admin = server().connect(server().superuser(), "postgres").await;
    let grant = format!("ALTER ROLE {0} REPLICATION; GRANT pg_read_all_data TO {0}", role.name);
    admin.batch_execute(&grant).await.unwrap();
    admin.close().await;
    let databases: Vec<_> = databases.iter().map(|name| (*name).to_owned()).collect();
    let name = role.name.clone();
    let change = move |config: &mut Config| allow(config, &role, databases);
    let gateway = TestGateway::with(Settings { change: Box::new(change), ..Settings::default() }).await;
    let admin = server().connect(server().superuser(), "postgres").await;
    let grant = format!("GRANT CONNECT ON DATABASE {} TO {name}", gateway.database());
    admin.batch_execute(&grant).await.unwrap();
    admin.close().await;
    gateway
}

fn allow(config: &mut Config, role: &Role, databases: Vec<String>) {
    let own = |text: &str| vec![text.to_owned()];
    config.upstreams[0].credentials.push(Credential::password(&role.name, role.password.clone()));
    let mapping = RoleMapping {
        groups: vec![],
        users: own(ANN),
        databases: vec![],
        roles: own(&role.name),
        ..RoleMapping::default()
    };
    config.role_map.insert(0, mapping);
    let roles = own(&role.name);
    config.replication = vec![ReplicationRule { groups: vec![], users: own(ANN), databases, roles }];
}

async fn refused(gateway: &TestGateway, parameters: &[(&str, &str)]) -> (String, String) {
    let mut wire = Wire::silent(gateway).await;
    wire.send(&startup(0, &[&[("user", ANN)], parameters].concat())).await;
    let last = wire.rest().await.pop().unwrap().1;
    (error_code(&last), error_text(&last))
}

/// One of PostgreSQL's programs through the gateway.
async fn program(gateway: &TestGateway, name: &str, arguments: &[&str]) -> Output {
    let mut command = server().program(name, server().superuser(), gateway.database());
    command.env("PGHOST", "127.0.0.1").env("PGPORT", gateway.port.to_string());
    command.env("PGUSER", ANN).env("PGPASSWORD", SECRET).env("PGSSLMODE", "disable");
    command.env("PGOPTIONS", "-c pgwitness.login=password").args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

async fn position() -> String {
    let admin = server().connect(server().superuser(), "postgres").await;
    let row = admin.query_one("SELECT pg_switch_wal(), pg_current_wal_lsn()::text", &[]).await.unwrap();
    let position = row.get(1);
    admin.close().await;
    position
}

#[tokio::test(flavor = "multi_thread")]
async fn replication_is_refused_without_a_rule_and_beyond_it() {
    let none = TestGateway::start().await;
    for value in ["database", "true", "on", "1"] {
        let (code, text) = refused(&none, &[("database", none.database()), ("replication", value)]).await;
        assert_eq!((code.as_str(), text.contains("not allowed")), ("0A000", true), "{value}: {text}");
    }
    let (code, text) = refused(&none, &[("replication", "maybe")]).await;
    assert_eq!(
        (code.as_str(), text.as_str()),
        ("22023", "invalid value for parameter \"replication\": \"maybe\"")
    );
    none.records("event:denied", 5).await;
    none.stop().await;
    let some = gateway("replicator_a", &[]).await;
    let (code, text) = refused(&some, &[("replication", "true")]).await;
    assert_eq!((code.as_str(), text.contains("physical replication")), ("28000", true), "{text}");
    let records = some.records("event:role.denied", 1).await;
    assert_eq!((&records[0]["user"], &records[0]["db"]), (&json!(ANN), &json!("replication")));
    some.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_of_a_walsender_is_one_record_and_so_is_its_sql() {
    let gateway = gateway("replicator_b", &[]).await;
    let mut wire = Wire::with(&gateway, &[("replication", "database"), ("application_name", "walker")]).await;
    for (command, tags) in [
        ("IDENTIFY_SYSTEM", "TDCZ"),
        ("SHOW wal_level", "TDCZ"),
        ("SELECT email FROM customers LIMIT 2", "TDDCZ"),
        ("START_REPLICATION SLOT \"none;such\" LOGICAL 0/0", "EZ"),
        ("identify_system", "EZ"),
    ] {
        wire.send(&query(command)).await;
        assert_eq!(wire.tags().await, tags, "{command}");
    }
    let records = gateway.records("event:query app:walker", 5).await;
    let told: Vec<_> =
        records.iter().map(|r| (r["command"].as_str().unwrap(), r["outcome"].as_str().unwrap())).collect();
    assert_eq!(told[0], ("IDENTIFY_SYSTEM", "ok"));
    assert_eq!((records[1]["sql"].as_str(), told[1].1), (Some("SHOW wal_level"), "ok"));
    assert_eq!((&records[2]["tables"], &records[2]["rows"]), (&json!(["public.customers"]), &json!(2)));
    assert_eq!(told[3], ("START_REPLICATION", "error"));
    assert_eq!(records[3]["sqlstate"], "42704");
    assert_eq!((&records[3]["analysis"], &records[0]["analysis"]), (&json!("unresolved"), &json!("exact")));
    assert!(
        records[3]["analysis_notes"].to_string().contains("everything in the database"),
        "{}",
        records[3]
    );
    assert_eq!(told[4].1, "error");
    let start = &gateway.records("event:session.start app:walker", 1).await[0];
    assert!(start.to_string().contains("logical replication"), "{start}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_backup_and_a_stream_of_wal_pass_and_are_recorded() {
    let gateway = gateway("replicator_c", &["replication"]).await;
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup").display().to_string();
    program(&gateway, "pg_basebackup", &["-D", &backup, "-X", "stream", "-c", "fast"]).await;
    assert!(folder.path().join("backup/backup_manifest").exists());
    let records = gateway.records("command:base_backup", 1).await;
    let record = &records[0];
    assert_eq!(
        (&record["outcome"], &record["user"], &record["db"]),
        (&json!("ok"), &json!(ANN), &json!("replication"))
    );
    assert!(record["bytes"].as_u64().unwrap() > 10_000_000, "{record}");
    assert_eq!((&record["analysis"], &record["class"]), (&json!("unresolved"), &json!(["read"])));
    gateway.seen("command:identify_system outcome:ok", 1).await;
    gateway.records("command:start_replication outcome:ok", 1).await;
    // The stream alone, from a slot to a position that is past.
    let (wal, end) = (folder.path().join("wal"), position().await);
    std::fs::create_dir(&wal).unwrap();
    let wal = wal.display().to_string();
    program(&gateway, "pg_receivewal", &["-D", &wal, "--endpos", &end, "--no-loop", "--synchronous"]).await;
    let streams = gateway.records("command:start_replication outcome:ok", 2).await;
    assert!(streams[1]["bytes"].as_u64().unwrap() > 0, "{streams:?}");
    assert_eq!(streams[1]["app"], "pg_receivewal");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logical_decoding_streams_and_is_recorded() {
    let gateway = gateway("replicator_d", &[]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("changes").display().to_string();
    let own = ["-d", gateway.database(), "-S", "ours"];
    program(&gateway, "pg_recvlogical", &[&own[..], &["--create-slot", "-P", "test_decoding"]].concat())
        .await;
    let admin = server().connect(server().superuser(), gateway.database()).await;
    admin.batch_execute("CREATE TABLE moved (a int); INSERT INTO moved VALUES (4711)").await.unwrap();
    admin.close().await;
    let end = position().await;
    let start = ["--start", "-f", &file, "--endpos", &end, "--no-loop"];
    program(&gateway, "pg_recvlogical", &[&own[..], &start].concat()).await;
    assert!(std::fs::read_to_string(&file).unwrap().contains("4711"));
    program(&gateway, "pg_recvlogical", &[&own[..], &["--drop-slot"]].concat()).await;
    let records = gateway.records("event:query app:pg_recvlogical command:create_replication_slot,start_replication,drop_replication_slot", 3).await;
    assert!(records.iter().all(|r| r["outcome"] == "ok" && r["db"] == gateway.database()), "{records:?}");
    assert!(records[1]["bytes"].as_u64().unwrap() > 0, "{records:?}");
    assert!(records[1]["sql"].as_str().unwrap().contains("ours"));
    gateway.stop().await;
}
