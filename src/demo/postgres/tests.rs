//! The private server, run for real: started, stopped, abandoned.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

fn start() -> PrivatePostgres {
    let bin = find(None).expect("the tests need a PostgreSQL server");
    PrivatePostgres::start(&bin, Settings::default()).unwrap_or_else(|error| panic!("{error}"))
}
#[tokio::test]
async fn it_starts_and_answers_and_leaves_nothing_behind() {
    let server = start();
    let client = connect(&server.config(server.superuser(), "postgres")).await.unwrap();
    let row = client.query_one("SELECT current_user::text", &[]).await.unwrap();
    assert_eq!(row.get::<_, String>(0), "postgres");
    client.close().await;
    let dir = server.socket_dir().to_owned();
    server.stop().unwrap();
    assert!(!dir.exists());
}
