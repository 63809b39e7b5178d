//! Many clients at once.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use devkey::key::Scheme;
use devkey::service::{Link, RemoteToken, TokenPlace};
use devkey::store::Store;
use devkey::token::Token;

use crate::machine::{KEEPER, Machine};

const CLIENTS: usize = 64;
const TIME: Duration = Duration::from_secs(20);

/// A token of a machine over a connection of its own.
pub(crate) fn remote(machine: &Machine, token: &str, patience: Duration) -> RemoteToken {
    let link = Link::to(machine.socket(), Some(KEEPER)).with_patience(patience);
    let store = Store::kept(&machine.path("lib/devkey").join(token), Some(KEEPER)).unwrap();
    RemoteToken::named(store, token, &TokenPlace::default(), Arc::new(link))
}

/// Signs once and checks the signature.
pub(crate) fn sign(token: &dyn Token) -> devkey::Result<()> {
    let key = token.store().list()?.keys[0].clone();
    let signature = token.sign(&key, Scheme::Ecdsa, &[7; 32])?;
    key.public.verify(Scheme::Ecdsa, &[7; 32], &signature)
}

/// Seen to fail with the descriptors of connections kept by `serve`.
#[test]
fn many_clients_are_served_alike() {
    let machine = Machine::new("");
    let connected = || remote(&machine, "sys", Duration::from_secs(75));
    sign(&connected()).unwrap();
    thread::sleep(Duration::from_millis(200));
    let before = machine.size();
    let counts: Vec<u32> = thread::scope(|scope| {
        let until = Instant::now() + TIME;
        let client = |_| {
            scope.spawn(move || {
                let (token, mut count) = (connected(), 0);
                while Instant::now() < until {
                    sign(&token).unwrap();
                    count += 1;
                }
                count
            })
        };
        let all: Vec<_> = (0..CLIENTS).map(client).collect();
        let middle = {
            thread::sleep(TIME / 2);
            machine.size()
        };
        let counts = all.into_iter().map(|one| one.join().unwrap()).collect();
        assert!(middle[0] <= before[0] + 3 * CLIENTS && middle[1] <= before[1] + CLIENTS);
        counts
    });
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    println!(
        "{} signatures in {TIME:?}: {least} to {most} a client",
        counts.iter().sum::<u32>()
    );
    // How evenly is for benches/service.rs to say: here, nobody is forgotten.
    assert!(*most <= 10 * *least, "{counts:?}");
    let begun = Instant::now();
    let more = |now: [usize; 3]| now[0] > before[0] || now[1] > before[1];
    while more(machine.size()) && begun.elapsed() < TIME {
        thread::sleep(Duration::from_millis(50));
    }
    let after = machine.size();
    println!("descriptors, threads, KiB: {before:?}, then {after:?}");
    assert!(!more(after));
    assert!(after[2] < before[2] + 16 * 1024);
}
