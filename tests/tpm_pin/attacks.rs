//! Attacks by who has the owner's authorisation, the store and tpm2-tools, but not the PIN.
//!
//! Each also goes the way of the one who has it, to see that it would get through.

use der::asn1::OctetStringRef;
use der::{Decode, Encode, Sequence};
use devkey::Error;
use devkey::provider::{Blob, Tries};
use devkey::secret::Secret;

use crate::guards::indices;
use crate::tpm::{Proxy, Swtpm};
use crate::{Made, Part, RIGHT, TRIES, WRONG, create, lockouts, pin};

/// The attributes of the counter, as tpm2_nvdefine wants them.
const ATTRIBUTES: &str = "policywrite|nt=0x8|authread|policyread|no_da";
/// What the attacker would like the PIN to be.
const HIS: &str = "hex:6666";

/// What is in a blob.
#[derive(Sequence)]
struct SealedSecret<'a> {
    version: u32,
    #[asn1(context_specific = "0", optional = "true")]
    counter: Option<Counter<'a>>,
    public: &'a OctetStringRef,
    private: &'a OctetStringRef,
}

#[derive(Sequence)]
struct Counter<'a> {
    handle: u32,
    writer: &'a OctetStringRef,
}

impl Made {
    fn provisioned() -> Self {
        let swtpm = Swtpm::start();
        swtpm.provision();
        Made::on(swtpm, &[])
    }

    /// The counter's handle, for tools.
    fn index(&self) -> String {
        let found = indices(&self.swtpm);
        assert_eq!(found.len(), 1);
        found[0].clone()
    }

    /// What tpm2_nvreadpublic says of the counter.
    fn shown(&self, what: &str) -> Option<String> {
        let all = self.swtpm.tool("tpm2_nvreadpublic", &[&self.index()]);
        let value = |line: &str| Some(line.trim().strip_prefix(what)?.trim().to_owned());
        all.lines().find_map(value)
    }

    fn does(&self, command: &str) -> bool {
        let words: Vec<&str> = command.split(' ').collect();
        let output = self.swtpm.try_tool(words[0], &words[1..]);
        self.swtpm.tool("tpm2_flushcontext", &["-t"]);
        output.status.success()
    }

    fn must(&self, command: &str) {
        let words: Vec<&str> = command.split(' ').collect();
        self.swtpm.tool(words[0], &words[1..]);
        self.swtpm.tool("tpm2_flushcontext", &["-t"]);
    }

    /// Takes the counter away and puts his own there, for an auth of his.
    fn redefine(&self, attributes: &str) {
        let index = self.index();
        let policy = self.shown("authorization policy:").unwrap();
        let policy = base16ct::mixed::decode_vec(policy).unwrap();
        std::fs::write(self.swtpm.file("policy"), policy).unwrap();
        self.must(&format!("tpm2_nvundefine -C o {index}"));
        self.must(&format!(
            "tpm2_nvdefine {index} -C o -s 8 -a {attributes} -L policy -p {HIS}"
        ));
    }

    /// The way around devkey: loads the object of a blob and satisfies its policy with these auths.
    fn forced(&self, blob: &Blob, counter: &str, object: &str) -> bool {
        let parts = SealedSecret::from_der(&blob.bytes).unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let sized = [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
            std::fs::write(self.swtpm.file(name), sized).unwrap();
        };
        file("sealed.pub", parts.public.as_bytes());
        file("sealed.priv", parts.private.as_bytes());
        let handle = parts.counter.unwrap().handle;
        self.does("tpm2_load -C 0x81000001 -u sealed.pub -r sealed.priv -c sealed.ctx")
            && self.does("tpm2_startauthsession --policy-session -S session.ctx")
            && self.does(&format!(
                "tpm2_policysecret -S session.ctx -c {handle:#x} {counter}"
            ))
            && self.does("tpm2_policyauthvalue -S session.ctx")
            && self.does(&format!(
                "tpm2_unseal -c sealed.ctx -p session:session.ctx+{object} -o secret"
            ))
            && std::fs::read(self.swtpm.file("secret")).unwrap() == self.secret.expose()
    }
}

/// An auth that follows from a PIN, for tools.
fn tool_auth(part: Part, byte: u8) -> String {
    format!("hex:{}", base16ct::lower::encode_string(&part.auth(byte)))
}

fn right() -> [String; 2] {
    Part::ALL.map(|part| tool_auth(part, RIGHT))
}

