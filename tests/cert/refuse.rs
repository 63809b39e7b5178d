//! What is refused, with a reason, and changes nothing.

use std::collections::BTreeMap;
use std::fs;

use crate::authority::World;

/// Each input and a word of the reason. Seen to fail, each at its line, with these checks
/// taken out of identity/install.rs: `said.ca`, both of `moment`, the stray one, the roots, several
/// certificates for one key.
#[test]
fn bad_input_is_refused_and_changes_nothing() {
    let world = World::new();
    world.certify("web", "first", 10);
    world.install("first.pem");
    world.certify("other", "others", 10);
    world.certify("web", "second", 10);
    prepare(&world);
    let (before, mut wrong) = (world.files(), Vec::new());
    for (arguments, reason) in [
        ("foreign.pem", "for no key of token"),
        (
            "--key web others.pem",
            "is for key \"other\", not for \"web\"",
        ),
        ("root.pem", "for no key of token"),
        ("ca.crt", "it is a CA's certificate"),
        ("expired.pem", "has expired"),
        ("early.pem", "not valid yet"),
        ("gap.pem", "is not of the chain"),
        ("altered.pem", "is not of the chain"),
        ("--ca stranger.pem second.pem", "is known"),
        ("twice.pem", "several certificates for one key"),
        ("truncated.pem", "has no end"),
        ("truncated.der", "not an X.509 certificate"),
        ("garbage", "not an X.509 certificate"),
        ("long", "more than 262143 bytes"),
        ("empty", "there is nothing in it"),
        ("web.pub.pem", "no CERTIFICATE in it, but PUBLIC KEY"),
        ("second.p7b", "openssl pkcs7 -print_certs"),
        ("nothing-there", "nothing-there"),
        ("issued.json", "this is no file of devkey"),
        ("request.json", "the one called \"issued\" is wanted"),
        ("second.der.twice", "not an X.509 certificate"),
    ] {
        wrong.extend(refused(&world, arguments, reason, &before));
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
    world.cert("install --any-time expired.pem").ok();
    let rc = world
        .cert("list --expires-within 1s")
        .output()
        .status
        .code();
    assert_eq!(rc, Some(3));
}

fn prepare(world: &World) {
    let script = r#"
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -keyout foreign.key \
            -out foreign.pem -subj /CN=foreign
        openssl x509 -req -in tmp.csr -CA root.pem -CAkey root.key -force_pubkey web.pub.pem \
            -extfile ca.ext -out ca.crt
        cat second.pem stranger.pem > gap.pem
        cat first.pem second.pem > twice.pem
        head -c 300 second.pem > truncated.pem
        openssl x509 -in second.pem -outform DER -out second.der
        head -c 300 second.der > truncated.der
        cat second.der second.der > second.der.twice
        # Not with the first byte of JSON.
        { printf '\377'; head -c 4999 /dev/urandom; } > garbage
        head -c 1048576 /dev/zero | tr '\0' A > long
        : > empty
        openssl crl2pkcs7 -nocrl -certfile second.pem -out second.p7b
        echo '{"a": 1}' > issued.json
        echo '{"devkey": "request", "version": 1}' > request.json
    "#;
    world.sh(script).ok();
    let request = world.cert("renew web --command");
    request.arg("cp \"$DEVKEY_CSR\" web.csr; false").fails();
    let day = 86_400;
    for (name, from, to) in [("expired", -2 * day, -day), ("early", day, 2 * day)] {
        dated(world, name, from, to);
    }
    // The last bytes are the signature.
    let text = String::from_utf8(world.read("second.pem")).unwrap();
    let last = text.find("\n-----END").unwrap() - 6;
    let other = if &text[last..=last] == "A" { "B" } else { "A" };
    let altered = format!("{}{other}{}", &text[..last], &text[last + 1..]);
    fs::write(world.path("altered.pem"), altered).unwrap();
}

/// A certificate of the key "web" that is valid from and until so many seconds from now.
fn dated(world: &World, name: &str, from: i64, to: i64) {
    let config = "[ca]\ndefault_ca=d\n[d]\ndatabase=index\nserial=serial\nnew_certs_dir=.\n\
                  certificate=between.pem\nprivate_key=between.key\ndefault_md=sha256\npolicy=p\n\
                  unique_subject=no\n[p]\ncommonName=supplied\norganizationName=optional\n";
    fs::write(world.path("ca.cnf"), config).unwrap();
    let script = format!(
        ": > index; openssl rand -hex 8 > serial
        date() {{ command date -u -d \"@$(( $(command date +%s) + $1 ))\" +%Y%m%d%H%M%SZ; }}
        openssl ca -batch -config ca.cnf -in web.csr -notext -startdate $(date {from}) \
            -enddate $(date {to}) -out {name}.pem"
    );
    world.sh(&script).ok();
}

/// OpenSSH's: other keys, other times, other CAs, changed ones, two for one place.
#[test]
fn bad_ssh_certificates_are_refused() {
    let world = World::new();
    world.certify_ssh("login", "-n me -V +1d");
    world.install("login-cert.pub");
    world.certify_ssh("past", "-n me -V -2d:-1d");
    world.certify_ssh("future", "-n me -V +1d:+2d");
    let script = r#"
        ssh-keygen -q -t ed25519 -N '' -f alien; ssh-keygen -q -s sshca -I a -n me alien.pub
        sed 's/...... *web/AAAAAA web/;s/......\( [^ ]*\)$/AAAAAA\1/' login-cert.pub > changed-cert.pub
        cat login-cert.pub login-cert.pub > twice-cert.pub
        mkdir dir; cp alien-cert.pub dir/web-cert.pub
    "#;
    world.sh(script).ok();
    let (before, mut wrong) = (world.files(), Vec::new());
    for (arguments, reason) in [
        ("alien-cert.pub", "for no key of token"),
        ("past-cert.pub", "has expired"),
        ("future-cert.pub", "not valid yet"),
        ("--ssh-ca alien.pub login-cert.pub", "is not trusted"),
        ("changed-cert.pub", "certificate"),
        ("twice-cert.pub", "would both be web-cert.pub"),
        ("--ssh-dir dir login-cert.pub", "is another certificate's"),
    ] {
        wrong.extend(refused(&world, arguments, reason, &before));
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
}

/// What is wrong with the refusal: it has exit code 1, the reason and a remedy, and changes nothing.
fn refused(
    world: &World,
    arguments: &str,
    reason: &str,
    before: &BTreeMap<String, Vec<u8>>,
) -> Option<String> {
    let output = world.cert(&format!("install {arguments}")).output();
    let all = output.all();
    let right = output.status.code() == Some(1) && all.contains(reason) && all.contains("  try: ");
    let same = world.files() == *before;
    (!right || !same).then(|| format!("{arguments}: {reason:?}, unchanged {same}: {output}\n"))
}
