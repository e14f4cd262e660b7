//! PostgreSQL's own grammar, in a process of its own.
//!
//! libpg_query is PostgreSQL's parser as a C library: it knows every statement, but it cannot be cancelled, and an
//! abort in it would end the gateway. So the program starts itself again as `pgwitness grammar`, asks over a socket,
//! waits a bounded time, and kills what does not answer; a session then sees no more than a statement that was not
//! understood.
//!
//! Asked on the thread that reads a statement for the first time: about 0.1 ms beyond the parse itself.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::sql::{self, Grammar};

/// The program to start, if it is not the running one.
static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// The most processes.
const PROCESSES_MAX: usize = 4;
/// The most bytes of an answer.
const ANSWER_MAX: usize = 256 << 20;
/// What the process may use of memory, bytes.
const MEMORY_MAX: u64 = 2 << 30;
/// The stack that a statement within the limits of `sql` needs.
const STACK: usize = 256 << 20;
/// The shortest wait for an answer, and how many bytes of text add a second to it.
const WAIT: Duration = Duration::from_secs(1);
const BYTES_A_SECOND: u64 = 256 << 10;
/// How long to wait for a process that others use.
const BUSY_WAIT: Duration = Duration::from_secs(2);

/// The processes, started when they are first needed.
#[derive(Debug, Default)]
pub struct Processes {
    free: Mutex<Pool>,
    returned: Condvar,
}

#[derive(Debug, Default)]
struct Pool {
    idle: Vec<Process>,
    /// Idle or in use.
    all: usize,
}

struct Process {
    child: Child,
    socket: UnixStream,
}

impl fmt::Debug for Process {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "process {}", self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Grammar for Processes {
    fn raw_tree(&self, text: &str, standard_conforming_strings: bool) -> Result<Vec<u8>, String> {
        let failed = |error: io::Error| {
            tracing::warn!(%error, bytes = text.len(), "the second reader did not answer");
            "not understood: the second reader did not answer".to_owned()
        };
        let mut process = self.take().map_err(failed)?;
        match process.ask(text, standard_conforming_strings) {
            Ok(answer) => {
                self.put(Some(process));
                answer
            }
            Err(error) => {
                drop(process);
                self.put(None);
                Err(failed(error))
            }
        }
    }
}

impl Processes {
    /// The ids of those that wait for work.
    pub fn idle(&self) -> Vec<u32> {
        let pool = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        pool.idle.iter().map(|process| process.child.id()).collect()
    }

    fn take(&self) -> io::Result<Process> {
        let mut pool = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.idle.is_empty() && pool.all >= PROCESSES_MAX {
            let full = |pool: &mut Pool| pool.idle.is_empty() && pool.all >= PROCESSES_MAX;
            let waited = self.returned.wait_timeout_while(pool, BUSY_WAIT, full);
            pool = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if let Some(process) = pool.idle.pop() {
            return Ok(process);
        }
        if pool.all >= PROCESSES_MAX {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "all processes are busy"));
        }
        let process = Process::start()?;
        pool.all += 1;
        Ok(process)
    }

    /// Gives a process back, or says that it is gone.
    fn put(&self, process: Option<Process>) {
        let mut pool = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        match process {
            Some(process) => pool.idle.push(process),
            None => pool.all -= 1,
        }
        self.returned.notify_one();
    }
}

impl Process {
    fn start() -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        let theirs = OwnedFd::from(theirs);
        let program = match PROGRAM.get() {
            Some(program) => program.clone(),
            None => running()?,
        };
        let child = Command::new(program)
            .arg("grammar")
            .env_clear()
            .stdin(theirs.try_clone()?)
            .stdout(theirs)
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child, socket })
    }

    fn ask(&mut self, text: &str, standard: bool) -> io::Result<Result<Vec<u8>, String>> {
        let wait = WAIT + Duration::from_secs(text.len() as u64 / BYTES_A_SECOND);
        self.socket.set_read_timeout(Some(wait))?;
        self.socket.set_write_timeout(Some(wait))?;
        send(&mut self.socket, standard, text.as_bytes())?;
        let (understood, answer) = receive(&mut self.socket, ANSWER_MAX)?;
        Ok(if understood { Ok(answer) } else { Err(String::from_utf8_lossy(&answer).into_owned()) })
    }
}

/// The running program, even when its file has been replaced meanwhile.
fn running() -> io::Result<PathBuf> {
    let linux = Path::new("/proc/self/exe");
    if linux.exists() { Ok(linux.to_owned()) } else { std::env::current_exe() }
}

/// Names the program to start, where it is not the running one: a gateway inside of another program.
pub fn start_by(program: PathBuf) {
    // The first word counts.
    PROGRAM.get_or_init(|| program);
}

/// A flag and a text with its length before it.
fn send(to: &mut impl Write, flag: bool, text: &[u8]) -> io::Result<()> {
    let length = u32::try_from(text.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut message = Vec::with_capacity(text.len() + 5);
    message.extend(length.to_be_bytes());
    message.push(u8::from(flag));
    message.extend(text);
    to.write_all(&message)?;
    to.flush()
}

fn receive(from: &mut impl Read, most: usize) -> io::Result<(bool, Vec<u8>)> {
    let mut head = [0; 5];
    from.read_exact(&mut head)?;
    let [a, b, c, d, flag] = head;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > most {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let mut text = vec![0; length];
    from.read_exact(&mut text)?;
    Ok((flag != 0, text))
}

/// What the process of its own does: answers on standard output what is asked on standard input, until that ends.
///
/// # Errors
/// When the process cannot limit itself or start its thread.
pub fn serve() -> io::Result<ExitCode> {
    setrlimit(Resource::As, Rlimit { current: Some(MEMORY_MAX), maximum: Some(MEMORY_MAX) })?;
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(answer_all)?;
    Ok(if thread.join().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn answer_all() {
    let (mut asked, mut answers) = (io::stdin().lock(), io::stdout().lock());
    while let Ok((standard, text)) = receive(&mut asked, sql::TEXT_MAX) {
        let text = String::from_utf8_lossy(&text);
        let sent = match sql::raw_tree(&text, standard) {
            Ok(tree) => send(&mut answers, true, &tree),
            Err(message) => send(&mut answers, false, message.as_bytes()),
        };
        if sent.is_err() {
            return;
        }
    }
}
