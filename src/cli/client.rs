//! Where the gateway's API is, who we are there, and asking it: shared by the verbs that read.
//!
//! A token goes only to the address it was made for, and over plain HTTP only to this machine.
//! Files with tokens are written for their owner alone and not read otherwise.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::header::{ACCEPT, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::{Host, Url};

use super::table::printable;
use crate::config::Secret;

/// The negative answer: nothing found.
pub const NOTHING: u8 = 1;
/// Wrong use.
pub const USAGE: u8 = 2;
/// Cannot connect or authenticate.
pub const UNREACHABLE: u8 = 3;

/// Connecting to the gateway or the provider.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One answer; between two pieces of an export.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a question is asked again that was asked too often.
const WAITS_MAX: u32 = 10;
/// Longest wait for that.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Largest answer read whole, bytes.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Largest file with a token, bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Which gateway: shared by the verbs that read.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Connection {
    /// Address of the gateway's API [default: $PGWITNESS_URL, the stored login, the running demo]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

/// Why a verb ends without an answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// No gateway, no answer, or not one of ours.
    #[error("{0}")]
    Unreachable(String),
    /// The gateway does not know us.
    #[error("{0}. Log in with: pgwitness login")]
    Unauthenticated(String),
    /// The query cannot be read.
    #[error("{0}")]
    Query(String),
    /// It is not there, or not for us.
    #[error("{0}")]
    NotFound(String),
    /// Something on this machine.
    #[error("could not {what}: {error}")]
    Local {
        /// What was tried.
        what: String,
        /// How it failed.
        error: io::Error,
    },
    /// Nobody reads our output any more.
    #[error("the output was closed")]
    Closed,
}

impl ClientError {
    /// An error of this machine, with what was tried.
    pub fn local(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| {
            if error.kind() == io::ErrorKind::BrokenPipe { Self::Closed } else { Self::Local { what, error } }
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Query(_) => USAGE,
            Self::NotFound(_) => NOTHING,
            Self::Unreachable(_) | Self::Unauthenticated(_) => UNREACHABLE,
            Self::Local { .. } => NOTHING,
            Self::Closed => 0,
        }
    }
}

/// Says what went wrong and turns a verb's end into its exit code.
pub fn finish(ended: Result<ExitCode, ClientError>) -> ExitCode {
    ended.unwrap_or_else(|error| {
        if !matches!(error, ClientError::Closed) {
            eprintln!("pgwitness: {error}");
        }
        ExitCode::from(error.exit_code())
    })
}

/// A stored login.
#[derive(Clone, Serialize, Deserialize)]
pub struct Credentials {
    /// The gateway it is for.
    pub url: Url,
    /// The token.
    pub token: String,
    /// Who it says we are; for messages.
    pub user: String,
    /// When it ends, in seconds since 1970.
    pub expires: u64,
}

/// What the running demo tells the other verbs.
#[derive(Clone, Serialize, Deserialize)]
pub struct DemoFile {
    /// Where its API is.
    pub url: Url,
    /// A token of an auditor there.
    pub token: String,
    /// Where its journal is.
    pub dir: PathBuf,
}

impl DemoFile {
    /// Where the running demo's file is: for this user alone.
    pub fn path() -> PathBuf {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
        match runtime {
            Some(dir) => dir.join("pgwitness").join("demo.json"),
            None => std::env::temp_dir().join(format!("pgwitness-{}", own_uid())).join("demo.json"),
        }
    }

    /// Writes the file for this user alone.
    pub fn write(&self) -> io::Result<()> {
        write_private(&Self::path(), &serde_json::to_vec(self).map_err(io::Error::other)?)
    }

    /// Reads the file, if a demo runs and it is ours alone.
    pub fn read() -> io::Result<Option<Self>> {
        read_private(&Self::path())
    }

    /// Removes the file, if it is there.
    pub fn remove() -> io::Result<()> {
        remove(&Self::path())
    }
}

