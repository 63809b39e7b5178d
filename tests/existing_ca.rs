//! docs/existing-cas.md, as it stands: each command runs, with openssl's CA, its CMP server, and pebble.
//!
//! Needs openssl with libp11's engine, pebble, certbot, nginx, curl, strongSwan's pki, fcgiwrap.

#![cfg(test)]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use base64ct::{Base64, Encoding};
use common::tls::{Ca, Engine};
use common::{Backend, Device, Run, Server, free_ports, guide, module};

/// The page, by its sections.
const PAGE: &str = include_str!("../docs/existing-cas.md");

on_each_back_end!(
    openssl_ca_signs_a_request,
    openssl_ca_signs_an_spkac,
    pebble_issues_and_nginx_serves,
    openssl_cmp_enrols,
    a_ca_stands_below_a_root,
    pki_and_curl_enrol_by_est,
);

/// No section is left out.
#[test]
fn every_section_is_run() {
    let run = [
        "openssl ca",
        "SPKAC",
        "ACME",
        "CMP",
        "A root above devkey ca",
        "EST",
    ];
    assert_eq!(guide::sections(PAGE), run);
}

/// Seen to fail with a request that was not changed.
fn openssl_ca_signs_a_request(device: &Device) {
    works(device);
    let said = follow(device, "openssl ca");
    says(&said, &["verify OK", "DNS:pump7.example", "installed "]);
    let shown = shell(device, "devkey cert show web").ok();
    shown.says(&["O=Lab,CN=pump7.example", "CN=Works CA", "level        -"]);
    // Who changes a name has no signature for it.
    let change = "openssl req -in web.csr -outform DER | sed s/pump7/pump8/g > changed.csr
                  openssl ca -batch -config works-ca/openssl.cnf -in changed.csr -inform DER -out no.pem";
    // It ends well all the same.
    let refused = shell(device, change).output();
    refused.says(&["Signature did not match the certificate request"]);
    assert!(!holds(device, "no.pem"));
    // A request of long ago is as good as a new one.
    let again = "openssl ca -batch -config works-ca/openssl.cnf -in web.csr -out again.pem";
    shell(device, again).ok();
}

/// Seen to fail without the comparison in the page: then yesterday's answer is taken.
fn openssl_ca_signs_an_spkac(device: &Device) {
    works(device);
    let blocks = guide::blocks(PAGE, "SPKAC", "sh");
    let [draw, answer, issue, install] = blocks.as_slice() else {
        panic!("{blocks:?}");
    };
    shell(device, draw).ok();
    shell(device, answer).ok();
    // An answer to yesterday's challenge, and one that was changed.
    let saved = "cp web.spkac kept.spkac; cp challenge.txt kept.txt";
    shell(device, saved).ok();
    shell(device, &format!("{draw}\n{issue}")).fails();
    assert!(!holds(device, "web.der"));
    change_challenge(device);
    let changed = shell(device, issue).fails();
    changed.says(&["Signature Failure"]);
    // openssl ca does not care about the challenge: who leaves the comparison out has none.
    let careless = "cp kept.spkac web.spkac; printf 'commonName = pump7.example\n' >> web.spkac
                    openssl ca -batch -config works-ca/openssl.cnf -create_serial -spkac web.spkac -out any.der";
    shell(device, careless).ok();
    shell(device, "cp kept.spkac web.spkac; cp kept.txt challenge.txt").ok();
    shell(device, issue).ok();
    shell(device, install).ok().says(&["installed "]);
    let shown = shell(device, "devkey cert show web").ok();
    shown.says(&["dns:pump7.example", "CN=Works CA", "level        -"]);
}

/// Another challenge in an SPKAC, without a new signature, and in what the CA remembers.
fn change_challenge(device: &Device) {
    let text = fs::read_to_string(device.path("kept.spkac")).unwrap();
    let spkac = Base64::decode_vec(text.trim().trim_start_matches("SPKAC=")).unwrap();
    let kept = fs::read(device.path("kept.txt")).unwrap();
    let challenge = kept.trim_ascii();
    let at = spkac
        .windows(challenge.len())
        .position(|part| part == challenge);
    let at = at.unwrap();
    let other: Vec<u8> = challenge.iter().rev().copied().collect();
    let changed = [&spkac[..at], &other, &spkac[at + other.len()..]].concat();
    let changed = format!("SPKAC={}\n", Base64::encode_string(&changed));
    fs::write(device.path("web.spkac"), changed).unwrap();
    fs::write(device.path("challenge.txt"), other).unwrap();
}

