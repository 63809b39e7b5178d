//! What pages name besides the command line: variables, files, other pages.
//!
//! A page has those whose sign stands in it, and the page of the command itself has all of them.

/// A variable, a file, a page: its sign, its name, what it is.
pub(super) type Place = (&'static str, &'static str, &'static str);

/// On every page.
const EVERYWHERE: &str = "";
/// On the page of the command itself alone: no text has it.
const NOWHERE_ELSE: &str = "\0";

/// Variables of the environment.
pub(super) const VARIABLES: &[Place] = &[
    (
        EVERYWHERE,
        "DEVKEY_CONFIG",
        "The one configuration to read, in place of the system's and the user's.",
    ),
    (
        EVERYWHERE,
        "DEVKEY_LOG",
        "What to say on standard error besides errors: `error`, `warn`, `info`, `debug` or `trace`.",
    ),
    (
        "DEVKEY_CA",
        "DEVKEY_CA",
        "The directory of the CA, where `--dir` names none.",
    ),
    (
        "--pin-credential",
        "CREDENTIALS_DIRECTORY",
        "Where systemd puts a service's credentials; `devkey.pin` there is the PIN where nothing else is named.",
    ),
    ("ssh-agent", "SSH_AUTH_SOCK", "The socket of ssh-agent."),
    (
        NOWHERE_ELSE,
        "XDG_CONFIG_HOME, XDG_DATA_HOME",
        "Where the user's configuration and store are, by default `~/.config` and `~/.local/share`.",
    ),
];

/// Files.
pub(super) const FILES: &[Place] = &[
    (
        EVERYWHERE,
        "/etc/devkey/devkey.toml",
        "The system's configuration, devkey.toml(5).",
    ),
    (EVERYWHERE, "~/.config/devkey/devkey.toml", "The user's."),
    (
        EVERYWHERE,
        "/var/lib/devkey",
        "The system's store: a directory for each token, whose owner is devkeyd(8).",
    ),
    (EVERYWHERE, "~/.local/share/devkey", "The user's store."),
    (
        "DEVKEY_CA",
        "DIR/ca.toml",
        "Profiles, lifetimes and policies of the CA in DIR, to be edited.",
    ),
    (
        "DEVKEY_CA",
        "DIR/ca.pem",
        "Its certificate, for the devices.",
    ),
];

/// Pages of the manual besides those of the command.
pub(super) const PAGES: &[Place] = &[
    (EVERYWHERE, "devkey.toml", "5"),
    ("agent", "devkey-pkcs11", "7"),
    ("PKCS#11", "devkey-pkcs11", "7"),
    ("--system", "devkeyd", "8"),
    ("--tpm", "devkeyd", "8"),
    ("openssl ", "openssl", "1"),
    ("ssh-agent", "ssh-add", "1"),
    ("ssh-agent", "ssh-agent", "1"),
    ("sshd", "sshd_config", "5"),
    ("known_hosts", "sshd", "8"),
    ("PUF", "devkey-puf", "1"),
];

/// Those of a page: each once, in their order.
pub(super) fn of(places: &[Place], page: &str, all: bool) -> Vec<Place> {
    let mut found: Vec<Place> = Vec::new();
    for place in places {
        let known = found.iter().any(|one| one.1 == place.1);
        if !known && (all || page.contains(place.0)) {
            found.push(*place);
        }
    }
    found
}
