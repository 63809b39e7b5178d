//! Who asks: the process at the other end, by what the kernel says of it.

use std::fmt;
use std::fs;

use rustix::net::UCred;
use rustix::process::{Pid, geteuid};

use super::super::rights::Ids;

/// The client of a service that listens.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its process.
    pub pid: Pid,
    /// Its user and groups, as they were when it connected and when it first named a token.
    pub ids: Ids,
    /// Its program: the path where we may know it, else the name that the process gives itself.
    pub program: String,
}

impl Client {
    /// What /proc says of a process. The caller makes sure that it is still the same one after this.
    ///
    /// The kernel tells who connected by user and first group; the other groups are in
    /// `/proc/PID/status` alone, up to Linux 6.1 and rustix 1.1 (SO_PEERGROUPS takes a pointer).
    pub(super) fn of(credentials: &UCred) -> Self {
        let pid = credentials.pid;
        let about = |file: &str| format!("/proc/{}/{file}", pid.as_raw_nonzero());
        let status = fs::read_to_string(about("status")).unwrap_or_default();
        let mut groups = groups(&status);
        groups.push(credentials.gid.as_raw());
        let name = || {
            let name = fs::read_to_string(about("comm")).unwrap_or_default();
            name.trim_end().to_owned()
        };
        let path = fs::read_link(about("exe"));
        Client {
            pid,
            ids: Ids {
                user: credentials.uid.as_raw(),
                groups,
            },
            program: path.map_or_else(|_| name(), |path| path.display().to_string()),
        }
    }

    /// Whether it has every right: root, and the user that the service runs as.
    pub fn is_master(&self) -> bool {
        self.ids.user == 0 || self.ids.user == geteuid().as_raw()
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (uid, pid, exe) = (
            self.ids.user,
            self.pid.as_raw_nonzero(),
            self.program.escape_debug(),
        );
        write!(f, "uid={uid} pid={pid} exe=\"{exe}\"")
    }
}

/// The supplementary groups of a process (proc(5), `/proc/pid/status`).
fn groups(status: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    let numbers = line.unwrap_or_default().split_whitespace();
    numbers.filter_map(|group| group.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_read_from_their_own_line_alone() {
        let status = "Name:\tGroups: 7\nGid:\t5\t5\t5\t5\nGroups:\t33 4000000000 \nNStgid:\t1\n";
        assert_eq!(groups(status), [33, 4_000_000_000]);
        assert_eq!(groups("Groups:\t\n"), [0_u32; 0]);
        assert_eq!(groups(""), [0_u32; 0]);
    }
}
