//! Programs with a deadline: a client that hangs is a test that fails.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// How long a program may take unless the test says otherwise.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(20);

/// How many lines of each stream a message shows.
const LINES: usize = 40;

/// A program about to be run.
pub(crate) struct Run {
    command: Command,
    input: Vec<u8>,
    deadline: Duration,
}

/// What a program left.
pub(crate) struct Output {
    /// Its command line, for messages.
    pub(crate) what: String,
    /// Whether and how it ended.
    pub(crate) status: ExitStatus,
    /// Its standard output.
    pub(crate) stdout: Vec<u8>,
    /// Its standard error.
    pub(crate) stderr: Vec<u8>,
}

/// A program that runs until it is dropped.
pub(crate) struct Server {
    child: Child,
    what: String,
    log: PathBuf,
}

impl Run {
    /// `program` with a bare environment: the system's PATH and the C locale.
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("LC_ALL", "C")
            .process_group(0);
        Run {
            command,
            input: Vec::new(),
            deadline: DEADLINE,
        }
    }

    /// One more argument.
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// More arguments.
    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// The words of `line`, split at white space, as arguments.
    pub(crate) fn words(self, line: &str) -> Self {
        self.args(line.split_whitespace())
    }

    /// One variable of the environment.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// The directory to run in.
    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// What the program reads from its standard input.
    pub(crate) fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// Another deadline, in seconds.
    pub(crate) fn seconds(mut self, seconds: u64) -> Self {
        self.deadline = Duration::from_secs(seconds);
        self
    }

    /// Runs the program to its end, whatever that is.
    pub(crate) fn output(mut self) -> Output {
        let what = describe(&self.command);
        let [mut stdout, mut stderr] = [scratch(), scratch()];
        let mut stdin = scratch();
        stdin.write_all(&self.input).unwrap();
        stdin.rewind().unwrap();
        self.command
            .stdin(stdin)
            .stdout(stdout.try_clone().unwrap())
            .stderr(stderr.try_clone().unwrap());
        let mut child = self
            .command
            .spawn()
            .unwrap_or_else(|e| panic!("{what}: {e}"));
        let status = wait(&mut child, self.deadline);
        let output = Output {
            status: status.unwrap_or_default(),
            stdout: contents(&mut stdout),
            stderr: contents(&mut stderr),
            what,
        };
        if status.is_none() {
            stop(&mut child);
            panic!("no end after {:?}: {output}", self.deadline);
        }
        output
    }

    /// Runs the program, which must succeed.
    pub(crate) fn ok(self) -> Output {
        let output = self.output();
        assert!(output.status.success(), "{output}");
        output
    }

    /// Runs the program, which must fail by itself: no signal, no hang.
    pub(crate) fn fails(self) -> Output {
        let output = self.output();
        assert!(
            matches!(output.status.code(), Some(1..)),
            "did not fail: {output}"
        );
        output
    }

    /// Starts the program as a server; what it says goes to `log`.
    pub(crate) fn serve(mut self, log: &Path) -> Server {
        let what = describe(&self.command);
        let file = File::create(log).unwrap();
        self.command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file);
        let child = self
            .command
            .spawn()
            .unwrap_or_else(|e| panic!("{what}: {e}"));
        Server {
            child,
            what,
            log: log.to_owned(),
        }
    }

    /// As [`Run::serve`], returning once the server listens on `port` of the loopback address.
    pub(crate) fn serve_on(self, port: u16, log: &Path) -> Server {
        let mut server = self.serve(log);
        let start = Instant::now();
        while !listens(port) {
            assert!(server.runs(), "ended: {}\n{}", server.what, server.log());
            assert!(
                start.elapsed() < START,
                "silent: {}\n{}",
                server.what,
                server.log()
            );
            sleep(Duration::from_millis(10));
        }
        server
    }
}

impl Output {
    /// Standard output as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard output, then standard error.
    pub(crate) fn all(&self) -> String {
        self.text() + &String::from_utf8_lossy(&self.stderr)
    }

    /// The output says each of `wanted`.
    pub(crate) fn says(&self, wanted: &[&str]) -> &Self {
        let all = self.all();
        for word in wanted {
            assert!(all.contains(word), "does not say {word:?}: {self}");
        }
        self
    }

    /// The output says none of `unwanted`.
    pub(crate) fn says_not(&self, unwanted: &[&str]) -> &Self {
        let all = self.all();
        for word in unwanted {
            assert!(!all.contains(word), "says {word:?}: {self}");
        }
        self
    }
}

/// The command line, how it ended, and the last lines that it said.
impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}\n{}", self.what, self.status)?;
        for said in [&self.stdout, &self.stderr] {
            let text = String::from_utf8_lossy(said);
            let lines: Vec<_> = text.lines().collect();
            writeln!(
                f,
                "{}",
                lines[lines.len().saturating_sub(LINES)..].join("\n")
            )?;
        }
        Ok(())
    }
}

impl Server {
    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What it has said so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    /// Waits until it has said `text`.
    pub(crate) fn wait_for(&self, text: &str) {
        let start = Instant::now();
        while !self.log().contains(text) {
            assert!(
                start.elapsed() < START,
                "{}: no {text:?}\n{}",
                self.what,
                self.log()
            );
            sleep(Duration::from_millis(10));
        }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        stop(&mut self.child);
    }
}

/// The first of `count` ports in a row that nobody listens on. Below the range that the kernel
/// takes for outgoing connections, so that none is taken in between.
pub(crate) fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 10_000 + (std::process::id() % 1_000) as u16 * 20;
    for _ in 0..1_000 {
        let first = base + NEXT.fetch_add(count, Ordering::Relaxed) % 2_000;
        if (first..first + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return first;
        }
    }
    panic!("no free ports above {base}");
}

/// Whether somebody listens, without connecting: some servers count connections.
fn listens(port: u16) -> bool {
    let wanted = format!(":{port:04X} ");
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    if table.is_empty() {
        return TcpStream::connect(("127.0.0.1", port)).is_ok();
    }
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().unwrap_or_default();
        format!("{local} ").contains(&wanted) && fields.nth(1) == Some("0A")
    })
}

fn wait(child: &mut Child, deadline: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    while start.elapsed() < deadline {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        sleep(Duration::from_millis(2));
    }
    None
}

/// Ends a child and all that it started: politely, then not.
fn stop(child: &mut Child) {
    let group = Pid::from_child(child);
    let _ = kill_process_group(group, Signal::TERM);
    if wait(child, Duration::from_secs(3)).is_none() {
        let _ = kill_process_group(group, Signal::KILL);
        let _ = child.wait();
    }
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    words.join(" ")
}

fn scratch() -> File {
    tempfile::tempfile().unwrap()
}

fn contents(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}