/// The CA asks where the name points to for what certbot serves; nginx serves with the device's key.
fn pebble_issues_and_nginx_serves(device: &Device) {
    device.key("ec-p256", "web");
    let acme = Pebble::new(device);
    let root = format!("https://localhost:{}/roots/0", acme.port + 1);
    let curl = || {
        // Its second port may be there later than the first.
        let patient = "-sS --fail --noproxy * --retry 9 --retry-connrefused --cacert";
        device.run("curl").words(patient)
    };
    let root = curl().arg(device.path("tls.pem")).arg(root).ok();
    fs::write(device.path("acme-root.pem"), root.stdout).unwrap();
    let section = guide::blocks(PAGE, "ACME", "sh").concat();
    let section = section.replace("https://acme.example", &acme.url());
    let more = format!(
        "--standalone --http-01-address 127.0.0.1 --http-01-port {} \
         --config-dir acme --work-dir acme --logs-dir acme",
        acme.port + 2
    );
    let section = section.replace("--standalone", &more);
    let run = shell(device, &section).env("REQUESTS_CA_BUNDLE", device.path("tls.pem"));
    let said = run.seconds(120).ok();
    said.says(&["Successfully received certificate", "installed "]);
    let port = free_ports(1);
    let _nginx = nginx(device, port);
    let served = curl().arg(device.path("acme-root.pem"));
    let served = served.args(["--resolve", &format!("pump7.example:{port}:127.0.0.1")]);
    let served = served.arg(format!("https://pump7.example:{port}/")).ok();
    served.says(&["by the device"]);
}

/// Seen to fail with a server that trusts the first certificate when it should not.
fn openssl_cmp_enrols(device: &Device) {
    works(device);
    follow(device, "openssl ca");
    shell(device, CMP).ok();
    let enrol = |trusted: &str, log: &str| {
        let port = free_ports(1);
        let serve = device
            .run("openssl")
            .words("cmp -srv_ref x -srv_cert cmp-server.pem");
        let serve = serve.words("-srv_key cmp-server.key -rsp_cert issued.pem -port");
        let serve = serve.arg(port.to_string()).args(["-srv_trusted", trusted]);
        let server = serve.serve(&device.path(log));
        server.wait_for("ACCEPT");
        let section = guide::blocks(PAGE, "CMP", "sh").concat();
        let section = section.replace("cmp.example", &format!("127.0.0.1:{port}"));
        // The name of the certificate is not that of the server.
        shell(
            device,
            &section.replace("-server 127", "-no_proxy '*' -server 127"),
        )
        .output()
    };
    let refused = enrol("cmp-ca.pem", "cmp-refuses.log");
    assert!(!refused.status.success(), "{refused}");
    refused.says(&["received ERROR"]);
    assert!(!holds(device, "web-cmp.pem"));
    let done = enrol("works-ca/ca.pem", "cmp.log");
    assert!(done.status.success(), "{done}");
    done.says(&["received CP", "received PKICONF", "installed "]);
    let shown = shell(device, "devkey cert show web").ok();
    shown.says(&["CN=CMP CA", "level        -"]);
}

