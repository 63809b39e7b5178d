//! A TPM for a test: a swtpm of its own on free ports, and a proxy before it that counts commands
//! and can lose, delay or replace them.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "not every test needs all of it; what cannot go on has failed"
)]

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Two free ports in a row on the loopback, never given twice in this process.
pub(crate) fn free_ports() -> u16 {
    // Below the range from which the kernel takes ports for clients: a client that connects to a
    // port of that range where nobody listens may get through to itself.
    // And above those that `free_ports` in run.rs gives, of which a test program may have both.
    static NEXT: AtomicU16 = AtomicU16::new(2_000);
    let base = (std::process::id() % 1000) as u16 * 20;
    loop {
        let port = 10_000 + (base + NEXT.fetch_add(2, Ordering::Relaxed)) % 20_000;
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(port) && free(port + 1) {
            return port;
        }
    }
}

/// Whether somebody listens, without connecting.
fn listens(port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let wanted = format!(":{port:04X}");
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(fields.as_slice(), [_, local, _, "0A", ..] if local.ends_with(&wanted))
    })
}

/// A running swtpm. Killed when dropped; its state goes with it.
pub(crate) struct Swtpm {
    state: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

impl Swtpm {
    /// A new TPM, started.
    pub(crate) fn start() -> Self {
        Swtpm::of(tempfile::tempdir().unwrap())
    }

    /// A TPM whose state somebody has made, started.
    pub(crate) fn of(state: tempfile::TempDir) -> Self {
        let mut swtpm = Swtpm {
            state,
            port: free_ports(),
            child: None,
        };
        swtpm.run();
        swtpm
    }

