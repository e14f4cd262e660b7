//! The private server, run for real: started, stopped, abandoned, killed.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::*;

/// Nothing here takes longer, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Tells a second copy of this test binary what to do.
const ORDER: &str = "PGWITNESS_TEST_SERVER";

fn start(settings: Settings) -> Result<PrivatePostgres, ServerError> {
    let bin = find(None).unwrap_or_else(|error| panic!("{error}"));
    PrivatePostgres::start(&bin, settings)
}

fn started() -> PrivatePostgres {
    start(Settings::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// Waits until nothing is true any more that was true of a server in `dir`.
fn wait_until_nothing_is_left(dir: &Path, processes: &[u32]) {
    let deadline = Instant::now() + PATIENCE;
    while dir.exists() || processes.iter().any(|&pid| runs(pid)) {
        assert!(Instant::now() < deadline, "still there: {}, {processes:?}", dir.display());
        std::thread::sleep(POLL);
    }
}

/// Whether a process runs; one that ended and waits to be collected does not.
fn runs(pid: u32) -> bool {
    let state = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().unwrap();
    let state = String::from_utf8(state.stdout).unwrap();
    !state.trim().is_empty() && !state.trim().starts_with('Z')
}

/// The server's own process id.
fn server_pid(dir: &Path) -> u32 {
    let text = fs::read_to_string(dir.join("data/postmaster.pid")).unwrap();
    text.lines().next().unwrap().parse().unwrap()
}

/// A second copy of this test binary that starts a server, says where and then does as it is told.
fn helper(order: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "demo::postgres::tests::helper_process", "--nocapture"]);
    command.env(ORDER, order).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// What a helper says of its server: folder, and the ids of watchdog and server.
fn told_by(helper: &mut std::process::Child) -> (PathBuf, Vec<u32>) {
    let lines = BufReader::new(helper.stdout.take().unwrap()).lines();
    for line in lines.map_while(Result::ok) {
        if let Some((_, told)) = line.split_once("server: ") {
            let mut words = told.split(' ');
            let dir = PathBuf::from(words.next().unwrap());
            return (dir, words.map(|word| word.parse().unwrap()).collect());
        }
    }
    panic!("the helper ended without a server");
}

#[test]
fn helper_process() {
    let Ok(order) = std::env::var(ORDER) else { return };
    let dir = order.strip_prefix("start in ").map(PathBuf::from);
    let server = start(Settings { dir, ..Settings::default() }).unwrap();
    let watchdog = server.watchdog.as_ref().unwrap().id();
    let dir = server.socket_dir();
    println!("server: {} {watchdog} {}", dir.display(), server_pid(dir));
    match order.as_str() {
        "wait" => std::thread::sleep(PATIENCE),
        "exit without a word" => std::process::exit(1),
        other => panic!("unknown order {other}"),
    }
}

#[tokio::test]
async fn it_starts_and_answers_and_leaves_nothing_behind() {
    let server = started();
    let client = connect(&server.config(server.superuser(), "postgres")).await.unwrap();
    let row = client.query_one("SELECT current_user::text, current_setting('listen_addresses')", &[]);
    let row = row.await.unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("postgres", ""));
    // A connection that is still open does not hold up the stop.
    let (dir, pid) = (server.socket_dir().to_owned(), server_pid(server.socket_dir()));
    server.stop().unwrap();
    assert!(!dir.exists());
    wait_until_nothing_is_left(&dir, &[pid]);
}

#[test]
fn dropping_it_stops_it() {
    let server = started();
    let (dir, pid) = (server.socket_dir().to_owned(), server_pid(server.socket_dir()));
    drop(server);
    wait_until_nothing_is_left(&dir, &[pid]);
}

