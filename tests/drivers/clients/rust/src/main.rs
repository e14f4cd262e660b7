//! Rust's drivers and pools, as an application uses them: `CLIENT CONNECTIONS WORD`; where and who stand in PGHOST and the like.
//!
//! Each opens so many connections at once, reads the word over each, and only then lets them go.

use std::error::Error;

type Outcome = Result<(), Box<dyn Error>>;

/// Log lines on standard error, as an application's logger would write them.
struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Info
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            eprintln!("{} {}: {}", record.level(), record.target(), record.args());
        }
    }

    fn flush(&self) {}
}

fn given(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

#[tokio::main]
async fn main() -> Outcome {
    log::set_logger(&Stderr)?;
    log::set_max_level(log::LevelFilter::Info);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [client, count, word] = arguments.as_slice() else { return Err("CLIENT CONNECTIONS WORD".into()) };
    match client.as_str() {
        "tokio-postgres" => tokio_postgres(count.parse()?, word).await,
        "sqlx" => sqlx(count.parse()?, word).await,
        _ => Err("the client is tokio-postgres or sqlx".into()),
    }
}

async fn tokio_postgres(count: usize, word: &str) -> Outcome {
    let mut config = tokio_postgres::Config::new();
    config.host(given("PGHOST")).port(given("PGPORT").parse()?).dbname(given("PGDATABASE"));
    config.user(given("PGUSER")).password(given("PGPASSWORD")).application_name(given("PGAPPNAME"));
    config.options(given("PGOPTIONS"));
    let opening: Vec<_> = (0..count)
        .map(|_| {
            let config = config.clone();
            tokio::spawn(async move {
                let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
                tokio::spawn(connection);
                Ok::<_, tokio_postgres::Error>(client)
            })
        })
        .collect();
    let mut opened = Vec::new();
    for each in opening {
        opened.push(each.await??);
    }
    for client in &opened {
        let answer: String = client.query_one("select $1::text", &[&word]).await?.get(0);
        if answer != word {
            return Err(format!("the database answered {answer}").into());
        }
    }
    Ok(())
}

async fn sqlx(count: u32, word: &str) -> Outcome {
    let options = sqlx::postgres::PgConnectOptions::new_without_pgpass()
        .host(&given("PGHOST"))
        .port(given("PGPORT").parse()?)
        .database(&given("PGDATABASE"))
        .username(&given("PGUSER"))
        .password(&given("PGPASSWORD"))
        .application_name(&given("PGAPPNAME"));
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(count).connect_with(options).await?;
    let mut opened = Vec::new();
    for _ in 0..count {
        opened.push(pool.acquire().await?);
    }
    for connection in &mut opened {
        let answer: String =
            sqlx::query_scalar("select $1::text").bind(word).fetch_one(&mut **connection).await?;
        if answer != word {
            return Err(format!("the database answered {answer}").into());
        }
    }
    drop(opened);
    pool.close().await;
    Ok(())
}