impl Credentials {
    /// Where the stored login is.
    pub fn path() -> Option<PathBuf> {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
        let config =
            absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")))?;
        Some(config.join("pgwitness").join("credentials.json"))
    }

    /// Writes the stored login for this user alone.
    pub fn write(&self) -> io::Result<PathBuf> {
        let path = Self::path().ok_or_else(|| io::Error::other("neither XDG_CONFIG_HOME nor HOME is set"))?;
        write_private(&path, &serde_json::to_vec(self).map_err(io::Error::other)?)?;
        Ok(path)
    }

    /// Reads the stored login, ended or not.
    pub fn read() -> io::Result<Option<Self>> {
        Self::path().map_or(Ok(None), |path| read_private(&path))
    }

    /// Forgets the stored login.
    pub fn remove() -> io::Result<()> {
        Self::path().map_or(Ok(()), |path| remove(&path))
    }

    fn is_over(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.expires <= now.as_secs()
    }
}

/// The gateway's API, with who we are there.
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<Secret>,
}

impl Client {
    /// Finds the gateway: the flag, `PGWITNESS_URL`, the stored login, the running demo; and the
    /// token: `PGWITNESS_TOKEN`, or the one that belongs to that address.
    pub fn find(connection: &Connection) -> Result<Self, ClientError> {
        let named = connection.url.clone().or_else(|| env("PGWITNESS_URL"));
        let named = named.as_deref().map(address).transpose()?;
        let stored = Credentials::read().map_err(ClientError::local("read the stored login"))?;
        let demo = DemoFile::read().map_err(ClientError::local("read the running demo's file"))?;
        let mut known = Vec::new();
        let over = stored.as_ref().is_some_and(Credentials::is_over);
        known.extend(stored.filter(|_| !over).map(|stored| (stored.url, stored.token)));
        known.extend(demo.map(|demo| (demo.url, demo.token)));
        let (base, own) = match named {
            Some(base) => {
                let token =
                    known.into_iter().find(|(url, _)| same_origin(url, &base)).map(|(_, token)| token);
                (base, token)
            }
            None => match known.into_iter().next() {
                Some((url, token)) => (url, Some(token)),
                None if over => {
                    return Err(ClientError::Unauthenticated("the stored login has ended".into()));
                }
                None => return Err(no_gateway()),
            },
        };
        let token = env("PGWITNESS_TOKEN").or(own).map(Secret::new);
        if token.is_some() && !is_private(&base) {
            return Err(ClientError::Usage(format!(
                "a token is not sent to {base} over plain HTTP. Use https://"
            )));
        }
        Ok(Self { http: http(&base)?, base, token })
    }

    /// The gateway's address alone: the flag, `PGWITNESS_URL`, the stored login, the running demo.
    pub fn address(connection: &Connection) -> Result<Url, ClientError> {
        if let Some(named) = connection.url.clone().or_else(|| env("PGWITNESS_URL")) {
            return address(&named);
        }
        let stored = Credentials::read().map_err(ClientError::local("read the stored login"))?;
        let demo = || DemoFile::read().map_err(ClientError::local("read the running demo's file"));
        match stored {
            Some(stored) => Ok(stored.url),
            None => demo()?.map(|demo| demo.url).ok_or_else(no_gateway),
        }
    }

    /// A client of one address, as somebody or nobody.
    pub fn new(base: Url, token: Option<Secret>) -> Result<Self, ClientError> {
        Ok(Self { http: http(&base)?, base, token })
    }

    /// The gateway's address.
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// Asks for a JSON document; parameters without a value are left out.
    pub async fn get(&self, path: &str, params: &[(&str, Option<&str>)]) -> Result<Value, ClientError> {
        let body = whole(self.send(path, params).await?).await?;
        serde_json::from_slice(&body).map_err(|_| not_ours(&self.base))
    }

