//! The sample shop: a database that looks like work, the roles that may do something in it, and the
//! people who do. The rows are in `shop.sql`; this module makes roles and database and loads it.

use crate::config::{Access, Credential, RoleMapping};

use super::postgres::{ConnectError, Role, connect, quote_ident, told};

/// Name of the database.
pub const DATABASE: &str = "shop";

/// Owns database and tables; no person is mapped to it.
pub const OWNER: &str = "shop_owner";

/// Tables, rows, views, functions and grants.
const SHOP: &str = include_str!("shop.sql");

/// The roles that people are mapped to.
const ROLES: [&str; 3] = ["app_read", "app_write", "analyst"];

/// Somebody who works with the shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Person {
    /// Given name; what the demo's provider shows.
    pub name: &'static str,
    /// E-mail address: the name in records.
    pub email: &'static str,
    /// Groups at the provider.
    pub groups: &'static [&'static str],
    /// Database roles that the mapping gives, the default first.
    pub roles: &'static [&'static str],
}

/// Writes the shop's software.
pub const ANN: Person = Person {
    name: "Ann",
    email: "ann@example.com",
    groups: &["engineering"],
    roles: &["app_write", "app_read"],
};

/// Looks for meaning in the numbers.
pub const BOB: Person =
    Person { name: "Bob", email: "bob@example.com", groups: &["analytics"], roles: &["analyst"] };

/// Watches over the others: she may read all records.
pub const CAROL: Person =
    Person { name: "Carol", email: "carol@example.com", groups: &["security"], roles: &["app_read"] };

/// Everybody.
pub fn people() -> &'static [Person] {
    &[ANN, BOB, CAROL]
}

/// Which group may be which roles, as the gateway's configuration says it.
pub fn role_map() -> Vec<RoleMapping> {
    let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let mapping = |person: &Person| RoleMapping {
        groups: owned(person.groups),
        users: Vec::new(),
        databases: vec![DATABASE.to_owned()],
        roles: owned(person.roles),
        ..RoleMapping::default()
    };
    people().iter().map(mapping).collect()
}

/// Who may read the log: Carol's group all of it.
pub fn access() -> Access {
    Access { auditor: vec!["group:security".to_owned()], admin: Vec::new() }
}

/// What the shop calls sensitive, as `capture.tags` says it.
pub fn tags() -> Vec<(String, Vec<String>)> {
    let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    vec![
        ("pii".to_owned(), owned(&["*.email", "*.phone", "public.customers.name", "public.employees.*"])),
        ("pci".to_owned(), owned(&["billing.cards.*"])),
    ]
}

/// A loaded shop.
#[derive(Debug, Clone)]
pub struct Shop {
    owner: Role,
    roles: Vec<Role>,
}

/// Why the shop was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No connection.
    #[error("could not load the sample shop: {0}")]
    Connect(#[from] ConnectError),
    /// It is there already; nothing was touched.
    #[error(
        "could not load the sample shop: a database `{DATABASE}` exists already. Drop it, or use another server"
    )]
    Exists,
    /// The database said no.
    #[error("could not load the sample shop while {step}: {}", told(source))]
    Sql {
        /// What we did.
        step: &'static str,
        /// What it said.
        source: tokio_postgres::Error,
    },
}

impl Shop {
    /// Makes the roles (existing ones get new passwords) and the database `shop`, and fills it. A database of
    /// that name must not exist. `admin` reaches any database of the server as a superuser.
    pub async fn load(admin: &tokio_postgres::Config) -> Result<Self, LoadError> {
        let client = connect(admin).await?;
        // First of all: roles belong to the whole server, and new passwords would lock out an old shop.
        let known = "SELECT count(*) > 0 FROM pg_catalog.pg_database WHERE datname = $1";
        let known = client.query_one(known, &[&DATABASE]).await.map_err(failed("looking for one"))?;
        if known.get(0) {
            return Err(LoadError::Exists);
        }
        let owner = Role::random(OWNER);
        owner.create(&client).await.map_err(failed("creating a role"))?;
        let mut roles = Vec::with_capacity(ROLES.len());
        for name in ROLES {
            let role = Role::random(name);
            role.create(&client).await.map_err(failed("creating a role"))?;
            roles.push(role);
        }
        // Whoever writes also reads, and may put the pen down with SET ROLE app_read.
        client.batch_execute("GRANT app_read TO app_write").await.map_err(failed("granting a role"))?;
        let database = quote_ident(DATABASE);
        let create = format!("CREATE DATABASE {database} OWNER {OWNER} TEMPLATE template0 ENCODING 'UTF8'");
        client.batch_execute(&create).await.map_err(failed("creating the database"))?;
        client.batch_execute(&database_grants(DATABASE)).await.map_err(failed("granting the database"))?;
        client.close().await;

        let mut inside = admin.clone();
        inside.dbname(DATABASE);
        let client = connect(&inside).await?;
        // What PostgreSQL 15 does by itself.
        let schema =
            format!("ALTER SCHEMA public OWNER TO {OWNER}; REVOKE CREATE ON SCHEMA public FROM PUBLIC");
        client.batch_execute(&schema).await.map_err(failed("handing over the schema"))?;
        client.close().await;

        inside.user(OWNER).password(owner.password.reveal());
        let client = connect(&inside).await?;
        client.batch_execute(SHOP).await.map_err(failed("running shop.sql"))?;
        client.close().await;
        Ok(Self { owner, roles })
    }