/// The chain is judged by openssl, and by curl at an nginx whose certificate is below it; revoked it is by the
/// new CA's list.
///
/// Seen to fail without `not_before` of the issuer in issue.rs: the CA's own certificate is younger than the five
/// minutes that clocks may differ.
fn a_ca_stands_below_a_root(device: &Device) {
    works(device);
    let section = "A root above devkey ca";
    below(device, &guide::blocks(PAGE, section, "ini").concat());
    let said = follow(device, section);
    says(
        &said,
        &[
            "made the CA \"Lab\"",
            "level software",
            "with 1 above it",
            ".crt: OK",
        ],
    );
    assert!(!said.contains("does not allow the policies"), "{said}");
    let shown = shell(device, "devkey cert show web").ok();
    shown.says(&["CN=pump7.example", "level        software"]);
    let port = free_ports(1);
    let _nginx = nginx(device, port);
    let curl = device
        .run("curl")
        .words("-sS --fail --noproxy * --cacert works-ca/ca.pem");
    let curl = curl.args(["--resolve", &format!("pump7.example:{port}:127.0.0.1")]);
    let served = curl.arg(format!("https://pump7.example:{port}/")).ok();
    served.says(&["by the device"]);
    let revoke = "devkey ca revoke --dir lab $(devkey ca list --dir lab | awk 'NR == 2 { print $1 }')
        devkey ca crl --dir lab -o lab.crl
        chain=$(devkey cert show web --format file)
        openssl verify -CAfile works-ca/ca.pem -untrusted $chain -crl_check -CRLfile lab.crl $chain";
    shell(device, revoke).fails().says(&["certificate revoked"]);
}

/// Whatever the CA above did wrong is said before there is a CA. Seen to fail without the trial certificate in
/// own.rs: the path to the CA's own certificate alone is good below a root that allows no CA.
#[test]
fn a_chain_that_will_not_do_makes_no_ca() {
    let device = &Device::new(Backend::File);
    works(device);
    let section = "A root above devkey ca";
    let good = guide::blocks(PAGE, section, "ini").concat();
    below(device, &good);
    let blocks = guide::blocks(PAGE, section, "sh");
    let [ask, sign, init, ..] = blocks.as_slice() else {
        panic!("{blocks:?}");
    };
    let init = init.split_once("\ndevkey request").unwrap().0;
    shell(device, ask).ok();
    shell(device, sign).ok();
    shell(device, "cp lab-chain.pem good.pem").ok();
    let refused = |chain: &str, why: &str| {
        shell(device, chain).ok();
        let said = shell(device, init).fails();
        said.says(&[why, "lab-chain.pem", "nothing was made"]);
        assert!(!device.path("lab").exists());
    };
    refused(
        "cp lab.pem lab-chain.pem",
        "the root is not among the certificates",
    );
    refused(
        "cp works-ca/ca.pem lab-chain.pem",
        "none of the certificates is for the CA's key",
    );
    refused(
        "cat good.pem good.pem web.pub.pem >lab-chain.pem; openssl req -x509 -newkey rsa:2048 -noenc \
             -keyout x.key -subj /CN=stranger >>lab-chain.pem",
        "CN=stranger is not of the chain",
    );
    let other =
        "openssl req -x509 -newkey rsa:2048 -noenc -keyout x.key -subj '/CN=Works CA' >other.pem
                 cat lab.pem other.pem >lab-chain.pem";
    refused(other, "no certificate of its issuer, CN=Works CA, is known");
    // What the root says of itself.
    let narrow = "openssl req -x509 -key works-ca/ca.key -out narrow.pem -subj '/CN=Works CA' \
                  -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign
                  cat lab.pem narrow.pem >lab-chain.pem";
    refused(narrow, "there are more CAs below it than it allows");
    // A device's, and one that is for this key all the same.
    let signed = |section: &str| {
        below(device, section);
        shell(device, sign).ok();
    };
    signed("[below]\nbasicConstraints = critical,CA:FALSE\n");
    refused("true", "not the certificate of a CA");
    // Seen to fail without `signs_lists` in own.rs.
    signed("[below]\nbasicConstraints = critical,CA:TRUE\nkeyUsage = critical,keyCertSign\n");
    refused("true", "no cRLSign");
    signed("[below]\nnameConstraints = critical,permitted;DNS:example\n");
    refused("true", "critical extension 2.5.29.30");
    // This one will do for all but levels.
    signed("[below]\ncertificatePolicies = 1.2.3.4\n");
    let said = shell(device, init).ok();
    said.says(&[
        "made the CA",
        "does not allow the policies",
        "software, puf, tpm",
    ]);
    let certify = blocks[2].split_once("\ndevkey request").unwrap().1;
    shell(device, &format!("devkey request{certify}")).ok();
    let policies = shell(device, &blocks[3]).fails();
    policies.says(&["no explicit policy"]);
}

