//! `pgwitness connect-info`: how programs connect through the gateway, in the forms that they take. No password is in
//! any of them: it comes from `PGPASSWORD`, a passfile, or the program's own place for it.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use url::Url;

use super::client::{Client, ClientError, Connection, finish};
use super::table::{cell, json_pretty, printable};

/// The startup option by which a client says that it has a password.
pub(super) const OPTION: &str = "pgwitness.login=password";

/// `pgwitness connect-info`
#[derive(Debug, Args)]
pub(super) struct ConnectInfoArgs {
    /// Which database
    #[arg(long, value_name = "NAME", default_value = "postgres")]
    database: String,
    /// Which role [default: your own name, which stands for your first role]
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
    /// Which form
    #[arg(long, value_enum, default_value_t = Form::All)]
    format: Form,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// All of them, each under its name
    All,
    /// A connection URI: libpq, psycopg, node-postgres, sqlx, …
    Uri,
    /// An entry for pg_service.conf
    Service,
    /// A JDBC URL
    Jdbc,
    /// Django's DATABASES
    Django,
}

/// Where PostgreSQL clients reach the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    sslmode: &'static str,
}

impl Target {
    /// As the gateway tells; the host is the one of its API.
    pub(super) async fn of(client: &Client) -> Result<Self, ClientError> {
        let status = client.get("/api/v1/status", &[]).await?;
        Self::read(client.base(), &status["postgres"]).ok_or_else(|| {
            ClientError::Unreachable(format!(
                "{} does not say where PostgreSQL clients connect",
                client.base()
            ))
        })
    }

    fn read(base: &Url, told: &Value) -> Option<Self> {
        let host = base.host_str()?.trim_matches(['[', ']']).to_owned();
        let port = u16::try_from(told["port"].as_u64()?).ok()?;
        let sslmode = match told["tls"].as_str()? {
            "require" => "require",
            "allow" => "prefer",
            _ => "disable",
        };
        Some(Self { host, port, sslmode })
    }

    /// A passfile's line for every database and role there.
    pub(super) fn pgpass(&self, password: &str) -> String {
        let host = self.host.replace('\\', "\\\\").replace(':', "\\:");
        format!("{host}:{}:*:*:{password}", self.port)
    }

    fn in_url(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{host}:{}", self.port)
    }

    fn uri(&self, user: &str, database: &str) -> String {
        let (user, database, place) = (encoded(user), encoded(database), self.in_url());
        let option = encoded(&format!("-c {OPTION}"));
        format!("postgresql://{user}@{place}/{database}?sslmode={}&options={option}", self.sslmode)
    }

    fn service(&self, user: &str, database: &str) -> String {
        let Self { host, port, sslmode } = self;
        let (user, database) = (printable(user), printable(database));
        format!(
            "[pgwitness]\nhost={host}\nport={port}\ndbname={database}\nuser={user}\nsslmode={sslmode}\noptions=-c {OPTION}"
        )
    }

    fn jdbc(&self, user: &str, database: &str) -> String {
        let (user, database, place) = (encoded(user), encoded(database), self.in_url());
        let option = encoded(&format!("-c {OPTION}"));
        format!("jdbc:postgresql://{place}/{database}?user={user}&sslmode={}&options={option}", self.sslmode)
    }

    fn django(&self, user: &str, database: &str) -> String {
        // JSON's strings and numbers are Python's, too.
        let text = |text: &str| Value::from(text).to_string();
        let Self { host, port, sslmode } = self;
        format!(
            "DATABASES = {{\n    \"default\": {{\n        \"ENGINE\": \"django.db.backends.postgresql\",\n        \
             \"HOST\": {},\n        \"PORT\": {port},\n        \"NAME\": {},\n        \"USER\": {},\n        \
             \"PASSWORD\": os.environ[\"PGPASSWORD\"],\n        \
             \"OPTIONS\": {{\"sslmode\": {}, \"options\": {}}},\n    }}\n}}",
            text(host),
            text(database),
            text(user),
            text(sslmode),
            text(&format!("-c {OPTION}")),
        )
    }
}

pub(super) async fn run(args: ConnectInfoArgs) -> anyhow::Result<ExitCode> {
    Ok(finish(connect_info(&args).await))
}

async fn connect_info(args: &ConnectInfoArgs) -> Result<ExitCode, ClientError> {
    let client = Client::find(&args.connection)?;
    let target = Target::of(&client).await?;
    let user = match &args.role {
        Some(role) => role.clone(),
        None => cell(client.get("/api/v1/me", &[]).await?.get("user")),
    };
    let forms = [
        (Form::Uri, "uri", target.uri(&user, &args.database)),
        (Form::Service, "service", target.service(&user, &args.database)),
        (Form::Jdbc, "jdbc", target.jdbc(&user, &args.database)),
        (Form::Django, "django", target.django(&user, &args.database)),
    ];
    let mut out = String::new();
    if args.json {
        let mut told = json!({ "host": target.host, "port": target.port, "sslmode": target.sslmode, "user": user,
            "database": args.database, "options": format!("-c {OPTION}") });
        for (_, name, text) in &forms {
            told[*name] = text.as_str().into();
        }
        out = json_pretty(&told) + "\n";
    } else {
        for (form, name, text) in &forms {
            if args.format == Form::All {
                // Writing to a string cannot fail.
                let _ = write!(out, "# {name}\n{text}\n\n");
            } else if args.format == *form {
                let _ = writeln!(out, "{text}");
            }
        }
    }
    io::stdout().lock().write_all(out.as_bytes()).map_err(ClientError::local("write the output"))?;
    Ok(ExitCode::SUCCESS)
}

/// Percent-encoded, as every part of a URL takes it.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    text.bytes().fold(String::new(), |mut url, byte| {
        if plain(byte) {
            url.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(url, "%{byte:02X}");
        }
        url
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(base: &str, tls: &str) -> Target {
        Target::read(&base.parse().unwrap(), &json!({ "port": 6432, "tls": tls })).unwrap()
    }

    #[test]
    fn each_form_is_one_that_its_programs_take() {
        let target = target("https://gw.example.com:7432", "require");
        let (user, database) = ("ann@example.com", "my shop");
        assert_eq!(
            target.uri(user, database),
            "postgresql://ann%40example.com@gw.example.com:6432/my%20shop?sslmode=require&options=-c%20pgwitness.login%3Dpassword"
        );
        assert_eq!(
            target.jdbc(user, database),
            "jdbc:postgresql://gw.example.com:6432/my%20shop?user=ann%40example.com&sslmode=require&options=-c%20pgwitness.login%3Dpassword"
        );
        assert_eq!(
            target.service(user, database),
            "[pgwitness]\nhost=gw.example.com\nport=6432\ndbname=my shop\nuser=ann@example.com\nsslmode=require\noptions=-c pgwitness.login=password"
        );
        assert!(target.django("a\"b", database).contains(r#""USER": "a\"b","#));
        assert_eq!(target.pgpass("x"), "gw.example.com:6432:*:*:x");
    }

    #[test]
    fn an_ipv6_address_stands_in_brackets_where_a_url_needs_them_and_nowhere_else() {
        let target = target("http://[::1]:7432", "off");
        assert!(target.uri("a", "b").starts_with("postgresql://a@[::1]:6432/b?sslmode=disable&"));
        assert_eq!(target.pgpass("x"), "\\:\\:1:6432:*:*:x");
        assert!(target.service("a", "b").contains("host=::1\n"));
    }
}