/// With both auths the tools unseal, with one they do not, and each half is counted. Seen failing
/// without `auth_value()` in `Sealed::policy`.
#[test]
fn the_policy_wants_both_auths() {
    let made = Made::provisioned();
    let [counter, object] = right();
    assert!(made.forced(&made.blob, &counter, &object));
    assert!(!made.forced(&made.blob, HIS, &object));
    assert_eq!((made.tries().left, lockouts(&made.swtpm)), (TRIES - 1, 0));
    assert!(!made.forced(&made.blob, &counter, HIS));
    assert_eq!((made.tries().left, lockouts(&made.swtpm)), (TRIES, 1));
}

/// Nor without the counter. Seen failing with `user_with_auth` set in `objects::sealed`.
#[test]
fn the_auth_of_the_object_alone_is_not_enough() {
    let made = Made::provisioned();
    let [_, object] = right();
    made.forced(&made.blob, HIS, &object);
    let unsealed = |auth: &str| made.does(&format!("tpm2_unseal -c sealed.ctx -p {auth}"));
    assert!(!unsealed(&object));
    made.must("tpm2_startauthsession --policy-session -S session.ctx");
    assert!(made.does("tpm2_policyauthvalue -S session.ctx"));
    assert!(!unsealed(&format!("session:session.ctx+{object}")));
    // Nor does anybody change the auth to one of his.
    let changed =
        format!("tpm2_changeauth -c sealed.ctx -C 0x81000001 -p {object} -r new.priv {HIS}");
    assert!(!made.does(&changed));
    assert_eq!(lockouts(&made.swtpm), 0);
}

/// An index with another PIN at the same place, the same in every other way: it has never been
/// written and nobody can write it. Seen failing with OWNERWRITE among the `ATTRIBUTES` of counter.rs
/// and of this file: then he writes it.
#[test]
fn a_redefined_counter_is_none() {
    let made = Made::provisioned();
    let name = made.shown("name:").unwrap();
    made.redefine(ATTRIBUTES);
    let index = made.index();
    assert_ne!(made.shown("name:").unwrap(), name);
    std::fs::write(made.swtpm.file("count"), [0, 0, 0, 0, 0, 0, 0, 9]).unwrap();
    for who in ["o".to_owned(), format!("{index} -P {HIS}")] {
        assert!(!made.does(&format!("tpm2_nvwrite {index} -C {who} -i count")));
    }
    made.must("tpm2_startauthsession --policy-session -S session.ctx");
    assert!(!made.does(&format!(
        "tpm2_policysecret -S session.ctx -c {index} {HIS}"
    )));
    let [_, object] = right();
    assert!(!made.forced(&made.blob, HIS, &object));
    for with in [RIGHT, WRONG] {
        let refused = made.unseal(with).unwrap_err().to_string();
        assert!(refused.contains("deleted or replaced"), "{refused}");
    }
    assert_eq!(lockouts(&made.swtpm), 0);
}

/// One that he can write: its Name is another, so it is not even asked. Seen failing without the
/// comparison of Names in `Live::index`; by the tools, the policy stands in the way all the same.
#[test]
fn a_counter_that_the_owner_writes_is_another() {
    let made = Made::provisioned();
    made.redefine(&format!("{ATTRIBUTES}|ownerwrite"));
    let index = made.index();
    std::fs::write(made.swtpm.file("count"), [0, 0, 0, 0, 0, 0, 0, 9]).unwrap();
    made.must(&format!("tpm2_nvwrite {index} -C o -i count"));
    made.must("tpm2_startauthsession --policy-session -S session.ctx");
    made.must(&format!(
        "tpm2_policysecret -S session.ctx -c {index} {HIS}"
    ));
    let [_, object] = right();
    assert!(!made.forced(&made.blob, HIS, &object));
    for with in [RIGHT, WRONG] {
        let refused = made.unseal(with).unwrap_err().to_string();
        assert!(refused.contains("deleted or replaced"), "{refused}");
    }
    assert_eq!(lockouts(&made.swtpm), 0);
}