/// strongSwan's client has the device's request answered, by password; then curl renews by the device's key, and so
/// does the client itself.
///
/// Seen to fail with a server that takes any names.
fn pki_and_curl_enrol_by_est(device: &Device) {
    works(device);
    let est = Est::new(device);
    let blocks = guide::blocks(PAGE, "EST", "sh");
    let [enrol, by_pki, renew] = blocks.as_slice() else {
        panic!("{blocks:?}");
    };
    let [enrol, by_pki, renew] = [enrol, by_pki, renew].map(|block| est.here(block));
    let wrong = shell(device, &enrol.replace("pump7:once", "pump7:twice")).fails();
    wrong.says(&["401"]);
    assert!(!holds(device, "web.pem"));
    shell(device, &enrol).ok().says(&["installed "]);
    let serial = |file: &str| {
        let show = format!("openssl x509 -in {file} -noout -serial");
        shell(device, &show).ok().text()
    };
    // Nobody renews without a certificate, by another's, or under another name.
    let nobody = renew.replace("--cert \"$(devkey cert show web --format file)\"", "");
    shell(device, &nobody).fails();
    let stranger = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 9 \
                    -keyout other.key -out other.pem -subj /O=Lab/CN=pump7.example";
    shell(device, stranger).ok();
    let other = renew
        .replace(
            "--engine pkcs11 --key-type ENG --key \"$(devkey key show web --format uri)\"",
            "--key other.key",
        )
        .replace("\"$(devkey cert show web --format file)\"", "other.pem");
    assert_ne!(other, renew);
    shell(device, &other).fails();
    let ask = "devkey request web --subject CN=pump8.example,O=Lab --format csr > pump8.csr\n";
    shell(
        device,
        &format!("{ask}{}", renew.replace("web.csr", "pump8.csr")),
    )
    .fails();
    assert!(!holds(device, "web-new.pem"));
    shell(device, &renew).ok().says(&["installed "]);
    assert_ne!(serial("web.pem"), serial("web-new.pem"));
    let shown = shell(device, "devkey cert show web").ok();
    shown.says(&[
        "CN=pump7.example",
        "dns:pump7.example",
        "CN=Works CA",
        "level        -",
    ]);
    est.served("simplereenroll by CN=pump7.example,O=Lab");
    let said = shell(device, &by_pki).ok();
    said.says(&[
        "found key on PKCS#11 token",
        "sending TLS client certificate",
        "installed ",
    ]);
    assert_ne!(serial("web-pki.pem"), serial("web-new.pem"));
}

/// Says in the configuration of the page's CA what a CA below it is.
fn below(device: &Device, section: &str) {
    let config = guide::blocks(PAGE, "openssl ca", "ini").concat();
    let path = device.path("works-ca/openssl.cnf");
    fs::write(path, format!("{config}\n{section}")).unwrap();
}

/// The CA of the page, and a key "web".
fn works(device: &Device) {
    device.key("ec-p256", "web");
    let dir = device.path("works-ca");
    fs::create_dir(&dir).unwrap();
    let config = guide::blocks(PAGE, "openssl ca", "ini").concat();
    fs::write(dir.join("openssl.cnf"), config).unwrap();
    fs::write(dir.join("index.txt"), "").unwrap();
    let ca = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 100 \
              -keyout works-ca/ca.key -out works-ca/ca.pem -subj '/CN=Works CA' \
              -addext keyUsage=critical,keyCertSign,cRLSign";
    shell(device, ca).ok();
}

/// What openssl's CMP server needs: its own key, and what it is to return.
const CMP: &str = r#"
new="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc"
openssl req -x509 $new -days 9 -keyout cmp-ca.key -out cmp-ca.pem -subj '/CN=CMP CA' \
    -addext keyUsage=critical,keyCertSign
