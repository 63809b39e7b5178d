//! The key's certificate, where its token has one.

use std::fs;

use crate::common::sshd::make_key;
use crate::common::{Backend, Device};
use crate::machine::Machine;

/// Who knows the CA alone gets in, and after a renewal too.
///
/// Seen to fail with certificates of users taken, and without HostCertificate in the drop-in.
#[test]
fn the_certificate_of_the_token_is_shown() {
    let mut machine = Machine::new(Backend::File);
    machine.start_sshd();
    let key = machine.device().key("ec-p384", "ssh-host");
    make_key(machine.device(), &machine.path("ca"));
    install(&machine, &key.ssh, &[], "user");
    install(&machine, &key.ssh, &["-h"], "host");
    machine.enable().ok();
    machine.finish();
    let ca = fs::read_to_string(machine.path("ca.pub")).unwrap();
    let known = machine.path("known-ca");
    fs::write(&known, format!("@cert-authority * {ca}")).unwrap();
    machine.welcomes(&known, &[], "ecdsa-sha2-nistp384-cert-v01@openssh.com");
    let status = machine.command("status").arg("--json").ok();
    status.says(&["-cert.pub\"", "\"problems\": []"]);
}

fn install(machine: &Machine, public: &std::path::Path, options: &[&str], id: &str) {
    let file = machine.path("certify.pub");
    fs::copy(public, &file).unwrap();
    let sign = machine
        .device()
        .run("ssh-keygen")
        .arg("-s")
        .arg(machine.path("ca"));
    let sign = sign.args(options).args(["-I", id, "-q"]);
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let names = format!("[{name}]:{},{name},root", machine.port);
    sign.args(["-n", &names, "-V", "-5m:+1d"]).arg(&file).ok();
    let put = machine.device().devkey().words("cert install --token");
    let put = put
        .args([Device::TOKEN, "--ssh-ca"])
        .arg(machine.path("ca.pub"));
    put.arg(machine.path("certify-cert.pub")).ok();
}
