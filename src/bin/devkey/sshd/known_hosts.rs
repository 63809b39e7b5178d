//! The key as clients are told of it.

use std::path::Path;

use base16ct::lower::encode_string;
use devkey::identity::ssh::key as ssh;
use devkey::key::{Hash, PublicKey};

use super::daemon::run;
use crate::failure::Result;

/// The key's line, as OpenSSH has it in a file of its own.
pub(super) fn line(public: &PublicKey, comment: &str) -> Result<String> {
    Ok(ssh::line(public, comment)?)
}

/// A file for known_hosts, with the records for DNS in its comments.
pub(super) fn text(
    public: &PublicKey,
    label: &str,
    token: &str,
    names: &[String],
    port: &str,
) -> Result<String> {
    let fingerprint = ssh::fingerprint(public)?;
    let key = line(public, "")?;
    let mut text = format!("# {label} on token {token}, {fingerprint}, for known_hosts:\n");
    let hosts: Vec<String> = names.iter().map(|name| host(name, port)).collect();
    text += &format!("{} {key}\n", hosts.join(","));
    text += "# for DNS, where that is signed (SSHFP, RFC 4255):\n";
    for name in names {
        text += &format!("# {name}. IN SSHFP {}\n", sshfp(public)?);
    }
    Ok(text)
}

/// The names that this machine goes by.
pub(super) fn names() -> Vec<String> {
    let uname = rustix::system::uname();
    let short = uname.nodename().to_string_lossy().into_owned();
    let whole = run(Path::new("hostname"), ["--fqdn"]).ok();
    let whole = whole.filter(|output| output.status.success());
    let whole = whole.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let mut names = vec![short];
    names.extend(whole.filter(|name| !name.is_empty() && *name != "localhost"));
    names.dedup();
    names
}

/// As known_hosts names a host.
fn host(name: &str, port: &str) -> String {
    match port {
        "22" => name.to_owned(),
        port => format!("[{name}]:{port}"),
    }
}

/// Algorithm and SHA-256: RFC 4255, RFC 6594, RFC 7479.
fn sshfp(public: &PublicKey) -> Result<String> {
    let kind = public.kind();
    let algorithm = match kind {
        _ if kind.is_rsa() => 1,
        _ if kind.is_ec() => 3,
        _ => 4,
    };
    let digest = Hash::Sha256.digest(&ssh::blob(public)?);
    Ok(format!("{algorithm} 2 {}", encode_string(&digest)))
}
