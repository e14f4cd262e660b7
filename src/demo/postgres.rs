//! A private, throw-away PostgreSQL: made, run and removed by us.
//!
//! It listens on a unix socket in a folder that only its owner can enter, never on the network, and asks
//! every connection for a password. It does not care for its data (no fsync): never put anything into it
//! that must last. It does not outlive its owner, however that dies: the server runs under a small shell
//! script that holds a pipe from us and cleans up when the pipe closes.

mod client;
mod find;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::RngCore;

pub use client::{ConnectError, Connected, Role, connect};
pub(crate) use client::{quote_ident, told};
pub use find::{NotFound, PgBin, find};

/// The server's superuser.
pub const SUPERUSER: &str = "postgres";

/// Making and starting it takes at most this long (a busy machine needs some seconds).
const READY_TIMEOUT: Duration = Duration::from_secs(90);

/// An orderly stop takes at most this long; the script itself becomes rude after five seconds.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// How often we look whether it is ready or gone.
const POLL: Duration = Duration::from_millis(20);

/// Path of a unix socket: the smallest limit among systems is 104 bytes, with the closing zero.
const SOCKET_PATH_MAX: usize = 103;

/// At most this much of the log is shown when a start fails.
const LOG_TAIL_LINES: usize = 12;

/// At most this much of the log is read when a start fails, bytes.
const LOG_TAIL_BYTES: u64 = 16 * 1024;

/// Runs and guards the server.
const WATCHDOG: &str = include_str!("postgres/watchdog.sh");

/// What becomes of the folder when the server stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AtEnd {
    /// It is removed.
    #[default]
    Remove,
    /// It stays, with data and log.
    Keep,
}

/// How to start one.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its folder, which must not exist yet; `None` makes one with a short random name.
    pub dir: Option<PathBuf>,
    /// Part of the socket's name; no network port is opened.
    pub port: u16,
    /// What becomes of the folder.
    pub at_end: AtEnd,
    /// Server settings on top of ours, as pairs of name and value.
    pub extra: Vec<(String, String)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { dir: None, port: 5432, at_end: AtEnd::default(), extra: Vec::new() }
    }
}

/// Why it did not start or stop.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Its folder could not be made or filled.
    #[error("could not prepare the folder {} for PostgreSQL: {source}", dir.display())]
    Folder {
        /// Which.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No place for a socket.
    #[error("the folder {} is no place for PostgreSQL: {why}. Choose another with TMPDIR", dir.display())]
    Place {
        /// Which.
        dir: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// PostgreSQL refuses to run as root, and there is nobody else.
    #[error(
        "PostgreSQL does not run as root and this machine has no user `postgres`. Create it with `useradd --system postgres`, or run as yourself"
    )]
    NoUser,
    /// A program could not be run.
    #[error("could not run {program}: {source}")]
    Run {
        /// Which.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It ended while starting.
    #[error("PostgreSQL ended while it was starting. Its log ends with:\n{log}")]
    Ended {
        /// The last lines of its log.
        log: String,
    },
    /// It did not become ready.
    #[error("PostgreSQL was not ready after {} s. Its log ends with:\n{log}", READY_TIMEOUT.as_secs())]
    Slow {
        /// The last lines of its log.
        log: String,
    },
    /// It did not stop.
    #[error("PostgreSQL in {} did not stop within {} s and was killed", dir.display(), STOP_TIMEOUT.as_secs())]
    Stuck {
        /// Its folder.
        dir: PathBuf,
    },
}

/// A running private server. Dropping it stops it and removes its folder.
#[derive(Debug)]
pub struct PrivatePostgres {
    bin: PgBin,
    dir: PathBuf,
    port: u16,
    at_end: AtEnd,
    superuser: Role,
    /// The script that runs the server; `None` once stopped.
    watchdog: Option<Child>,
}

impl PrivatePostgres {
    /// Makes a database cluster and starts a server on it; returns when it accepts connections.
    ///
    /// Blocks for a few seconds: call it through `spawn_blocking` inside a runtime. When we are root,
    /// everything that belongs to the server is owned and run by the system user `postgres`.
    pub fn start(bin: &PgBin, settings: Settings) -> Result<Self, ServerError> {
        let owner = Owner::choose()?;
        let dir = make_folder(settings.dir, settings.port, owner)?;
        let superuser = Role::random(SUPERUSER);
        let mut server = Self {
            bin: bin.clone(),
            dir,
            port: settings.port,
            at_end: settings.at_end,
            superuser,
            watchdog: None,
        };
        server.write_password(owner).map_err(|source| {
            let dir = server.dir.clone();
            ServerError::Folder { dir, source }
        })?;
        server.watchdog = Some(server.spawn(owner, &settings.extra)?);
        server.wait_ready()?;
        Ok(server)
    }