/// Nobody sets the count back. Seen failing with OWNERWRITE or AUTHWRITE among the `ATTRIBUTES` of
/// counter.rs.
#[test]
fn the_counter_is_not_rewritten() {
    let made = Made::provisioned();
    made.wrong();
    let index = made.index();
    std::fs::write(made.swtpm.file("count"), [0, 0, 0, 0, 0, 0, 0, 9]).unwrap();
    let [counter, _] = right();
    // Not even who has the PIN.
    for who in [
        "o".to_owned(),
        "p".to_owned(),
        format!("{index} -P {counter}"),
    ] {
        assert!(
            !made.does(&format!("tpm2_nvwrite {index} -C {who} -i count")),
            "{who}"
        );
        assert!(
            !made.does(&format!("tpm2_nvincrement {index} -C {who}")),
            "{who}"
        );
    }
    assert!(!made.does(&format!("tpm2_changeauth -c {index} -p {counter} {HIS}")));
    assert_eq!(made.tries().left, TRIES - 1);
    assert_eq!(made.tries().of, TRIES);
}

/// The policy under which everybody may read it is for nothing else. Seen failing with TPM_CC_NV_Write
/// for `NV_READ` in policy.rs and here. (TPM2_PolicySecret refuses a policy that does not name the
/// auth by itself: TPM_RC_MODE.)
#[test]
fn who_may_read_the_counter_may_not_pass_it() {
    let made = Made::provisioned();
    let index = made.index();
    let parts = SealedSecret::from_der(&made.blob.bytes).unwrap();
    let writer = parts.counter.unwrap().writer.as_bytes();
    std::fs::write(made.swtpm.file("writer"), writer).unwrap();
    let reader = || {
        made.must("tpm2_startauthsession --policy-session -S reader.ctx");
        made.must("tpm2_policycommandcode -S reader.ctx -L reader TPM2_CC_NV_Read");
        made.must("tpm2_policyor -S reader.ctx -l sha256:writer,reader");
    };
    std::fs::write(made.swtpm.file("count"), [0, 0, 0, 0, 0, 0, 0, 9]).unwrap();
    reader();
    assert!(made.does(&format!("tpm2_nvread {index} -P session:reader.ctx")));
    reader();
    let [_, object] = right();
    assert!(!made.forced(&made.blob, "session:reader.ctx", &object));
    reader();
    assert!(!made.does(&format!(
        "tpm2_nvwrite {index} -P session:reader.ctx -i count"
    )));
    assert_eq!(made.tries().left, TRIES);
}

/// What was on the bus when the counter was made, said again: sessions are never the same twice.
/// Seen failing with OWNERWRITE among the `ATTRIBUTES` and the owner's password session in
/// `Live::write_once`.
#[test]
fn a_recorded_writing_writes_nothing() {
    let swtpm = Swtpm::start();
    swtpm.provision();
    let proxy = Proxy::before(&swtpm);
    let provider = create(&proxy.tcti(), &[]);
    proxy.overheard();
    let secret = Secret::random(32).unwrap();
    let blob = provider.seal(&secret, &pin(RIGHT), TRIES).unwrap();
    let traffic = proxy.overheard();
    let made = Made {
        provider: create(&swtpm.tcti(), &[]),
        swtpm,
        secret,
        blob,
    };
    drop(provider);
    made.swtpm.assert_empty();
    made.wrong();
    made.swtpm.assert_empty();
    let written: Vec<_> = messages(&traffic)
        .map(|command| (command[9], made.swtpm.raw(command)[6..10] != [0; 4]))
        .collect();
    // TPM2_NV_Write, by the last byte of its code.
    assert!(
        written
            .iter()
            .any(|(code, refused)| *code == 0x37 && *refused)
    );
    made.swtpm.tool("tpm2_flushcontext", &["-t"]);
    made.swtpm.tool("tpm2_flushcontext", &["-l"]);
    // Whoever may speak to the TPM may name wrong auths: that costs tries, and gives none back.
    let Tries { left, of, .. } = made.tries();
    assert!(left < TRIES && of == TRIES, "{left} of {of}");
    made.opens();
}

/// The commands of recorded traffic: every other message.
fn messages(traffic: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = traffic;
    std::iter::from_fn(move || {
        let mut next = || {
            let len = u32::from_be_bytes(rest.get(2..6)?.try_into().unwrap()) as usize;
            let (message, after) = rest.split_at(len);
            rest = after;
            Some(message)
        };
        let command = next()?;
        next()?;
        Some(command)
    })
}

