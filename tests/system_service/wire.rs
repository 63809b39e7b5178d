//! What is said to the service, in bytes.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::thread::{Gid, Uid, set_thread_res_gid, set_thread_res_uid};

/// Hello{protocol: 2}.
pub(crate) const HELLO: &[u8] = &[2, 0, 0, 0, 0, 2];
/// Longer than any deadline of the service.
const AT_LAST: Duration = Duration::from_secs(30);

pub(crate) fn message(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes(), body].concat()
}

/// Find{name}.
pub(crate) fn find(name: &str) -> Vec<u8> {
    message(&[&[18, name.len() as u8], name.as_bytes()].concat())
}

/// Sign{token: 0, key, scheme: Ecdsa, input: 32 bytes}.
pub(crate) fn sign(id: &str) -> Vec<u8> {
    let key = [&[id.len() as u8], id.as_bytes()].concat();
    message(&[&[2, 0], key.as_slice(), &[0, 32], &[7; 32]].concat())
}

/// Rename{token: 0, object, names: {label, no ID}}.
pub(crate) fn rename(id: &str, label: &str) -> Vec<u8> {
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    message(&[&[9, 0], text(id).as_slice(), &[1], &text(label), &[0]].concat())
}

/// Rename{token: 0, object, names: {no label, the ID in hexadecimal}}.
pub(crate) fn give_id(id: &str, hex: &str) -> Vec<u8> {
    let new = base16ct::lower::decode_vec(hex).unwrap();
    let object = [&[id.len() as u8], id.as_bytes()].concat();
    message(&[&[9, 0], object.as_slice(), &[0, 1, new.len() as u8], &new].concat())
}

pub(crate) fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(AT_LAST)).unwrap();
    stream.set_write_timeout(Some(AT_LAST)).unwrap();
    stream
}

/// A connection that was greeted.
pub(crate) fn greet(socket: &Path) -> UnixStream {
    let mut stream = connect(socket);
    let welcome = ask(&mut stream, HELLO).unwrap();
    assert_eq!(welcome[..3], [0, 0, 2], "no welcome");
    stream
}

/// The answer's body; `None` where the connection is ended instead.
pub(crate) fn ask(stream: &mut UnixStream, request: &[u8]) -> Option<Vec<u8>> {
    // It may have been closed.
    let _ = stream.write_all(request);
    read(stream)
}

pub(crate) fn read(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    let ended = |e: &std::io::Error| {
        matches!(
            e.kind(),
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
        )
    };
    if let Err(e) = stream.read_exact(&mut length) {
        assert!(ended(&e), "neither answer nor end: {e}");
        return None;
    }
    let mut body = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut body).unwrap();
    Some(body)
}

/// Connects as another user: the socket's peer is the thread that connects.
pub(crate) fn as_user<T: Send>(user: u32, then: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let (group, user) = (Gid::from_raw(user), Uid::from_raw(user));
            set_thread_res_gid(group, group, group).unwrap();
            set_thread_res_uid(user, user, user).unwrap();
            then()
        });
        thread.join().unwrap()
    })
}
