//! Where sshd's and the agent's files are.

use std::path::PathBuf;

/// The files of this machine.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    /// sshd's configuration.
    pub(super) config: PathBuf,
    /// What is added to it. It is read in the order of names, and what is said first holds.
    pub(super) drop_in: PathBuf,
    /// What sshd has as its host key: there is no such file. Named by its public half, `HostKey FILE.pub`, sshd
    /// complains at each connection of a private key that all can read. Not ssh_host_*: what deletes or makes
    /// those must not meet it.
    pub(super) host_key: PathBuf,
    /// The key's public half.
    pub(super) public: PathBuf,
    /// Where the agent listens.
    pub(super) socket: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Paths {
            config: "/etc/ssh/sshd_config".into(),
            drop_in: "/etc/ssh/sshd_config.d/50-devkey.conf".into(),
            host_key: "/etc/ssh/devkey_host_key".into(),
            public: "/etc/ssh/devkey_host_key.pub".into(),
            socket: "/run/devkey-sshd/agent".into(),
        }
    }
}
