//! What is refused, and why.

use devkey::identity::flow::Issued;

use super::*;

/// Seen to fail without `check_unanswered`: a second certificate was issued.
#[test]
fn an_answer_is_taken_once() {
    let (authority, device) = (Authority::new(), Soft::new());
    let challenge = authority.challenge(&request(&device));
    let answer = Answer::make(&device, &challenge, None).unwrap();
    authority.ca.issue(&authority.key, &answer, NOW).unwrap();
    refused(
        authority.ca.issue(&authority.key, &answer, NOW),
        "was answered before",
    );
    // Another signature for the same challenge is no other answer.
    let again = Answer::make(&device, &challenge, None).unwrap();
    refused(
        authority.ca.issue(&authority.key, &again, NOW),
        "was answered before",
    );
}

/// Seen to fail without the look at the clock in `issue`, and without that in `Challenge::check`.
#[test]
fn challenges_expire() {
    let (authority, device) = (Authority::new(), Soft::new());
    let challenge = authority.challenge(&request(&device));
    let fingerprint = Some(authority.ca.fingerprint());
    assert_eq!(challenge.expires(), NOW + 600);
    challenge.check(fingerprint, NOW + 600).unwrap();
    refused(challenge.check(fingerprint, NOW + 601), "expired");
    let answer = Answer::make(&device, &challenge, None).unwrap();
    refused(
        authority.ca.issue(&authority.key, &answer, NOW + 601),
        "expired",
    );
    authority
        .ca
        .issue(&authority.key, &answer, NOW + 600)
        .unwrap();
    // After a day it is forgotten, with the next challenge.
    authority
        .ca
        .challenge(&authority.key, request(&device), None, NOW + 600 + 86401)
        .unwrap();
    refused(
        authority.ca.issue(&authority.key, &answer, NOW + 600),
        "no challenge",
    );
}

/// Seen to fail without the lines of `Answer::check` on key, request and challenge, one after the other; the
/// nonce is what the challenge is found by.
#[test]
fn an_answer_is_of_its_device_to_its_challenge() {
    let (authority, device, other) = (Authority::new(), Soft::new(), Soft::new());
    let (asked, elsewhere) = (request(&device), request(&other));
    let (one, two) = (authority.challenge(&asked), authority.challenge(&asked));
    refused(Answer::make(&other, &one, None), "another key");
    let issue = |bytes: Vec<u8>| {
        let answer = Answer::parse(&bytes).unwrap();
        authority.ca.issue(&authority.key, &answer, NOW)
    };
    let (digest, nonce) = (one.digest().0, one.nonce().0);
    refused(
        issue(answer_of(&other, digest, asked.digest().0, nonce)),
        "another device",
    );
    refused(
        issue(answer_of(&device, digest, elsewhere.digest().0, nonce)),
        "another request",
    );
    refused(
        issue(answer_of(&device, two.digest().0, asked.digest().0, nonce)),
        "was changed",
    );
    refused(
        issue(answer_of(&device, digest, asked.digest().0, [7; 32])),
        "no challenge",
    );
    let unlike = answer_of(&device, one.digest().0, asked.digest().0, two.nonce().0);
    refused(issue(unlike), "was changed");
    issue(answer_of(&device, digest, asked.digest().0, nonce)).unwrap();
}

/// Seen to fail without the comparison in `Challenge::check`.
#[test]
fn another_ca_is_refused_on_both_sides() {
    let (authority, other, device) = (Authority::new(), Authority::new(), Soft::new());
    let named = RequestSpec {
        authority: Some(authority.ca.fingerprint()),
        ..spec()
    };
    let named = Request::make(&device, named).unwrap();
    let challenge = |ca: &Authority, request: &Request| {
        ca.ca
            .challenge(&ca.key, request.clone(), None, NOW)
            .map(|asked| asked.challenge)
    };
    refused(challenge(&other, &named), "another CA");
    challenge(&authority, &named)
        .unwrap()
        .check(None, NOW)
        .unwrap();
    // A device that named none says which it means when it answers.
    let unnamed = request(&device);
    let theirs = challenge(&other, &unnamed).unwrap();
    refused(theirs.check(None, NOW), "which CA is meant");
    refused(
        theirs.check(Some(authority.ca.fingerprint()), NOW),
        "of another CA",
    );
    // An answer to the one is nothing to the other.
    let answer = Answer::make(&device, &theirs, None).unwrap();
    refused(
        authority.ca.issue(&authority.key, &answer, NOW),
        "no challenge",
    );
    refused(
        authority.ca.issue(&other.key, &answer, NOW),
        "not the CA's key",
    );
}