    /// Asks for a stream of bytes.
    pub async fn send(&self, path: &str, params: &[(&str, Option<&str>)]) -> Result<Response, ClientError> {
        let mut url = self.base.clone();
        url.set_path(path);
        url.set_query(None);
        for (name, value) in params {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        self.answered(|| self.http.get(url.clone()), params).await
    }

    /// Sends a JSON document; the answer is one, too.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        let mut url = self.base.clone();
        url.set_path(path);
        let answer = self.answered(|| self.http.post(url.clone()).json(body), &[]).await?;
        serde_json::from_slice(&whole(answer).await?).map_err(|_| not_ours(&self.base))
    }

    /// The answer to a request, which is made again if it came too early.
    async fn answered(
        &self,
        make: impl Fn() -> RequestBuilder,
        params: &[(&str, Option<&str>)],
    ) -> Result<Response, ClientError> {
        let mut waits = 0;
        loop {
            let mut request = make().header(ACCEPT, "application/json");
            if let Some(token) = &self.token {
                request = request.bearer_auth(token.reveal());
            }
            let response = request.send().await.map_err(|error| unreachable(&self.base, &error))?;
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            if let Some(wait) = come_again(&response).filter(|_| waits < WAITS_MAX) {
                waits += 1;
                tokio::time::sleep(wait).await;
                continue;
            }
            let body = whole(response).await?;
            return Err(refused(status, &serde_json::from_slice(&body).unwrap_or(Value::Null), params));
        }
    }
}

/// How long to wait before the same question may be asked again, if that is all.
fn come_again(response: &Response) -> Option<Duration> {
    if response.status() != StatusCode::TOO_MANY_REQUESTS {
        return None;
    }
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds)).filter(|wait| *wait <= WAIT_MAX)
}

/// An HTTP client that follows no redirects and waits for nothing without end.
pub(super) fn http(base: &Url) -> Result<reqwest::Client, ClientError> {
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(ANSWER_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("pgwitness/", env!("CARGO_PKG_VERSION")));
    if is_loopback(base) {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| ClientError::Unreachable(format!("could not prepare HTTPS: {error}")))
}

/// A whole answer, up to a bound.
pub(super) async fn whole(mut response: Response) -> Result<Vec<u8>, ClientError> {
    let url = response.url().clone();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&url, &error))? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(ClientError::Unreachable("the answer is too large. Ask for less".into()));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The error for a request that got no answer, with its causes.
pub(super) fn unreachable(url: &Url, error: &reqwest::Error) -> ClientError {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    ClientError::Unreachable(format!("could not reach {}: {cause}", url.origin().ascii_serialization()))
}

fn no_gateway() -> ClientError {
    ClientError::Unreachable(
        "no gateway is known. Name it with --url or PGWITNESS_URL, or start: pgwitness demo".into(),
    )
}

fn not_ours(base: &Url) -> ClientError {
    ClientError::Unreachable(format!("what answers at {base} is not a pgwitness API"))
}

fn refused(status: StatusCode, problem: &Value, params: &[(&str, Option<&str>)]) -> ClientError {
    let detail =
        problem["detail"].as_str().map_or_else(|| format!("the gateway answered {status}"), printable);
    match status {
        StatusCode::UNAUTHORIZED => ClientError::Unauthenticated(detail),
        StatusCode::NOT_FOUND => ClientError::NotFound(detail),
        StatusCode::BAD_REQUEST => {
            let query = params.iter().find(|(name, _)| *name == "q").and_then(|(_, value)| *value);
            ClientError::Query(explained(&detail, problem, query))
        }
        _ => ClientError::Unreachable(detail),
    }
}