    /// The programs it runs from.
    pub fn bin(&self) -> &PgBin {
        &self.bin
    }

    /// Its folder, which also holds the socket: what libpq calls `host`.
    pub fn socket_dir(&self) -> &Path {
        &self.dir
    }

    /// What libpq calls `port`: part of the socket's name.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its superuser.
    pub fn superuser(&self) -> &Role {
        &self.superuser
    }

    /// How to reach a database as somebody.
    pub fn config(&self, role: &Role, dbname: &str) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.host_path(&self.dir).port(self.port).dbname(dbname).user(&role.name);
        config.password(role.password.reveal());
        config
    }

    /// The same as a connection string for psql and other libpq programs. Holds the password: for the
    /// environment of a child, never for a log.
    pub fn libpq_url(&self, role: &Role, dbname: &str) -> String {
        // libpq reads `+` as itself, unlike forms.
        let encode = |text: &str| {
            let form: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
            form.replace('+', "%20")
        };
        format!(
            "postgresql://{}:{}@/{}?host={}&port={}",
            encode(&role.name),
            encode(role.password.reveal()),
            encode(dbname),
            encode(&self.dir.to_string_lossy()),
            self.port
        )
    }

    /// Stops the server in order and removes its folder, unless it is to be kept. Blocks for some tenths
    /// of a second; bounded. Dropping does the same and swallows the error.
    pub fn stop(mut self) -> Result<(), ServerError> {
        self.end()
    }

    fn write_password(&self, owner: Owner) -> io::Result<()> {
        let path = self.dir.join("pwfile");
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        writeln!(file, "{}", self.superuser.password.reveal())?;
        owner.give(&path)
    }

    fn spawn(&self, owner: Owner, extra: &[(String, String)]) -> Result<Child, ServerError> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(WATCHDOG).arg("pgwitness-watchdog").arg(&self.dir);
        command.arg(self.bin.program("initdb")).arg(self.bin.program("postgres"));
        command.arg(match self.at_end {
            AtEnd::Remove => "remove",
            AtEnd::Keep => "keep",
        });
        command.arg("-k").arg(&self.dir).arg("-p").arg(self.port.to_string());
        let ours = OUR_SETTINGS.iter().map(|(name, value)| format!("{name}={value}"));
        let theirs = extra.iter().map(|(name, value)| format!("{name}={value}"));
        for setting in ours.chain(theirs) {
            command.arg("-c").arg(setting);
        }
        // The caller's PGDATA, PGPORT and the like mean another server.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C").current_dir(&self.dir);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Ctrl-C in the terminal is for us: we stop the server afterwards, in order.
        command.process_group(0);
        owner.become_by(&mut command);
        command.spawn().map_err(|source| ServerError::Run { program: "sh", source })
    }

    /// Waits until the server says itself that it is ready, in the last line of its pid file.
    fn wait_ready(&mut self) -> Result<(), ServerError> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            let status = fs::read_to_string(self.dir.join("data/postmaster.pid")).unwrap_or_default();
            if status.lines().nth(7).is_some_and(|line| line.trim_end() == "ready") {
                return Ok(());
            }
            if self.dir.join("ended").exists() || self.watchdog_gone() {
                return Err(ServerError::Ended { log: self.log_tail() });
            }
            if Instant::now() >= deadline {
                return Err(ServerError::Slow { log: self.log_tail() });
            }
            std::thread::sleep(POLL);
        }
    }

    fn watchdog_gone(&mut self) -> bool {
        self.watchdog.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// The last lines of the log.
    fn log_tail(&self) -> String {
        let path = self.dir.join("log");
        let read = || -> io::Result<Vec<u8>> {
            use std::io::{Read, Seek, SeekFrom};
            let mut file = fs::File::open(&path)?;
            let start = file.metadata()?.len().saturating_sub(LOG_TAIL_BYTES);
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = Vec::new();
            file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = match read() {
            Ok(bytes) => bytes,
            Err(error) => return format!("(could not read {}: {error})", path.display()),
        };
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    fn end(&mut self) -> Result<(), ServerError> {
        let Some(mut child) = self.watchdog.take() else { return self.remove() };
        // The end of the pipe is what the script waits for.
        drop(child.stdin.take());
        let deadline = Instant::now() + STOP_TIMEOUT;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                // Nothing to add if even that fails: the error below says that it is stuck.
                let _ = child.kill();
                let _ = child.wait();
                return Err(ServerError::Stuck { dir: self.dir.clone() });
            }
            std::thread::sleep(POLL);
        }
        self.remove()
    }

    /// Removes what the script could not: the folder itself, if its parent belongs to somebody else.
    fn remove(&self) -> Result<(), ServerError> {
        if self.at_end == AtEnd::Keep {
            return Ok(());
        }
        match fs::remove_dir_all(&self.dir) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(ServerError::Folder { dir: self.dir.clone(), source })
            }
            _ => Ok(()),
        }
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        // Nobody is left to hear of it; the script goes on cleaning up by itself.
        let _ = self.end();
    }
}