/// Seen to fail without `check_names`, and with subjects and principals left out of it.
#[test]
fn only_names_of_the_profile_are_had() {
    let (authority, device) = (Authority::new(), Soft::new());
    let ask = |change: fn(&mut RequestSpec)| {
        let mut spec = spec();
        change(&mut spec);
        let request = Request::make(&device, spec).unwrap();
        authority.ca.challenge(&authority.key, request, None, NOW)
    };
    ask(|_| ()).unwrap();
    refused(
        ask(|spec| spec.names.subject = "CN=a,O=Evil".parse().unwrap()),
        "subject:CN=a,O=Evil is not allowed",
    );
    for name in [
        "dns:evil.example",
        "dns:*.lab.example",
        "dns:a.b.lab.example",
        "ip:10.0.0.1",
    ] {
        let mut spec = spec();
        spec.names.alt_names = vec![name.parse().unwrap()];
        let request = Request::make(&device, spec).unwrap();
        refused(
            authority.ca.challenge(&authority.key, request, None, NOW),
            name,
        );
    }
    refused(
        ask(|spec| spec.ssh.as_mut().unwrap().principals.push("root".into())),
        "principal:root is not allowed",
    );
    refused(
        ask(|spec| spec.ssh.as_mut().unwrap().kind = SshKind::Host),
        "no SSH certificates to a host",
    );
}

/// A profile that was narrowed since is heeded. Seen to fail without `Profile::check` in `issue`.
#[test]
fn the_profile_counts_at_issue_too() {
    let (authority, device) = (Authority::new(), Soft::new());
    let challenge = authority.challenge(&request(&device));
    let answer = Answer::make(&device, &challenge, None).unwrap();
    let path = authority.dir().join("ca/ca.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(
        &path,
        text.replace("dns:*.lab.example", "dns:*.shop.example"),
    )
    .unwrap();
    let ca = Ca::open(&authority.dir().join("ca")).unwrap();
    refused(
        ca.issue(&authority.key, &answer, NOW),
        "dns:pump7.lab.example is not allowed",
    );
    std::fs::write(
        &path,
        text.replace("level = \"software\"", "level = \"tpm\""),
    )
    .unwrap();
    let ca = Ca::open(&authority.dir().join("ca")).unwrap();
    refused(
        ca.issue(&authority.key, &answer, NOW),
        "level tpm is wanted",
    );
    std::fs::write(&path, text).unwrap();
    authority.ca.issue(&authority.key, &answer, NOW).unwrap();
}

/// Seen to fail without the look at the key in `Ca::open`, and at the challenge's in `ours`.
#[test]
fn a_ca_has_one_key() {
    let (authority, device) = (Authority::new(), Soft::new());
    let answer = Answer::make(&device, &authority.challenge(&request(&device)), None).unwrap();
    let other = Authority::new();
    let here = authority.dir().join("ca");
    let there = other.dir().join("ca");
    for name in ["challenges", "answered"] {
        std::fs::remove_dir_all(there.join(name)).unwrap();
        std::fs::rename(here.join(name), there.join(name)).unwrap();
    }
    refused(
        other.ca.issue(&other.key, &answer, NOW),
        "another key of this CA",
    );
    std::fs::copy(here.join("ca.pem"), there.join("ca.pem")).unwrap();
    assert!(matches!(Ca::open(&there), Err(Error::BadRecord { .. })));
}

