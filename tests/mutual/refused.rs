//! Peers that must be refused: certified by another CA, expired, revoked. As users they meet a good host,
//! as hosts a good user, and the side that refuses says by which check.

use crate::common::{Backend, Device};
use crate::lab::{Authority, Lab, Peer, Role};
use crate::ssh::Gate;
use crate::tls::{Door, Program, Trust, came_in};

/// What a program says of a certificate that another CA issued, of one that has expired, and of one that
/// was revoked: as who was asked, and as who asks.
struct Words {
    program: Program,
    of_user: [&'static str; 3],
    of_host: [&'static str; 3],
}

const WORDS: [Words; 3] = [
    Words {
        program: Program::OpenSsl,
        of_user: [
            "unable to get local issuer certificate",
            "certificate has expired",
            "certificate revoked",
        ],
        of_host: [
            "unable to get local issuer certificate",
            "certificate has expired",
            "certificate revoked",
        ],
    },
    Words {
        program: Program::Web,
        of_user: [
            "unable to verify the first certificate",
            "certificate has expired",
            "certificate revoked",
        ],
        of_host: [
            "unable to get local issuer certificate",
            "certificate has expired",
            "certificate revoked",
        ],
    },
    Words {
        program: Program::GnuTls,
        of_user: ["issuer is unknown", "expired", "revoked"],
        of_host: ["issuer is unknown", "expired", "revoked"],
    },
];

/// A peer for each reason.
struct Bad {
    peers: [Peer; 3],
    /// The CA that certified the first.
    _other: Authority,
}

impl Bad {
    fn of(lab: &Lab) -> Self {
        let other = Authority::new();
        let certified = |by: &Authority, days, role: &[Role]| {
            let mut peer = Peer::on(Device::new(Backend::File));
            for role in role {
                by.certify_then(&mut peer, *role, days);
            }
            peer
        };
        let both = &[Role::User, Role::Host];
        let peers = [
            certified(&other, 0, both),
            certified(&lab.authority, 8, both),
            certified(&lab.authority, 0, both),
        ];
        lab.authority.revoke(&peers[2]);
        Bad {
            peers,
            _other: other,
        }
    }
}

/// Seen to fail without the revocation, and with a certificate of today for the expired one.
#[test]
fn tls_refuses_by_the_check_that_is_meant() {
    let lab = Lab::turn();
    let bad = Bad::of(&lab);
    let trust = Trust::of(&lab.authority);
    for words in WORDS {
        let program = words.program;
        for (at, peer) in bad.peers.iter().enumerate() {
            let door = Door::open(&lab.hosts[0], program, &trust);
            let output = door.knock(peer, program, &trust);
            assert!(!came_in(&output), "{program:?}: {output}");
            door.wait_for(words.of_user[at]);
            let door = Door::open(peer, program, &trust);
            let output = door.knock(&lab.users[0], program, &trust);
            assert!(!came_in(&output), "{program:?}: {output}");
            output.says(&[words.of_host[at]]);
        }
    }
}

/// Likewise.
#[test]
fn ssh_refuses_by_the_check_that_is_meant() {
    let lab = Lab::turn();
    let bad = Bad::of(&lab);
    let krl = lab.authority.krl();
    let of_user = [
        "CA ECDSA SHA256:",
        "Certificate invalid: expired",
        "revoked by file",
    ];
    let of_host = [
        "No matching CA found",
        "Certificate invalid: expired",
        "revoked by file",
    ];
    for (at, peer) in bad.peers.iter().enumerate() {
        let gate = Gate::open(&lab.hosts[0], &lab.authority, Some(&krl));
        let output = gate.knock(peer, &lab.authority, Some(&krl));
        output.says(&["Permission denied (publickey)"]);
        gate.wait_for(of_user[at]);
        if at == 0 {
            gate.wait_for("is not listed in");
        }
        let gate = Gate::open(peer, &lab.authority, Some(&krl));
        let output = gate.knock(&lab.users[0], &lab.authority, Some(&krl));
        output.says(&[of_host[at], "Host key verification failed"]);
    }
}