/// Parts of two blobs make none, whichever are exchanged. Seen failing without `is_sealed` in
/// `Sealed::from_blob`: a try is then counted for what is not the token's.
#[test]
fn parts_of_two_blobs_make_none() {
    let made = Made::provisioned();
    let other = made.provider.seal(&made.secret, &pin(9), 3).unwrap();
    let [a, b] = [&made.blob, &other].map(|blob| SealedSecret::from_der(&blob.bytes).unwrap());
    let mut mixtures = Vec::new();
    for swapped in 1..7 {
        let pick = |bit: u8| if swapped & bit == 0 { &a } else { &b };
        let counter = pick(1).counter.as_ref().unwrap();
        let mixed = SealedSecret {
            version: 1,
            counter: Some(Counter {
                handle: counter.handle,
                writer: counter.writer,
            }),
            public: pick(2).public,
            private: pick(4).private,
        };
        let blob = Blob {
            bytes: mixed.to_der().unwrap(),
            ..made.blob.clone()
        };
        for with in [RIGHT, WRONG, 9] {
            let refused = made.provider.unseal(&blob, &pin(with));
            assert!(
                matches!(refused, Err(Error::BadBlob)),
                "{swapped}: {refused:?}"
            );
        }
        mixtures.push(blob);
    }
    made.opens();
    assert_eq!(made.provider.tries(&other).unwrap().unwrap().left, 3);
    for blob in mixtures {
        let [counter, object] = right();
        assert!(!made.forced(&blob, &counter, &object));
    }
}

/// A public area that asks for less does not go with the private one. By the tools: devkey does not
/// even try.
#[test]
fn a_swapped_public_part_is_refused() {
    let made = Made::provisioned();
    made.forced(&made.blob, HIS, HIS);
    assert!(made.does("tpm2_load -C 0x81000001 -u sealed.pub -r sealed.priv -c sealed.ctx"));
    std::fs::write(made.swtpm.file("data"), [1; 32]).unwrap();
    made.must("tpm2_create -C 0x81000001 -i data -u easy.pub -r easy.priv -a fixedtpm|fixedparent|userwithauth|noda");
    assert!(made.does("tpm2_load -C 0x81000001 -u easy.pub -r easy.priv -c easy.ctx"));
    assert!(!made.does("tpm2_load -C 0x81000001 -u easy.pub -r sealed.priv -c easy.ctx"));
    let easy = std::fs::read(made.swtpm.file("easy.pub")).unwrap();
    let parts = SealedSecret::from_der(&made.blob.bytes).unwrap();
    for counter in [None, parts.counter] {
        let mixed = SealedSecret {
            version: 1,
            counter,
            public: OctetStringRef::new(&easy[2..]).unwrap(),
            private: parts.private,
        };
        let blob = Blob {
            bytes: mixed.to_der().unwrap(),
            ..made.blob.clone()
        };
        let refused = made.provider.unseal(&blob, &pin(RIGHT));
        assert!(matches!(refused, Err(Error::BadBlob)), "{refused:?}");
    }
    made.opens();
}

/// Nothing that was changed opens, and nothing that was changed costs a try. Seen failing with the
/// object loaded after the counter was asked in `counted`.
#[test]
fn a_changed_blob_costs_no_try() {
    let made = Made::provisioned();
    for bit in (0..made.blob.bytes.len() * 8).step_by(5) {
        let mut blob = made.blob.clone();
        blob.bytes[bit / 8] ^= 1 << (bit % 8);
        let refused = made.provider.unseal(&blob, &pin(WRONG));
        let named = matches!(refused, Err(Error::BadBlob | Error::Unsupported(_)));
        assert!(named, "bit {bit}: {refused:?}");
    }
    assert_eq!((made.tries().left, lockouts(&made.swtpm)), (TRIES, 0));
}

/// A blob is of its token: another one's opens for his PIN alone, and of its TPM. Seen failing with
/// the object loaded after the counter was asked in `counted`.
#[test]
fn a_blob_is_of_its_token_and_tpm() {
    let [one, two] = [Made::provisioned(), Made::provisioned()];
    let other = one.provider.seal(&two.secret, &pin(9), 3).unwrap();
    let refused = one.provider.unseal(&other, &pin(RIGHT));
    let left = matches!(
        refused,
        Err(Error::WrongPin {
            tries_left: Some(2)
        })
    );
    assert!(left, "{refused:?}");
    for with in [RIGHT, WRONG] {
        let refused = two.provider.unseal(&one.blob, &pin(with));
        assert!(matches!(refused, Err(Error::BadBlob)), "{refused:?}");
    }
    for made in [one, two] {
        assert_eq!((made.tries().left, lockouts(&made.swtpm)), (TRIES, 0));
        made.opens();
    }
}