/// Level PUF: a registered key of what says that it is a PUF and no stand-in. Seen to fail without each of
/// the three: the look at the registration in `puf`, the two arms of `disqualified`.
#[test]
fn only_registered_pufs_have_the_level() {
    let device = Soft::new();
    let authority = Authority::with(&[("device", profile(Level::Puf))], Vec::new());
    let ask = |back_end: &str, stand_in| {
        let mut spec = spec();
        spec.source = Source {
            back_end: back_end.into(),
            stand_in,
        };
        let request = Request::make(&device, spec).unwrap();
        let asked = authority
            .ca
            .challenge(&authority.key, request.clone(), None, NOW);
        (request, asked.map(|asked| asked.challenge))
    };
    let (genuine, asked) = ask("puf", false);
    refused(asked, "not registered");
    let (simulated, _) = ask("puf", true);
    refused(
        authority.ca.register_request(&simulated, &entry()),
        "simulator",
    );
    let (file, _) = ask("file", false);
    refused(authority.ca.register_request(&file, &entry()), "no PUF");
    let (tpm, _) = ask("tpm", false);
    refused(authority.ca.register_request(&tpm, &entry()), "no PUF");
    assert!(authority.ca.register_request(&genuine, &entry()).unwrap());
    assert!(!authority.ca.register_request(&genuine, &entry()).unwrap());
    // A stand-in stays one, whoever has registered its key.
    refused(ask("puf", true).1, "simulator");
    refused(ask("file", false).1, "no PUF");
    let challenge = ask("puf", false).1.unwrap();
    let answer = Answer::make(&device, &challenge, None).unwrap();
    // What was taken back meanwhile counts.
    authority
        .ca
        .unregister(fingerprint(device.public()))
        .unwrap();
    refused(
        authority.ca.issue(&authority.key, &answer, NOW),
        "not registered",
    );
    authority.ca.register(device.public(), &entry()).unwrap();
    let granted = authority.ca.issue(&authority.key, &answer, NOW).unwrap();
    assert_eq!(granted.issued.level(), Some(Level::Puf));
}

/// Seen to fail with the level judged anew in `issue`.
#[test]
fn who_is_registered_too_late_is_software() {
    let (authority, device) = (Authority::new(), Soft::new());
    let mut spec = spec();
    spec.source.back_end = "puf".into();
    let request = Request::make(&device, spec).unwrap();
    let answer = Answer::make(&device, &authority.challenge(&request), None).unwrap();
    authority.ca.register_request(&request, &entry()).unwrap();
    let granted = authority.ca.issue(&authority.key, &answer, NOW).unwrap();
    assert_eq!(granted.issued.level(), Some(Level::Software));
}

type Parser = fn(&[u8]) -> Result<()>;

/// Each file is refused where another is wanted, and files of other versions and of anything else are.
#[test]
fn files_are_not_mixed_up() {
    let (authority, device) = (Authority::new(), Soft::new());
    let request = request(&device);
    let challenge = authority.challenge(&request);
    let answer = Answer::make(&device, &challenge, None).unwrap();
    let issued = authority
        .ca
        .issue(&authority.key, &answer, NOW)
        .unwrap()
        .issued;
    let files = [
        request.encode().unwrap(),
        challenge.encode().unwrap(),
        answer.encode().unwrap(),
        issued.encode().unwrap(),
    ];
    let names = ["request", "challenge", "answer", "issued"];
    let parsers: [Parser; 4] = [
        |bytes| Request::parse(bytes).map(|_| ()),
        |bytes| Challenge::parse(bytes).map(|_| ()),
        |bytes| Answer::parse(bytes).map(|_| ()),
        |bytes| Issued::parse(bytes).map(|_| ()),
    ];
    for (parse, wanted) in parsers.iter().zip(names) {
        for (file, name) in files.iter().zip(names) {
            match wanted == name {
                true => parse(file).unwrap(),
                false => refused(parse(file), &format!("the file called {name:?}")),
            }
            let text = String::from_utf8(file.clone()).unwrap();
            let newer = text.replacen("\"version\": 1", "\"version\": 2", 1);
            if wanted == name {
                refused(parse(newer.as_bytes()), "newer devkey");
                let more = text.replacen("\"body\": {", "\"body\": { \"x\": 1,", 1);
                refused(parse(more.as_bytes()), "unknown field");
                let twice = text.replacen("\"version\"", "\"version\": 1, \"version\"", 1);
                refused(parse(twice.as_bytes()), "");
                let long = text + &" ".repeat(256 * 1024);
                refused(parse(long.as_bytes()), "at most");
            }
        }
        for nothing in [
            "",
            "{}",
            "[]",
            "null",
            "{\"devkey\": \"x\", \"version\": 1}",
            &"[".repeat(100_000),
        ] {
            refused(parse(nothing.as_bytes()), "no file of devkey");
        }
    }
}
