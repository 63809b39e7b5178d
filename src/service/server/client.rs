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
    /// Its program: the path where we may know it, else the name that the process gives itself, in
    /// brackets. Escaped as the log has it, which has it on each line.
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
        let [user, group] = [credentials.uid.as_raw(), credentials.gid.as_raw()];
        let mut groups = groups(&status, [user, group]);
        groups.push(group);
        // In brackets, as ps(1) has it: any process may call itself anything, and no path is like that.
        let name = || {
            let name = fs::read_to_string(about("comm")).unwrap_or_default();
            format!("({})", name.trim_end())
        };
        let path = fs::read_link(about("exe"));
        let program = path.map_or_else(|_| name(), |path| path.display().to_string());
        Client {
            pid,
            ids: Ids { user, groups },
            program: program.escape_debug().to_string(),
        }
    }

    /// Whether it has every right: root, and the user that the service runs as.
    pub fn is_master(&self) -> bool {
        self.ids.user == 0 || self.ids.user == geteuid().as_raw()
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (uid, pid, exe) = (self.ids.user, self.pid.as_raw_nonzero(), &self.program);
        write!(f, "uid={uid} pid={pid} exe=\"{exe}\"")
    }
}

/// The supplementary groups of a process (proc(5), `/proc/pid/status`), if it still has the effective
/// user and group that it connected with. One that became another user since, by a program that has
/// such a right, brings that user's groups to nothing that it asked for before.
fn groups(status: &str, [user, group]: [u32; 2]) -> Vec<u32> {
    let numbers = |field: &str| -> Vec<u32> {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let numbers = line.unwrap_or_default().split_whitespace();
        numbers.filter_map(|number| number.parse().ok()).collect()
    };
    // Real, effective, saved, file system.
    let is_still = |field, id| numbers(field).get(1) == Some(&id);
    match is_still("Uid:", user) && is_still("Gid:", group) {
        true => numbers("Groups:"),
        false => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tGroups: 7\nUid:\t9\t8\t9\t9\nGid:\t5\t4\t5\t5\n\
                          Groups:\t33 4000000000 \nNStgid:\t1\n";

    #[test]
    fn groups_are_read_from_their_own_line_alone() {
        assert_eq!(groups(STATUS, [8, 4]), [33, 4_000_000_000]);
        assert_eq!(groups("Groups:\t\n", [8, 4]), [0_u32; 0]);
        assert_eq!(groups("", [8, 4]), [0_u32; 0]);
    }

    /// Seen to fail with `||` for `&&`, and with the first of the four numbers compared.
    #[test]
    fn the_groups_of_another_user_are_not_the_clients() {
        for ids in [[9, 4], [8, 5], [0, 0], [9, 5]] {
            assert_eq!(groups(STATUS, ids), [0_u32; 0], "{ids:?}");
        }
    }
}
