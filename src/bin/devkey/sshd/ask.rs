//! What others see: the agent's keys and signatures, and the host keys that sshd shows.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use devkey::Error;
use devkey::identity::ssh::agent::{Request, Response, verify};
use devkey::identity::ssh::key as ssh;
use devkey::key::{Hash, PublicKey};

use super::daemon::{run, said};
use crate::failure::{Failure, Result};

/// How long the agent may take: somewhat longer than it waits for the key service.
const PATIENCE: Duration = Duration::from_secs(90);

/// Whether the agent has the key and signs by each algorithm that sshd would ask for.
pub(super) fn agent_signs(socket: &Path, public: &PublicKey) -> Result<()> {
    if !agent_lists(socket)?.contains(&ssh::blob(public)?) {
        return Err(Failure::new(
            "the agent does not show the key",
            format!("journalctl -u {}", super::systemd::AGENT),
        ));
    }
    let hashes: &[Option<Hash>] = match public.kind().is_rsa() {
        true => &[Some(Hash::Sha256), Some(Hash::Sha512)],
        false => &[None],
    };
    for hash in hashes {
        let data = b"devkey sshd: a test".to_vec();
        let request = Request::Sign {
            key: ssh::blob(public)?,
            data: data.clone(),
            hash: *hash,
        };
        match ask(socket, &request)? {
            Response::Signature(signature) => verify(public, &data, &signature)?,
            _ => {
                return Err(Failure::new(
                    "the agent does not sign with the key",
                    format!("journalctl -u {} says why", super::systemd::AGENT),
                ));
            }
        }
    }
    Ok(())
}

/// The keys that the agent shows.
fn agent_lists(socket: &Path) -> Result<Vec<Vec<u8>>> {
    match ask(socket, &Request::Identities)? {
        Response::Identities(keys) => Ok(keys.into_iter().map(|(blob, _)| blob).collect()),
        _ => Ok(Vec::new()),
    }
}

fn ask(socket: &Path, request: &Request) -> Result<Response> {
    let failed = |e| {
        let error = Error::io(format!("asking the agent at {}", socket.display()), e);
        Failure::new(error, format!("systemctl start {}", super::systemd::SOCKET))
    };
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    request.write(&mut stream)?;
    Ok(Response::read(&mut stream)?)
}

/// The fingerprint of the key that sshd shows at an address to a client that wants this algorithm; `None`
/// where it shows none. To show one sshd has to sign.
///
/// The client knows no host, and so turns away before it says who it is.
pub(super) fn shown(address: &(String, String), algorithm: &str) -> Result<Option<String>> {
    let (host, port) = address;
    let wanted = format!("HostKeyAlgorithms={}", signatures(algorithm));
    let mut args = vec![
        "-v",
        "-F",
        "none",
        "-p",
        port.as_str(),
        "-o",
        wanted.as_str(),
    ];
    let options = [
        "BatchMode=yes",
        "ConnectTimeout=10",
        "StrictHostKeyChecking=yes",
        "UserKnownHostsFile=/dev/null",
        "GlobalKnownHostsFile=/dev/null",
        "IdentityAgent=none",
    ];
    args.extend(options.iter().flat_map(|option| ["-o", option]));
    args.extend([host.as_str(), "true"]);
    let output = run(Path::new("ssh"), args)?;
    let fingerprint = said(&output).find_map(|line| {
        let (_, key) = line.split_once("Server host key: ")?;
        key.split_whitespace().nth(1).map(str::to_owned)
    });
    let refused = said(&output).any(|line| line.contains("Connection refused"));
    match refused {
        true => Err(Failure::new(
            format!("nobody listens at {host}, port {port}"),
            "systemctl start ssh",
        )),
        false => Ok(fingerprint),
    }
}

/// The algorithms by which a type of key signs.
pub(super) fn signatures(key_type: &str) -> &str {
    match key_type {
        "ssh-rsa" => "rsa-sha2-512,rsa-sha2-256",
        other => other,
    }
}