#[test]
fn its_folder_is_closed_to_others_and_belongs_to_whoever_runs_it() {
    let server = started();
    let meta = fs::metadata(server.socket_dir()).unwrap();
    assert_eq!(meta.mode() & 0o777, 0o700);
    let expected = match Owner::choose().unwrap() {
        Owner::Ourselves => fs::metadata("/proc/self").map_or(meta.uid(), |own| own.uid()),
        Owner::Postgres { uid, .. } => uid,
    };
    assert_eq!(meta.uid(), expected);
    let data = fs::metadata(server.socket_dir().join("data")).unwrap();
    assert_eq!(data.uid(), expected);
    assert!(!server.socket_dir().join("pwfile").exists(), "the password stays nowhere in clear");
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_none_too() {
    let server = started();
    let stranger = Role::random(SUPERUSER);
    let refused = connect(&server.config(&stranger, "postgres")).await.unwrap_err();
    let ConnectError::Refused(error) = refused else { panic!("{refused}") };
    assert_eq!(error.code().unwrap().code(), "28P01");
}

#[tokio::test]
async fn a_role_logs_in_with_its_password_and_an_old_password_ends() {
    let server = started();
    let admin = connect(&server.config(server.superuser(), "postgres")).await.unwrap();
    let first = Role::random("o'brien \"x\"");
    first.create(&admin).await.unwrap();
    connect(&server.config(&first, "postgres")).await.unwrap().close().await;

    let mut psql = Command::new(server.bin().program("psql"));
    psql.args(["-XAtc", "SELECT current_user"]).arg(server.libpq_url(&first, "postgres"));
    assert_eq!(String::from_utf8(psql.output().unwrap().stdout).unwrap(), "o'brien \"x\"\n");

    let second = Role::random(first.name.clone());
    second.create(&admin).await.unwrap();
    connect(&server.config(&second, "postgres")).await.unwrap().close().await;
    connect(&server.config(&first, "postgres")).await.unwrap_err();
    let log = fs::read_to_string(server.socket_dir().join("log")).unwrap();
    assert!(!log.contains(first.password.reveal()) && !log.contains(second.password.reveal()));
}

#[test]
fn kill_minus_nine_leaves_no_orphan_and_no_folder() {
    let mut owner = helper("wait").spawn().unwrap();
    let (dir, processes) = told_by(&mut owner);
    assert!(dir.exists() && processes.iter().all(|&pid| runs(pid)));
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_until_nothing_is_left(&dir, &processes);
}

#[test]
fn an_owner_killed_while_the_server_is_being_made_leaves_nothing() {
    let dir = short_base().join(format!("pgw-test-{:08x}", rand::rngs::OsRng.next_u32()));
    let mut owner = helper(&format!("start in {}", dir.display())).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !dir.join("data").exists() {
        assert!(Instant::now() < deadline, "initdb never began");
        std::thread::sleep(Duration::from_millis(1));
    }
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_until_nothing_is_left(&dir, &[]);
    let left = || {
        let output = Command::new("ps").args(["-eo", "args="]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains(&*dir.to_string_lossy())
    };
    while left() {
        assert!(Instant::now() < deadline + PATIENCE, "processes are still there");
        std::thread::sleep(POLL);
    }
}

#[test]
fn an_exit_that_runs_no_destructors_leaves_nothing_either() {
    let mut owner = helper("exit without a word").spawn().unwrap();
    let (dir, processes) = told_by(&mut owner);
    owner.wait().unwrap();
    wait_until_nothing_is_left(&dir, &processes);
}

#[test]
fn the_signals_of_a_terminal_do_not_reach_the_server() {
    let mut owner = helper("wait").process_group(0).spawn().unwrap();
    let (dir, processes) = told_by(&mut owner);
    // What Ctrl-C does: SIGINT to the whole group in the foreground. The owner may outlive it, its server
    // must: it is the owner who stops it, in order.
    let groups = |pid: u32| {
        let output = Command::new("ps").args(["-o", "pgid=", "-p", &pid.to_string()]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert!(processes.iter().all(|&pid| groups(pid) != owner.id().to_string()));
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_until_nothing_is_left(&dir, &processes);
}

#[test]
fn a_watchdog_that_is_killed_takes_the_server_with_it_when_the_owner_goes() {
    let server = started();
    let (dir, pid) = (server.socket_dir().to_owned(), server_pid(server.socket_dir()));
    let watchdog = server.watchdog.as_ref().unwrap().id();
    assert!(Command::new("kill").args(["-KILL", &watchdog.to_string()]).status().unwrap().success());
    drop(server);
    wait_until_nothing_is_left(&dir, &[pid]);
}

#[test]
fn a_start_that_fails_shows_the_end_of_the_log_and_leaves_nothing() {
    let base = short_base();
    let dir = base.join(format!("pgw-test-{:08x}", rand::rngs::OsRng.next_u32()));
    let extra = vec![("shared_buffers".to_owned(), "plenty".to_owned())];
    let failed = start(Settings { dir: Some(dir.clone()), extra, ..Settings::default() }).unwrap_err();
    assert!(matches!(failed, ServerError::Ended { .. }), "{failed}");
    assert!(failed.to_string().contains("invalid value for parameter \"shared_buffers\""), "{failed}");
    wait_until_nothing_is_left(&dir, &[]);
}

#[test]
fn a_folder_that_is_there_already_is_left_alone() {
    let dir = short_base().join(format!("pgw-test-{:08x}", rand::rngs::OsRng.next_u32()));
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("precious"), "mine").unwrap();
    let refused = start(Settings { dir: Some(dir.clone()), ..Settings::default() }).unwrap_err();
    assert!(matches!(refused, ServerError::Folder { .. }), "{refused}");
    assert_eq!(fs::read_to_string(dir.join("precious")).unwrap(), "mine");
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_path_too_long_for_a_socket_is_refused_before_anything_is_made() {
    let dir = short_base().join("long".repeat(30));
    let refused = start(Settings { dir: Some(dir.clone()), ..Settings::default() }).unwrap_err();
    assert!(refused.to_string().contains("too long for a unix socket"), "{refused}");
    assert!(!dir.exists());
}

#[test]
fn what_is_to_be_kept_is_kept() {
    let server = start(Settings { at_end: AtEnd::Keep, ..Settings::default() }).unwrap();
    let dir = server.socket_dir().to_owned();
    server.stop().unwrap();
    assert!(dir.join("data/PG_VERSION").exists() && !dir.join("data/postmaster.pid").exists());
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn somebody_who_is_not_root_runs_it_as_themselves() {
    if Owner::choose().unwrap() == Owner::Ourselves {
        return; // We are not root: the other tests have shown it.
    }
    let id = |what: &str| -> u32 {
        let output = Command::new("id").args([what, "nobody"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    let (uid, gid) = (id("-u"), id("-g"));
    // The test binary may lie where only root can read: run a copy of it.
    let place = tempfile::Builder::new().prefix("pgw-test-").tempdir_in("/tmp").unwrap();
    fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let copy = place.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let mut command = Command::new(&copy);
    command.args(["--exact", "demo::postgres::tests::helper_process", "--nocapture"]);
    command.env(ORDER, "wait").env("TMPDIR", "/tmp").current_dir(place.path()).uid(uid).gid(gid);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut owner = command.spawn().unwrap();
    let (dir, processes) = told_by(&mut owner);
    assert_eq!(fs::metadata(&dir).unwrap().uid(), uid);
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_until_nothing_is_left(&dir, &processes);
}

/// A folder in which a server may live.
fn short_base() -> PathBuf {
    let usual = std::env::temp_dir();
    let owner = Owner::choose().unwrap();
    if owner.can_enter(&usual) && usual.as_os_str().len() < 60 { usual } else { PathBuf::from("/tmp") }
}
