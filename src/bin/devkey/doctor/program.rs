//! Other programs, asked within a deadline: they have no terminal and nobody to ask for a PIN.

use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

/// How long a program may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of it.
#[derive(Debug)]
pub(super) enum Asked {
    /// It ended.
    Said(Said),
    /// It is not installed.
    Missing,
    /// It did not end in time, or could not be started.
    Hangs(String),
}

/// What a program said.
#[derive(Debug)]
pub(super) struct Said {
    /// Its exit code; `None` where a signal ended it.
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Said {
    /// The last line that it said of an error.
    pub(super) fn last(&self) -> &str {
        self.stderr.lines().last().unwrap_or("it said nothing")
    }
}

/// Runs a program, which is ended with all that it started where it takes too long.
pub(super) fn ask(program: &str, args: &[&str]) -> Asked {
    let mut command = Command::new(program);
    command
        .args(args)
        .env("LC_ALL", "C")
        // ssh-keygen and ssh-add ask this in place of a terminal, and get nothing.
        .env("SSH_ASKPASS", "/bin/false")
        .env("SSH_ASKPASS_REQUIRE", "force")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let child = match command.spawn() {
        Ok(child) => child,
        Err(e) if e.kind() == ErrorKind::NotFound => return Asked::Missing,
        Err(e) => return Asked::Hangs(format!("{program} cannot be started: {e}")),
    };
    let group = Pid::from_child(&child);
    let (send, receive) = channel();
    thread::spawn(move || send.send(child.wait_with_output()));
    match receive.recv_timeout(PATIENCE) {
        Ok(Ok(output)) => Asked::Said(said(&output)),
        Ok(Err(e)) => Asked::Hangs(format!("{program}: {e}")),
        Err(_) => {
            // Not waited for yet, so the number is still its own.
            let _ = kill_process_group(group, Signal::KILL);
            Asked::Hangs(format!(
                "{program} did not end within {} s",
                PATIENCE.as_secs()
            ))
        }
    }
}

fn said(output: &Output) -> Said {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said {
        code: output.status.code(),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}