/// Settings of every private server; a caller's own come after and win.
const OUR_SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", ""),
    ("unix_socket_permissions", "0700"),
    ("max_connections", "200"),
    ("max_prepared_transactions", "10"),
    ("password_encryption", "scram-sha-256"),
    ("shared_buffers", "32MB"),
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("jit", "off"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
];

/// Who owns and runs the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// Whoever we are.
    Ourselves,
    /// The system user `postgres`, because we are root.
    Postgres { uid: u32, gid: u32 },
}

impl Owner {
    fn choose() -> Result<Self, ServerError> {
        let id = |args: &[&str]| -> Result<Option<u32>, ServerError> {
            let output = Command::new("id").args(args).stdin(Stdio::null()).output();
            let output = output.map_err(|source| ServerError::Run { program: "id", source })?;
            Ok(String::from_utf8_lossy(&output.stdout).trim().parse().ok())
        };
        if id(&["-u"])? != Some(0) {
            return Ok(Self::Ourselves);
        }
        match (id(&["-u", "postgres"])?, id(&["-g", "postgres"])?) {
            (Some(uid), Some(gid)) => Ok(Self::Postgres { uid, gid }),
            _ => Err(ServerError::NoUser),
        }
    }

    fn give(self, path: &Path) -> io::Result<()> {
        match self {
            Self::Ourselves => Ok(()),
            Self::Postgres { uid, gid } => chown(path, Some(uid), Some(gid)),
        }
    }

    fn become_by(self, command: &mut Command) {
        if let Self::Postgres { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
    }

    /// Whether the owner can reach things in a folder of this name.
    fn can_enter(self, dir: &Path) -> bool {
        let open = |dir: &Path| fs::metadata(dir).is_ok_and(|meta| meta.is_dir() && meta.mode() & 0o001 != 0);
        match self {
            Self::Ourselves => dir.is_dir(),
            Self::Postgres { .. } => dir.ancestors().all(open),
        }
    }
}

/// Makes the server's folder: the one named, or a new one with a short name in the first temporary folder
/// that suits.
fn make_folder(named: Option<PathBuf>, port: u16, owner: Owner) -> Result<PathBuf, ServerError> {
    let dir = match named {
        Some(dir) => {
            let failed = |source| ServerError::Folder { dir: dir.clone(), source };
            check_place(&std::path::absolute(&dir).map_err(failed)?, port, owner)?
        }
        None => {
            let name = format!("pgw-{:08x}", rand::rngs::OsRng.next_u32());
            let usual = check_place(&std::env::temp_dir().join(&name), port, owner);
            usual.or_else(|_| check_place(&Path::new("/tmp").join(&name), port, owner))?
        }
    };
    let made = fs::DirBuilder::new().mode(0o700).create(&dir).and_then(|()| owner.give(&dir));
    made.map_err(|source| ServerError::Folder { dir: dir.clone(), source })?;
    Ok(dir)
}

/// Hands back the folder if the server could live there.
fn check_place(dir: &Path, port: u16, owner: Owner) -> Result<PathBuf, ServerError> {
    let refuse = |why| Err(ServerError::Place { dir: dir.to_owned(), why });
    let socket = dir.join(format!(".s.PGSQL.{port}"));
    if socket.as_os_str().len() > SOCKET_PATH_MAX {
        return refuse("its path is too long for a unix socket");
    }
    if !dir.parent().is_some_and(|parent| owner.can_enter(parent)) {
        return refuse("the user who runs the server cannot enter it");
    }
    Ok(dir.to_owned())
}

#[cfg(test)]
mod tests;
