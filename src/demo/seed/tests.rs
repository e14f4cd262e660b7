//! The plan, run directly against PostgreSQL as the roles that people are mapped to.

use super::*;
use crate::demo::postgres::{PrivatePostgres, Settings, find};
use crate::demo::shop::{DATABASE, Shop, people};

#[tokio::test]
async fn every_seeded_statement_behaves_as_announced() {
    let bin = find(None).expect("the tests need a PostgreSQL server");
    let server = PrivatePostgres::start(&bin, Settings::default()).unwrap_or_else(|error| panic!("{error}"));
    let shop = Shop::load(&server.config(server.superuser(), "postgres")).await.unwrap();
    let login = |person: &Person| {
        let role = shop.role(person.roles[0]).unwrap();
        Login { user: role.name.clone(), password: Some(role.password.clone()) }
    };
    let host = server.socket_dir().to_str().unwrap();
    let seeded = run(host, server.port(), DATABASE, &plan(), login).await.unwrap();
    let told: Vec<String> = seeded.surprises.iter().map(Surprise::to_string).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
    println!("{seeded:?}");
    assert_eq!(seeded.sessions, plan().len());
}
