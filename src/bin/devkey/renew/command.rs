//! The command that reaches the CA: bounded in time and in what it prints.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use devkey::Error;
use rustix::process::{Pid, Signal, kill_process_group};

use super::COMMAND;
use super::request::Request;
use crate::cert::MAX_INPUT;
use crate::failure::{Failure, Result};

/// How a request is answered.
pub(super) struct Enrolment {
    /// For `/bin/sh -c`.
    pub(super) command: String,
    pub(super) timeout: Duration,
}

impl Enrolment {
    /// Runs the command with a request; gives what it printed.
    pub(super) fn answer(&self, request: &Request) -> Result<Vec<u8>> {
        let input = File::open(&request.input)
            .map_err(|e| Error::io(format!("opening {}", request.input.display()), e))?;
        let mut shell = shell(&self.command);
        let environment = request
            .environment
            .iter()
            .map(|(name, value)| (*name, value));
        shell.envs(environment).stdin(input).stdout(Stdio::piped());
        let mut child = start(&mut shell)?;
        let printed = collect(&mut child);
        let answer = self.wait(child, printed.as_ref())?;
        match answer.len() > MAX_INPUT {
            false => Ok(answer),
            true => Err(Failure::new(
                format!("the command printed more than {MAX_INPUT} bytes"),
                COMMAND,
            )),
        }
    }

    /// Runs what is to follow a renewal.
    pub(super) fn follow_up(&self, line: &str) -> Result<()> {
        let mut shell = shell(line);
        // What it says is for people, and not what this command answers.
        shell.stdin(Stdio::null()).stdout(std::io::stderr());
        let done = start(&mut shell).and_then(|child| self.wait(child, None));
        done.map(|_| ()).map_err(|failure| {
            let what = format!("renewed, but then: {}", failure.what);
            Failure::new(what, "do by hand what `after` does")
        })
    }

    /// Waits for the end of a command, and of what it printed; ends it, with all that it started, where
    /// it takes too long.
    fn wait(&self, child: Child, printed: Option<&Receiver<Vec<u8>>>) -> Result<Vec<u8>> {
        let started = Started {
            child,
            end: Instant::now() + self.timeout,
        };
        let (status, answer) = started.finish(printed).ok_or_else(|| {
            let what = Error::Timeout {
                what: "the command".to_owned(),
                seconds: self.timeout.as_secs(),
            };
            Failure::new(what, "give it more time with --timeout, or mend it")
        })?;
        match status.success() {
            true => Ok(answer),
            false => Err(Failure::new(
                format!("the command failed: {status}"),
                COMMAND,
            )),
        }
    }
}

/// A command that runs, in a process group of its own.
struct Started {
    child: Child,
    end: Instant,
}

impl Started {
    fn finish(mut self, printed: Option<&Receiver<Vec<u8>>>) -> Option<(ExitStatus, Vec<u8>)> {
        let answer = match printed {
            Some(printed) => printed.recv_timeout(self.left()).ok()?,
            None => Vec::new(),
        };
        // Who printed too much would be waited for in vain.
        if answer.len() > MAX_INPUT {
            self.kill();
            return Some((ExitStatus::default(), answer));
        }
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some((status, answer)),
                Ok(None) if !self.left().is_zero() => thread::sleep(Duration::from_millis(10)),
                _ => return None,
            }
        }
    }

    fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    fn kill(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
        }
    }
}

fn shell(line: &str) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", line]).process_group(0);
    shell
}

fn start(shell: &mut Command) -> Result<Child> {
    let child = shell.spawn();
    Ok(child.map_err(|e| Error::io("starting /bin/sh", e))?)
}

/// Reads what a command prints, up to a little more than may be.
fn collect(child: &mut Child) -> Option<Receiver<Vec<u8>>> {
    let from = child.stdout.take()?;
    let (send, receive) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What cannot be read any more is not a certificate either.
        let _ = from.take(MAX_INPUT as u64 + 1).read_to_end(&mut bytes);
        let _ = send.send(bytes);
    });
    Some(receive)
}
