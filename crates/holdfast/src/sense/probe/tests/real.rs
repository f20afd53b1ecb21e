//! Real servers and real programs on this host.

use super::super::fake::closed_port;
use super::*;
use std::path::Path;
use std::process::{Child, Stdio};
use tempfile::TempDir;

/// A server on a free port of loopback, with its data in a folder of its own.
struct Server {
    child: Child,
    at: Target,
    _folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(program: &str, package: &str, at: Target, folder: TempDir, arguments: &[String]) -> Self {
        let child = std::process::Command::new(installed(program, package))
            .args(arguments)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, at, _folder: folder }
    }
}

fn installed(program: &str, package: &str) -> std::path::PathBuf {
    ["/usr/sbin", "/usr/bin"]
        .map(|folder| Path::new(folder).join(program))
        .into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("this test needs the Debian package {package} (apt-get install {package})"))
}

async fn until_answered(probe: &Probe) {
    for _ in 0..1_000 {
        match ask(probe, SHORT).await {
            AppSign::Answered { .. } => return,
            AppSign::Failed { how: ProbeFailure::Internal, text } => panic!("{text}"),
            AppSign::Failed { .. } => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    panic!("{probe:?} was never answered");
}

async fn redis_server(more: &[&str]) -> Server {
    let folder = TempDir::new().unwrap();
    let at = closed_port().await;
    let port = at.port.to_string();
    let fixed = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"];
    let arguments: Vec<String> = fixed.iter().chain(more).map(|&word| word.into()).collect();
    Server::start("redis-server", "redis-server", at, folder, &arguments)
}

#[tokio::test]
async fn a_real_redis_answers_denies_and_runs_out_of_connections() {
    let server = redis_server(&["--requirepass", "secret", "--maxclients", "1"]).await;
    let plain = Redis {
        at: server.at.clone(),
        user: None,
        password: Some(Password("secret".into())),
        database: 0,
        key: None,
        expect: None,
    };
    until_answered(&Probe::Redis(plain.clone())).await;
    let get =
        Redis { key: Some("nothing".into()), database: 2, user: Some("default".into()), ..plain.clone() };
    until_answered(&Probe::Redis(get.clone())).await;
    // There is room for one: the server may not have heard yet that the one before has left.
    let refusal = async |probe: Redis| {
        for _ in 0..1_000 {
            let how = failure(&Probe::Redis(probe.clone()), AMPLE).await.0;
            if how != ProbeFailure::Exhausted {
                return how;
            }
        }
        ProbeFailure::Exhausted
    };
    let missing = Redis { expect: Some("something".into()), ..get };
    assert_eq!(refusal(missing).await, ProbeFailure::Wrong);
    let nobody = Redis { password: None, ..plain.clone() };
    assert_eq!(refusal(nobody).await, ProbeFailure::Denied);
    let wrong = Redis { password: Some(Password("guess".into())), ..plain.clone() };
    assert_eq!(refusal(wrong).await, ProbeFailure::Denied);

    let _other = tokio::net::TcpStream::connect((server.at.host.as_str(), server.at.port)).await.unwrap();
    let full = Probe::Redis(plain);
    for _ in 0..1_000 {
        // The server may not have taken the other connection yet.
        if let AppSign::Failed { how: ProbeFailure::Exhausted, .. } = ask(&full, AMPLE).await {
            return;
        }
    }
    panic!("one connection too many is never refused");
}

#[tokio::test]
async fn a_real_mariadb_answers_denies_and_is_asked_politely() {
    let folder = TempDir::new().unwrap();
    let at = closed_port().await;
    let data = folder.path().join("data");
    let made = std::process::Command::new(installed("mariadb-install-db", "mariadb-server-core"))
        .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
        .arg(format!("--datadir={}", data.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success());
    let log = folder.path().join("log.err");
    let arguments = [
        "--no-defaults".to_owned(),
        "--user=root".into(),
        "--bind-address=127.0.0.1".into(),
        "--skip-name-resolve=0".into(),
        "--log-warnings=4".into(),
        format!("--port={}", at.port),
        format!("--datadir={}", data.display()),
        format!("--socket={}", folder.path().join("s").display()),
        format!("--log-error={}", log.display()),
    ];
    let server = Server::start("mariadbd", "mariadb-server-core", at, folder, &arguments);
    let plain = Mysql {
        at: server.at.clone(),
        user: "root".into(),
        password: None,
        database: None,
        query: mysql::QUERY.into(),
        expect: Some("1".into()),
    };
    let probe = |probe: Mysql| Probe::Mysql(probe);
    until_answered(&probe(plain.clone())).await;
    let failed = async |mysql: Mysql| failure(&probe(mysql), AMPLE).await;
    assert_eq!(failed(Mysql { user: "nobody".into(), ..plain.clone() }).await.0, ProbeFailure::Denied);
    assert_eq!(
        failed(Mysql { database: Some("none".into()), ..plain.clone() }).await.0,
        ProbeFailure::Denied
    );
    let (how, text) = failed(Mysql { expect: Some("2".into()), ..plain.clone() }).await;
    assert_eq!((how, text.as_str()), (ProbeFailure::Mismatch, "answered `1` instead of `2`"));
    let (how, text) = failed(Mysql { query: "select * from mysql.nothing".into(), ..plain.clone() }).await;
    assert!(how == ProbeFailure::Wrong && text.contains("1146"), "{how:?} {text}");
    let aborted = || {
        let log = std::fs::read_to_string(&log).unwrap();
        log.lines().filter(|line| line.contains("Aborted connection")).count()
    };
    for _ in 0..5 {
        answered(&probe(plain.clone())).await;
    }
    assert_eq!(aborted(), 0, "a probe says goodbye");

    let (how, text) = failed(Mysql { query: "select repeat('x', 100000)".into(), ..plain.clone() }).await;
    assert!(how == ProbeFailure::Wrong && !text.contains("xx"), "{how:?} {text}");
}

fn command(argv: &[&str]) -> Probe {
    Probe::Command(Command { argv: argv.iter().map(|&word| word.into()).collect() })
}

#[tokio::test]
async fn a_program_answers_by_its_exit_status() {
    answered(&command(&["true"])).await;
    let (how, text) = failure(&command(&["sh", "-c", "echo no space; echo left >&2; exit 3"]), AMPLE).await;
    assert_eq!((how, text.as_str()), (ProbeFailure::Wrong, "exit code 3: no space\\nleft"));
    let (how, text) = failure(&command(&["sh", "-c", "kill -SEGV $$"]), AMPLE).await;
    assert_eq!((how, text.as_str()), (ProbeFailure::Wrong, "ended by signal 11"));
    let (how, text) = failure(&command(&["sh", "-c", "printf '\\033[2J'; false"]), AMPLE).await;
    assert_eq!((how, text.as_str()), (ProbeFailure::Wrong, "exit code 1: \\x1b[2J"));
}

#[tokio::test]
async fn a_program_that_cannot_run_is_our_own_trouble() {
    for argv in [&["/no/such/program"][..], &["/etc/passwd"], &[], &["sh", "-c", "no-such-program"]] {
        let (how, text) = failure(&command(argv), AMPLE).await;
        assert_eq!(how, ProbeFailure::Internal, "{argv:?}: {text}");
    }
}

#[tokio::test]
async fn a_program_sees_no_shell_no_environment_and_no_input() {
    answered(&command(&[
        "sh",
        "-c",
        "test \"$(env | cut -d= -f1 | sort | tr '\\n' ' ')\" = 'LANG PATH PWD '",
    ]))
    .await;
    answered(&command(&["sh", "-c", "test -z \"$(cat)\" && test \"$(pwd)\" = /"])).await;
    answered(&command(&["test", "$(id)", "=", "$(id)"])).await;
    // No more descriptors than any child of this process has.
    let count = "ls /proc/self/fd | wc -l";
    let plain = std::process::Command::new("sh").args(["-c", count]).output().unwrap();
    let plain = String::from_utf8(plain.stdout).unwrap();
    answered(&command(&["sh", "-c", &format!("test $({count}) -le {}", plain.trim())])).await;
}

/// The processes in this process group.
fn members(group: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap();
    let stats = processes.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    let field = |stat: &str, n| stat.rsplit(") ").next().unwrap().split(' ').nth(n).map(str::to_owned);
    stats
        .filter(|stat| field(stat, 2).as_deref() == Some(group) && field(stat, 0).as_deref() != Some("Z"))
        .count()
}

async fn until_gone(group: &str) {
    for _ in 0..500 {
        if members(group) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("process group {group} lives on");
}

#[tokio::test]
async fn a_program_and_its_children_do_not_outlive_the_probe() {
    let folder = TempDir::new().unwrap();
    let note = folder.path().join("group");
    let start = |end: &str| format!("echo $$ > {}; sleep 1000 & sleep 1000 & {end}", note.display());
    let group = || std::fs::read_to_string(&note).unwrap().trim().to_owned();

    let (how, text) = failure(&command(&["sh", "-c", &start("wait")]), Duration::from_secs(2)).await;
    assert_eq!((how, text.as_str()), (ProbeFailure::NoAnswer, "did not end within 2.0s"));
    until_gone(&group()).await;

    answered(&command(&["sh", "-c", &start("exit 0")])).await; // its children hold the output open
    until_gone(&group()).await;
}

#[tokio::test]
async fn a_program_that_prints_without_end_is_ended() {
    let (how, text) = failure(&command(&["yes"]), AMPLE).await;
    assert_eq!((how, text.as_str()), (ProbeFailure::Wrong, "`yes` printed more than 1 MiB"));
    answered(&command(&["sh", "-c", "head -c 500000 /dev/zero"])).await;
}