    /// Another TPM in its place: same ports, fresh state.
    pub(crate) fn replace(&mut self) {
        self.kill();
        self.state = tempfile::tempdir().unwrap();
        self.run();
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again after [`Swtpm::kill`], on the same ports.
    pub(crate) fn run(&mut self) {
        self.run_with("not-need-init,startup-clear");
    }

    /// The same, with other flags.
    pub(crate) fn run_with(&mut self, flags: &str) {
        assert!(self.child.is_none());
        let dir = self.state.path().display();
        let (port, control) = (self.port, self.port + 1);
        let child = clean("swtpm")
            .args(["socket", "--tpm2", "--flags", flags])
            .args(["--tpmstate", &format!("dir={dir}")])
            .args([
                "--server",
                &format!("type=tcp,bindaddr=127.0.0.1,port={port}"),
            ])
            .args([
                "--ctrl",
                &format!("type=tcp,bindaddr=127.0.0.1,port={control}"),
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let child = self.child.insert(child);
        let began = Instant::now();
        // It listens on the one after the other, and takes a connection to the first for its only client.
        while TcpStream::connect(("127.0.0.1", control)).is_err() || !listens(port) {
            // Another program may have taken the port meanwhile.
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "swtpm on port {port}: {ended:?}");
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "swtpm did not start"
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The TCTI string.
    pub(crate) fn tcti(&self) -> String {
        tcti(self.port)
    }

    /// Runs a tool on this TPM and gives what it printed.
    pub(crate) fn tool(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.try_tool(program, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The same, whether it succeeds or not.
    pub(crate) fn try_tool(&self, program: &str, arguments: &[&str]) -> Output {
        clean(program)
            .args(arguments)
            .current_dir(self.dir())
            .env("TPM2TOOLS_TCTI", self.tcti())
            .env("TPM2OPENSSL_TCTI", self.tcti())
            .output()
            .unwrap()
    }

    /// Puts a storage key at 0x81000001, as provisioning does.
    pub(crate) fn provision(&self) {
        let attributes =
            "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
        let primary = [
            "-C", "o", "-G", "ecc", "-a", attributes, "-c", "srk.ctx", "-Q",
        ];
        self.tool("tpm2_createprimary", &primary);
        let keep = ["-C", "o", "-c", "srk.ctx", "0x81000001", "-Q"];
        self.tool("tpm2_evictcontrol", &keep);
        self.tool("tpm2_flushcontext", &["-t"]);
    }

    /// A power cut, and the next start.
    pub(crate) fn power_cut(&mut self) {
        self.kill();
        self.run();
    }

    /// As a machine sleeps and wakes: TPM2_Shutdown(STATE), power off and on, TPM2_Startup(STATE).
    /// Keys and sessions in its memory are gone, and no connection breaks.
    pub(crate) fn suspend(&self) {
        let state = |code: u8| [0x80, 1, 0, 0, 0, 12, 0, 0, 1, code, 0, 1];
        assert_eq!(self.raw(&state(0x45))[6..], [0; 4]);
        let control = format!("127.0.0.1:{}", self.port + 1);
        self.tool("swtpm_ioctl", &["--tcp", &control, "-i"]);
        assert_eq!(self.raw(&state(0x44))[6..], [0; 4]);
    }

    /// Sends a command as it stands and gives what the TPM answers.
    pub(crate) fn raw(&self, command: &[u8]) -> Vec<u8> {
        let mut tpm = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        tpm.write_all(command).unwrap();
        message(&mut tpm).unwrap()
    }

    /// Flushes sessions (`-l`) or objects (`-t`). The tool lists the handles on one connection and
    /// flushes them on others: that devkey flushed one in between, or put another thing in its place,
    /// is as good.
    pub(crate) fn flush_what_is_left(&self, which: &str) {
        let flushed = self.try_tool("tpm2_flushcontext", &[which]);
        let said = String::from_utf8_lossy(&flushed.stderr);
        let gone = ["that is not loaded", "handle is not correct"];
        let fine = flushed.status.success() || gone.iter().any(|gone| said.contains(gone));
        assert!(fine, "{said}");
    }

    /// A directory for the test's files.
    pub(crate) fn dir(&self) -> &Path {
        self.state.path()
    }

    /// A file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// Asserts that soon nothing is left in the TPM's memory.
    pub(crate) fn assert_empty(&self) {
        let began = Instant::now();
        loop {
            let left = self.tool("tpm2_getcap", &["handles-transient"])
                + &self.tool("tpm2_getcap", &["handles-loaded-session"]);
            if left.is_empty() {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(5), "left: {left}");
            // Not too often: swtpm's backlog is 1, and who finds it full tries again after 1 s.
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A command that inherits nothing but the standard streams. libtss2 3.2.1 opens its sockets
/// without SOCK_CLOEXEC; a child started while the worker speaks to swtpm would keep that
/// connection open, and swtpm serves one at a time. Seen failing, by hanging, with `Command::new`.
pub(crate) fn clean(program: impl AsRef<OsStr>) -> Command {
    const CLOSE: &str = r#"for fd in /proc/self/fd/*; do
        n=${fd##*/}; if ((n > 2)); then eval "exec $n>&-"; fi
    done; exec "$0" "$@""#;
    let mut command = Command::new("bash");
    command.args(["-c", CLOSE]).arg(program);
    command
}

fn tcti(port: u16) -> String {
    format!("swtpm:host=127.0.0.1,port={port}")
}

/// What the proxy does with one command.
pub(crate) enum Action {
    /// Hands it on, and the answer back.
    Pass,
    /// The same, later.
    Delay(Duration),
    /// Closes the connection; the TPM never sees the command.
    LoseCommand,
    /// The TPM runs it, the answer is cut off after so many bytes.
    CutReply(usize),
    /// The TPM never sees it; the answer is this.
    Answer(Vec<u8>),
    /// The TPM runs it; the answer is changed, and the connection ends.
    Change(fn(&mut Vec<u8>)),
    /// The TPM runs it; the answer is changed, and it goes on.
    Edit(fn(&mut Vec<u8>)),
    /// No answer, and the connection stays open.
    Silence,
}

type Script = Box<dyn FnMut(u32) -> Action + Send>;

/// A counting proxy before a swtpm.
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    commands: Mutex<Vec<u32>>,
    traffic: Mutex<Vec<u8>>,
    script: Mutex<Script>,
    ended: AtomicBool,
}

impl Proxy {
    /// A proxy that passes everything.
    pub(crate) fn before(swtpm: &Swtpm) -> Self {
        let port = free_ports();
        let shared = Arc::new(Shared {
            commands: Mutex::default(),
            traffic: Mutex::default(),
            script: Mutex::new(Box::new(|_| Action::Pass)),
            ended: AtomicBool::new(false),
        });
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let control = TcpListener::bind(("127.0.0.1", port + 1)).unwrap();
        let to = swtpm.port;
        accept(listener, shared.clone(), move |client, shared| {
            commands(client, to, shared)
        });
        accept(control, shared.clone(), move |client, _| {
            let server = TcpStream::connect(("127.0.0.1", to + 1))?;
            let (mut from, mut back) = (client.try_clone()?, server.try_clone()?);
            let (mut up, mut down) = (server, client);
            thread::spawn(move || {
                let _ = io::copy(&mut from, &mut up);
                up.shutdown(Shutdown::Write)
            });
            io::copy(&mut back, &mut down)?;
            Ok(())
        });
        Proxy { port, shared }
    }

    /// The TCTI string.
    pub(crate) fn tcti(&self) -> String {
        tcti(self.port)
    }

    /// From now on, asks `script` what to do with each command code.
    pub(crate) fn script(&self, script: impl FnMut(u32) -> Action + Send + 'static) {
        *self.shared.script.lock().unwrap() = Box::new(script);
    }

    /// The command codes since the last call.
    pub(crate) fn take(&self) -> Vec<u32> {
        std::mem::take(&mut self.shared.commands.lock().unwrap())
    }

    /// All bytes of commands and answers since the last call.
    pub(crate) fn overheard(&self) -> Vec<u8> {
        std::mem::take(&mut self.shared.traffic.lock().unwrap())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        for port in [self.port, self.port + 1] {
            let _ = TcpStream::connect(("127.0.0.1", port));
        }
    }
}

fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    serve: impl Fn(TcpStream, &Shared) -> io::Result<()> + Send + Sync + 'static,
) {
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            if shared.ended.load(Ordering::Acquire) {
                return;
            }
            let (serve, shared) = (serve.clone(), shared.clone());
            thread::spawn(move || serve(client, &shared));
        }
    });
}

fn commands(mut client: TcpStream, port: u16, shared: &Shared) -> io::Result<()> {
    let mut server = None;
    loop {
        let command = message(&mut client)?;
        let code = u32::from_be_bytes(command[6..10].try_into().unwrap());
        shared.commands.lock().unwrap().push(code);
        let action = (shared.script.lock().unwrap())(code);
        let mut ask = || -> io::Result<Vec<u8>> {
            let server = match &mut server {
                Some(server) => server,
                none => none.insert(TcpStream::connect(("127.0.0.1", port))?),
            };
            server.write_all(&command)?;
            let reply = message(server)?;
            shared.traffic.lock().unwrap().extend(&command);
            shared.traffic.lock().unwrap().extend(&reply);
            Ok(reply)
        };
        match action {
            Action::Pass => client.write_all(&ask()?)?,
            Action::Delay(time) => {
                let reply = ask()?;
                thread::sleep(time);
                client.write_all(&reply)?;
            }
            Action::LoseCommand => return Ok(()),
            Action::CutReply(len) => {
                let reply = ask()?;
                return client.write_all(&reply[..len.min(reply.len())]);
            }
            Action::Answer(reply) => client.write_all(&reply)?,
            Action::Change(change) => {
                let mut reply = ask()?;
                change(&mut reply);
                return client.write_all(&reply);
            }
            Action::Edit(change) => {
                let mut reply = ask()?;
                change(&mut reply);
                client.write_all(&reply)?;
            }
            Action::Silence => {
                // Until the client or the proxy goes.
                client.set_read_timeout(Some(Duration::from_millis(50)))?;
                let silent = |tried: io::Result<usize>| {
                    tried.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
                };
                while silent(client.read(&mut [0])) && !shared.ended.load(Ordering::Acquire) {
                    thread::yield_now();
                }
                return Ok(());
            }
        }
    }
}

/// A command or an answer: tag, length of all, code, the rest (part 1 §18).
fn message(from: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 10];
    from.read_exact(&mut bytes)?;
    let len = u32::from_be_bytes(bytes[2..6].try_into().unwrap()) as usize;
    bytes.resize(len.clamp(10, 8192), 0);
    from.read_exact(&mut bytes[10..])?;
    Ok(bytes)
}

/// An answer that is only this code.
pub(crate) fn answer(code: u32) -> Vec<u8> {
    let mut bytes = vec![0x80, 0x01, 0, 0, 0, 10];
    bytes.extend_from_slice(&code.to_be_bytes());
    bytes
}
