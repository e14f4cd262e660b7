//! `pgwitness who`: who touched a table or column, how often, since when, and how it ended.

use std::collections::HashMap;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value, json};

use super::client::{Client, ClientError, Connection, NOTHING, finish};
use super::search::{PAGE_MAX, Question, Range, short_time};
use super::table::{Table, cell, json_line, printable, width};

/// Most records looked through.
const RECORDS_MAX: usize = 50_000;
/// Longest name, bytes.
const NAME_BYTES_MAX: usize = 1_000;

/// `pgwitness who`
#[derive(Debug, Args)]
pub struct WhoArgs {
    /// The table or column: users, public.users, users.email, public.users.email
    #[arg(value_name = "TABLE[.COLUMN]")]
    pub name: String,
    /// Not older than this
    #[arg(long, value_name = "AGE", default_value = "30d")]
    pub since: String,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: Connection,
}

/// Prints people. Ends with 1 if nobody touched it.
pub async fn run(args: WhoArgs) -> anyhow::Result<ExitCode> {
    Ok(finish(who(&args).await))
}

async fn who(args: &WhoArgs) -> Result<ExitCode, ClientError> {
    let query = touching(&args.name)?;
    let client = Client::find(&args.connection)?;
    let range = Range { since: Some(args.since.clone()), ..Range::default() };
    let fields = ["user", "iss", "sub", "time", "outcome"].map(str::to_owned);
    let mut question = Question::new(&[query], &range, &fields);
    let mut people = People::default();
    let mut seen = 0;
    loop {
        let page = question.ask(&client, PAGE_MAX).await?;
        seen += page.items.len();
        page.items.iter().for_each(|item| people.add(item));
        match page.next_cursor {
            Some(_) if seen >= RECORDS_MAX => {
                eprintln!("only the newest {seen} records were counted. Ask for a shorter time with --since");
                break;
            }
            Some(cursor) => question.cursor = Some(cursor),
            None => break,
        }
    }
    if people.0.is_empty() {
        eprintln!("nobody that you may see touched {} in {}", printable(&args.name), printable(&args.since));
        return Ok(ExitCode::from(NOTHING));
    }
    let text = if args.json { people.json() } else { people.table().text(width()) };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(ClientError::local("write the output"))?;
    Ok(ExitCode::SUCCESS)
}

/// The query for a name. Two parts may be schema and table, or table and column.
fn touching(name: &str) -> Result<String, ClientError> {
    let wrong =
        || ClientError::Usage(format!("{name:?} is not a table or column. Write users or users.email"));
    let parts: Vec<&str> = name.split('.').collect();
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '-' | ' ');
    if name.len() > NAME_BYTES_MAX || !parts.iter().all(|part| !part.is_empty() && part.chars().all(plain)) {
        return Err(wrong());
    }
    match parts.len() {
        1 => Ok(format!("table:\"{name}\"")),
        2 => Ok(format!("table:\"{name}\" OR column:\"{name}\"")),
        3 => Ok(format!("column:\"{name}\"")),
        _ => Err(wrong()),
    }
}

/// One person's doings. Records come newest first.
#[derive(Default)]
struct Person {
    user: String,
    times: u64,
    first: String,
    last: String,
    outcomes: HashMap<String, u64>,
}

/// People by (iss, sub): names may change and be shared.
#[derive(Default)]
struct People(HashMap<(String, String), Person>);

impl People {
    fn add(&mut self, item: &Map<String, Value>) {
        let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let person = self.0.entry((text("iss"), text("sub"))).or_default();
        let time = text("time");
        person.times += 1;
        if person.last < time || person.last.is_empty() {
            person.last.clone_from(&time);
            person.user = text("user");
        }
        if person.first > time || person.first.is_empty() {
            person.first = time;
        }
        *person.outcomes.entry(text("outcome")).or_default() += 1;
    }

    /// The busiest first.
    fn sorted(&self) -> Vec<&Person> {
        let mut people: Vec<&Person> = self.0.values().collect();
        people.sort_by(|a, b| b.times.cmp(&a.times).then_with(|| a.user.cmp(&b.user)));
        people
    }

    fn table(&self) -> Table {
        let heads = ["PERSON", "TIMES", "OK", "ERROR", "DENIED", "OTHER", "FIRST (UTC)", "LAST (UTC)"];
        let line = |person: &Person| {
            let count = |outcome: &str| person.outcomes.get(outcome).copied().unwrap_or(0);
            let (ok, error, denied) = (count("ok"), count("error"), count("denied"));
            let user =
                if person.user.is_empty() { "(nobody)".to_owned() } else { cell(Some(&json!(person.user))) };
            let numbers = [person.times, ok, error, denied, person.times - ok - error - denied];
            let times = [&person.first, &person.last].map(|time| short_time(&printable(time)));
            std::iter::once(user).chain(numbers.map(|number| number.to_string())).chain(times).collect()
        };
        Table {
            right: heads
                .iter()
                .map(|head| matches!(*head, "TIMES" | "OK" | "ERROR" | "DENIED" | "OTHER"))
                .collect(),
            heads: heads.map(str::to_owned).to_vec(),
            lines: self.sorted().into_iter().map(line).collect(),
        }
    }

    fn json(&self) -> String {
        let line = |person: &Person| {
            let mut outcomes: Vec<(&String, &u64)> = person.outcomes.iter().collect();
            outcomes.sort();
            let outcomes: Map<String, Value> =
                outcomes.into_iter().map(|(name, n)| (name.clone(), json!(n))).collect();
            let object = json!({
                "user": person.user, "count": person.times, "first": person.first, "last": person.last,
                "outcomes": outcomes,
            });
            json_line(&object) + "\n"
        };
        self.sorted().into_iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_a_query_and_nothing_else_does() {
        assert_eq!(touching("users").unwrap(), "table:\"users\"");
        assert_eq!(touching("users.email").unwrap(), "table:\"users.email\" OR column:\"users.email\"");
        assert_eq!(touching("public.users.email").unwrap(), "column:\"public.users.email\"");
        for bad in ["", "a..b", "a.b.c.d", "users\" OR user:\"x", "a)", "a*"] {
            assert!(touching(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn people_are_told_apart_by_who_they_are_and_not_by_name() {
        let item = |sub: &str, time: &str, outcome: &str| {
            json!({ "user": "maria", "iss": "i", "sub": sub, "time": time, "outcome": outcome })
                .as_object()
                .cloned()
                .unwrap()
        };
        let mut people = People::default();
        for item in [
            item("1", "2026-11-21T09", "ok"),
            item("1", "2026-11-21T08", "error"),
            item("2", "2026-11-20", "ok"),
        ] {
            people.add(&item);
        }
        assert_eq!(
            people.json(),
            "{\"user\":\"maria\",\"count\":2,\"first\":\"2026-11-21T08\",\"last\":\"2026-11-21T09\",\"outcomes\":{\"error\":1,\"ok\":1}}\n\
             {\"user\":\"maria\",\"count\":1,\"first\":\"2026-11-20\",\"last\":\"2026-11-20\",\"outcomes\":{\"ok\":1}}\n"
        );
    }
}