openssl req -x509 $new -days 9 -keyout cmp-server.key -out cmp-server.pem -subj '/CN=CMP server' \
    -addext keyUsage=digitalSignature
openssl x509 -req -in web.csr -days 9 -CA cmp-ca.pem -CAkey cmp-ca.key -copy_extensions copy -out issued.pem
"#;

/// Runs the blocks of a section, one after the other; what they say.
fn follow(device: &Device, section: &str) -> String {
    let blocks = guide::blocks(PAGE, section, "sh");
    let said = blocks.iter().map(|block| shell(device, block).ok().all());
    said.collect()
}

/// A shell in the device's directory, with devkey in its path.
fn shell(device: &Device, script: &str) -> Run {
    let bin = device.path("bin");
    if !bin.exists() {
        fs::create_dir(&bin).unwrap();
        symlink(env!("CARGO_BIN_EXE_devkey"), bin.join("devkey")).unwrap();
    }
    let run = device.run("sh").args(["-e", "-c", script]);
    run.env("PATH", format!("{}:/usr/sbin:/usr/bin:/bin", bin.display()))
        .env("MODULE", module())
}

/// Whether there is such a file with anything in it.
fn holds(device: &Device, name: &str) -> bool {
    fs::metadata(device.path(name)).is_ok_and(|about| about.len() > 0)
}

#[track_caller]
fn says(said: &str, wanted: &[&str]) {
    for word in wanted {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
}

/// An ACME server, and the DNS in which every name is this machine.
struct Pebble {
    /// ACME's; then that of its roots, of HTTP-01, of TLS-ALPN, of DNS, of its management.
    port: u16,
    _server: Server,
    _dns: Server,
}

impl Pebble {
    fn new(device: &Device) -> Self {
        let port = free_ports(6);
        let tls = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 9 \
                   -keyout tls.key -out tls.pem -subj /CN=localhost \
                   -addext subjectAltName=DNS:localhost,IP:127.0.0.1";
        shell(device, tls).ok();
        let at = |offset| format!("127.0.0.1:{}", port + offset);
        let config = serde_json::json!({"pebble": {
            "listenAddress": at(0), "managementListenAddress": at(1),
            "certificate": "tls.pem", "privateKey": "tls.key",
            "httpPort": port + 2, "tlsPort": port + 3,
            "ocspResponderURL": "", "externalAccountBindingRequired": false,
        }});
        fs::write(device.path("pebble.json"), config.to_string()).unwrap();
        let dns = device.run("pebble-challtestsrv");
        let dns = ["-http01", "-https01", "-tlsalpn01", "-defaultIPv6"]
            .iter()
            .fold(dns, |dns, off| dns.args([off, ""]));
        let dns = dns.args(["-dns01", &at(4), "-management", &at(5)]);
        let dns = dns.args(["-defaultIPv4", "127.0.0.1"]);
        let dns = dns.serve_on(port + 4, &device.path("dns.log"));
        let server = device.run("pebble").words("-config pebble.json -dnsserver");
        // It refuses one nonce in twenty, to see whether a client asks again; certbot does so only once.
        let server = server
            .arg(at(4))
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", "0");
        Pebble {
            port,
            _server: server.serve_on(port, &device.path("pebble.log")),
            _dns: dns,
        }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }
}

/// nginx with the lines of the page.
fn nginx(device: &Device, port: u16) -> Server {
    let show = |what: &str| shell(device, what).ok().text().trim().to_owned();
    let lines = guide::blocks(PAGE, "ACME", "nginx").concat();
    let lines = lines
        .replace(
            "FILE",
            &show("devkey cert show web --format file | head -n 1"),
        )
        .replace("URI", &show("devkey key show web --format uri"));
    let dir = device.path("nginx");
    fs::create_dir(&dir).unwrap();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|of| format!("{of}_temp_path {}/{of};\n", dir.display()))
        .concat();
    let config = format!(
        "daemon off;\nmaster_process off;\npid {0}/pid;\nerror_log stderr;\nenv DEVKEY_CONFIG;\n\
         ssl_engine pkcs11;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}\
         server {{\nlisten 127.0.0.1:{port} ssl;\n{lines}\nlocation / {{ return 200 \"by the device\"; }}\n}}\n}}\n",
        dir.display()
    );
    let path: PathBuf = dir.join("nginx.conf");
    fs::write(&path, config).unwrap();
    let run = Engine::Flag.env(device, device.run("nginx"));
    let run = run.arg("-p").arg(&dir).arg("-c").arg(&path);
    run.args(["-e", "stderr"])
        .serve_on(port, &device.path("nginx.log"))
}