    /// The owner of everything in it: for tests and for looking behind the gateway's back.
    pub fn owner(&self) -> &Role {
        &self.owner
    }

    /// The roles that people are mapped to, with their passwords.
    pub fn roles(&self) -> &[Role] {
        &self.roles
    }

    /// One of the roles that people are mapped to.
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.iter().find(|role| role.name == name)
    }

    /// What the gateway needs to become these roles.
    pub fn credentials(&self) -> Vec<Credential> {
        let credential = |role: &Role| Credential::password(&role.name, role.password.clone());
        self.roles.iter().map(credential).collect()
    }
}

/// SQL that lets exactly the shop's roles into a database: a copy made with `TEMPLATE shop` needs it too.
pub fn database_grants(database: &str) -> String {
    let database = quote_ident(database);
    let roles = ROLES.join(", ");
    format!(
        "REVOKE ALL ON DATABASE {database} FROM PUBLIC; GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {roles}"
    )
}

fn failed(step: &'static str) -> impl FnOnce(tokio_postgres::Error) -> LoadError {
    move |source| LoadError::Sql { step, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::postgres::{PrivatePostgres, Settings, find};

    #[test]
    fn everybody_is_mapped_to_their_roles_and_nobody_to_the_owner() {
        let map = role_map();
        assert_eq!(map.len(), people().len());
        for (mapping, person) in map.iter().zip(people()) {
            assert_eq!(mapping.groups, person.groups);
            assert_eq!(mapping.roles, person.roles);
            assert_eq!(mapping.databases, [DATABASE]);
            assert!(mapping.roles.iter().all(|role| ROLES.contains(&role.as_str())), "{mapping:?}");
        }
    }

    #[tokio::test]
    async fn the_shop_loads_with_the_same_rows_each_time_and_lets_only_its_roles_in() {
        let bin = find(None).unwrap_or_else(|error| panic!("{error}"));
        let server =
            PrivatePostgres::start(&bin, Settings::default()).unwrap_or_else(|error| panic!("{error}"));
        let admin = server.config(server.superuser(), "postgres");
        let shop = Shop::load(&admin).await.unwrap_or_else(|error| panic!("{error}"));

        let client = connect(&server.config(shop.owner(), DATABASE)).await.unwrap();
        let rows = [
            ("customers", 200),
            ("products", 60),
            ("orders", 1000),
            ("order_items", 2500),
            ("reviews", 300),
            ("employees", 8),
            ("order_events", 0),
            ("billing.cards", 134),
            ("customer_overview", 200),
            ("orders_of('ada.adler@example.net')", 5),
        ];
        for (table, expected) in rows {
            let count = client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap();
            assert_eq!(count.get::<_, i64>(0), expected, "{table}");
        }
        client.close().await;

        for role in shop.roles() {
            connect(&server.config(role, DATABASE)).await.unwrap().close().await;
        }
        assert_eq!(shop.credentials().len(), ROLES.len());
        let client = connect(&admin).await.unwrap();
        let stranger = Role::random("stranger");
        stranger.create(&client).await.unwrap();
        let refused = connect(&server.config(&stranger, DATABASE)).await.unwrap_err();
        let ConnectError::Refused(error) = refused else { panic!("{refused}") };
        assert_eq!(error.code().unwrap().code(), "42501");

        // There is one shop on a server: a second one is refused and does not touch the first.
        let again = Shop::load(&admin).await.unwrap_err();
        assert!(matches!(again, LoadError::Exists), "{again}");
        connect(&server.config(&shop.roles()[0], DATABASE)).await.unwrap().close().await;
    }
}
