//! The plan, run directly against PostgreSQL as the roles that people are mapped to.

use super::*;
use crate::demo::postgres::{PrivatePostgres, Settings, find};
use crate::demo::shop::{DATABASE, Shop};

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
    assert_eq!(seeded.sessions, plan().len());
    assert!((200..300).contains(&seeded.statements), "about 200 statements: {seeded:?}");
    let announced =
        plan().iter().flat_map(|sitting| sitting.steps).filter(|step| step.expect != Expect::Ok).count();
    assert_eq!(seeded.errors, announced);

    // The check itself: a step that does something else is told of.
    const WRONG: &[Step] =
        &[ok("SELECT * FROM employees"), fails("SELECT 1", "42501"), ok("SELECT 1; SELECT 2")];
    let wrong = Sitting { steps: WRONG, ..plan()[0] };
    let seeded = run(host, server.port(), DATABASE, &[wrong], login).await.unwrap();
    assert_eq!((seeded.statements, seeded.errors), (4, 1));
    let got: Vec<&str> = seeded.surprises.iter().map(|surprise| surprise.got.as_str()).collect();
    assert_eq!(got, ["42501", "success"]);
}

#[tokio::test]
async fn a_login_that_nobody_listens_to_is_an_error_with_a_name() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let refused = run("127.0.0.1", port, DATABASE, &plan(), by_email).await.unwrap_err();
    assert!(matches!(refused, SeedError::Login { .. }), "{refused}");
    assert!(refused.to_string().contains("could not log in"), "{refused}");
}

#[test]
fn the_plan_holds_every_kind_of_step() {
    let steps: Vec<&Step> = plan().iter().flat_map(|sitting| sitting.steps).collect();
    let any = |wanted: fn(&How) -> bool| steps.iter().any(|step| wanted(&step.how));
    assert!(any(|how| matches!(how, How::Simple)));
    assert!(any(|how| matches!(how, How::Prepared(runs) if runs.len() > 1)));
    assert!(any(|how| matches!(how, How::Portal(..))));
    assert!(any(|how| matches!(how, How::CopyIn(_))));
    assert!(any(|how| matches!(how, How::CopyOut)));
    for code in ["42601", "42501", "23505", "23503", "25P02"] {
        assert!(steps.iter().any(|step| step.expect == Expect::Error(code)), "{code}");
    }
}