/// An EST server: nginx knows who asks, a script hands the request to the CA of the page.
struct Est {
    port: u16,
    _nginx: Server,
    script: Server,
}

/// Base64 of PKCS#10 in, of PKCS#7 out: RFC 7030 §4.2. A renewal asks for the names of the certificate that it
/// is made by.
const EST: &str = r#"#!/bin/sh -e
cd "$DIR"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tr -d '\r\n' | openssl base64 -d -A | openssl req -inform DER -out "$work/csr"
subject=$(openssl req -in "$work/csr" -noout -subject -nameopt RFC2253)
case $REQUEST_URI in
*/simplereenroll) [ "$subject" = "subject=$CLIENT" ] || : >"$work/csr" ;;
esac
openssl ca -batch -preserveDN -config works-ca/openssl.cnf -create_serial -notext -in "$work/csr" -out "$work/pem" >&2 || true
if [ -s "$work/pem" ]; then
    echo "${REQUEST_URI##*/} by $CLIENT" >&2
    openssl crl2pkcs7 -nocrl -certfile "$work/pem" -outform DER | openssl base64 -A >"$work/p7"
    printf 'Content-Type: application/pkcs7-mime; smime-type=certs-only\r\nContent-Length: %s\r\n\r\n' \
        "$(wc -c <"$work/p7")"
    cat "$work/p7"
else
    printf 'Status: 400 Bad Request\r\n\r\n'
fi
"#;

impl Est {
    fn new(device: &Device) -> Self {
        let dir = device.path("");
        let dir = dir.display();
        let key = "openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -keyout est.key \
                   -out est.csr -subj /CN=localhost -addext subjectAltName=DNS:localhost
                   openssl ca -batch -config works-ca/openssl.cnf -create_serial -notext -in est.csr -out est.pem
                   chmod 755 est; echo 'pump7:{PLAIN}once' >passwords";
        fs::write(device.path("est"), EST).unwrap();
        shell(device, key).ok();
        let at = free_ports(1);
        let script = device
            .run("fcgiwrap")
            .args(["-s", &format!("tcp:127.0.0.1:{at}")]);
        let script = script.serve_on(at, &device.path("est.log"));
        let hand = format!(
            "include /etc/nginx/fastcgi_params;\nfastcgi_param SCRIPT_FILENAME {dir}/est;\nfastcgi_param DIR {dir};\n\
             fastcgi_param CLIENT $ssl_client_s_dn;\nfastcgi_pass 127.0.0.1:{at};"
        );
        let server = format!(
            "ssl_certificate {dir}/est.pem;\nssl_certificate_key {dir}/est.key;\nssl_verify_client optional;\n\
             location = /.well-known/est/simpleenroll {{\nauth_basic est;\n\
             auth_basic_user_file {dir}/passwords;\n{hand}\n}}\n\
             location = /.well-known/est/simplereenroll {{\n\
             if ($ssl_client_verify != SUCCESS) {{ return 403; }}\n{hand}\n}}"
        );
        let ca = Ca {
            cert: device.path("works-ca/ca.pem"),
            key: device.path("works-ca/ca.key"),
        };
        let (port, nginx) = common::nginx::nginx(device, &ca, "", &server, device.run("nginx"));
        Est {
            port,
            _nginx: nginx,
            script,
        }
    }

    /// A block of the page, with this server in the place of the page's.
    fn here(&self, block: &str) -> String {
        let block = block.replace("est.example", &format!("localhost:{}", self.port));
        block.replace("curl ", "curl --noproxy '*' ")
    }

    fn served(&self, what: &str) {
        self.script.wait_for(what);
    }
}