/// A query's error with its place underlined.
fn explained(detail: &str, problem: &Value, query: Option<&str>) -> String {
    let mut text = detail.to_owned();
    let edge = |index: usize| problem["span"][index].as_u64().and_then(|at| usize::try_from(at).ok());
    if let (Some(query), Some(start), Some(end)) = (query, edge(0), edge(1))
        && let (Some(before), Some(place)) = (query.get(..start), query.get(start..end))
    {
        let indent = printable(before).chars().count();
        let marks = printable(place).chars().count().max(1);
        text.push_str(&format!("\n  {}\n  {}{}", printable(query), " ".repeat(indent), "^".repeat(marks)));
    }
    if let Some(suggestion) = problem["suggestion"].as_str() {
        text.push_str(&format!("\n  did you mean: {}", printable(suggestion)));
    }
    text
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn address(text: &str) -> Result<Url, ClientError> {
    let wrong = |why: &str| {
        ClientError::Usage(format!(
            "the gateway's address {text:?} {why}. Write https://host or http://127.0.0.1:7432"
        ))
    };
    let url = Url::parse(text).map_err(|_| wrong("is not a URL"))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        _ => Err(wrong("is not one of HTTP")),
    }
}

fn same_origin(a: &Url, b: &Url) -> bool {
    a.origin() == b.origin()
}

/// Whether a token may travel there.
pub(super) fn is_private(url: &Url) -> bool {
    url.scheme() == "https" || is_loopback(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        None => false,
    }
}

fn own_uid() -> u32 {
    rustix::process::getuid().as_raw()
}

/// Writes a file that only its owner reads, whole or not at all, in a folder of the same kind.
pub(super) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::other("the path has no folder"))?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    own_folder(dir)?;
    let draft = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

fn read_private<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let refuse = |why: &str| Err(io::Error::other(format!("{} {why}. Remove it", path.display())));
    if !found.is_file() || found.uid() != own_uid() {
        return refuse("is not a file of yours");
    }
    if found.mode() & 0o077 != 0 {
        return refuse("can be read by others");
    }
    if found.len() > FILE_BYTES_MAX {
        return refuse("is too large");
    }
    path.parent().map_or(Ok(()), own_folder)?;
    match serde_json::from_slice(&fs::read(path)?) {
        Ok(value) => Ok(Some(value)),
        Err(_) => refuse("is damaged"),
    }
}

/// In a folder that others may write to, our file could be replaced by theirs.
fn own_folder(dir: &Path) -> io::Result<()> {
    let found = fs::metadata(dir)?;
    if found.uid() == own_uid() && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!("the folder {} is not yours alone", dir.display())))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn demo() -> DemoFile {
        DemoFile {
            url: "http://127.0.0.1:7432".parse().unwrap(),
            token: "pgw_x".into(),
            dir: "/tmp/x".into(),
        }
    }

    #[test]
    fn a_token_file_is_for_its_owner_alone_and_not_read_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pgwitness").join("demo.json");
        assert!(read_private::<DemoFile>(&path).unwrap().is_none());
        write_private(&path, &serde_json::to_vec(&demo()).unwrap()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(read_private::<DemoFile>(&path).unwrap().unwrap().token, "pgw_x");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read_private::<DemoFile>(&path).is_err());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(read_private::<DemoFile>(&path).is_err());
    }

    #[test]
    fn a_link_in_place_of_the_file_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real.json"), dir.path().join("demo.json"));
        write_private(&real, &serde_json::to_vec(&demo()).unwrap()).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(read_private::<DemoFile>(&link).is_err());
    }

    #[test]
    fn a_token_is_sent_in_the_clear_to_this_machine_only() {
        for (url, fine) in [
            ("https://audit.example", true),
            ("http://127.0.0.1:7432", true),
            ("http://[::1]:7432", true),
            ("http://localhost:7432", true),
            ("http://audit.example", false),
            ("http://127.0.0.1.example", false),
        ] {
            assert_eq!(is_private(&address(url).unwrap()), fine, "{url}");
        }
        assert!(address("ftp://x").is_err() && address("7432").is_err());
    }

    #[test]
    fn a_querys_error_is_underlined_where_it_is() {
        let problem = serde_json::json!({ "span": [0, 5], "suggestion": "table" });
        let text = explained("there is no field \"tabel\"", &problem, Some("tabel:users"));
        assert_eq!(text, "there is no field \"tabel\"\n  tabel:users\n  ^^^^^\n  did you mean: table");
    }
}
