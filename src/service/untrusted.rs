//! What a peer may send, for [`untrusted`](crate::untrusted).

use serde::Serialize;

use super::frame::Frame;
use super::protocol::{MAX_REQUEST, MAX_RESPONSE, Request, Response};
use super::server;
use crate::error::{Error, Result};

/// The body of a request. What is logged of it is one line.
pub(crate) fn request(bytes: &[u8]) -> Result<()> {
    let Some(frame) = arrived(bytes, MAX_REQUEST) else {
        return Ok(());
    };
    let Ok(request) = frame.decode::<Request<'_>>() else {
        return Ok(());
    };
    let line = server::line(&request);
    if line.contains(char::is_control) || line.len() > 4096 {
        return Err(Error::Internal("no line of a log".to_owned()));
    }
    let first = said(&request, MAX_REQUEST)?;
    let frame = arrived(&first, MAX_REQUEST).ok_or_else(otherwise)?;
    let second = said(&frame.decode::<Request<'_>>()?, MAX_REQUEST)?;
    check(first == second)
}

/// The body of a response.
pub(crate) fn response(bytes: &[u8]) -> Result<()> {
    let Some(frame) = arrived(bytes, MAX_RESPONSE) else {
        return Ok(());
    };
    let Ok(response) = frame.decode::<Response>() else {
        return Ok(());
    };
    if let Err(error) = &response {
        let _ = error.to_string();
    }
    let first = said(&response, MAX_RESPONSE)?;
    let frame = arrived(&first, MAX_RESPONSE).ok_or_else(otherwise)?;
    let second = said(&frame.decode::<Response>()?, MAX_RESPONSE)?;
    check(first == second)
}

/// Bytes as a socket gives them, in pieces of the size that the first one says, up to what ends
/// the connection.
pub(crate) fn stream(bytes: &[u8]) -> Result<()> {
    let Some((size, mut rest)) = bytes.split_first() else {
        return Ok(());
    };
    let mut frame = Frame::new(MAX_REQUEST);
    while !rest.is_empty() {
        let room = frame.spare();
        let count = (usize::from(*size) + 1).min(rest.len()).min(room.len());
        if count == 0 {
            return Err(Error::Internal("no room for the rest".to_owned()));
        }
        let (piece, after) = rest.split_at(count);
        room.iter_mut()
            .zip(piece)
            .for_each(|(to, from)| *to = *from);
        rest = after;
        match frame.arrived(count) {
            Err(_) => return Ok(()),
            Ok(false) => {}
            Ok(true) => {
                let _ = frame.decode::<Request<'_>>();
                frame.clear();
            }
        }
    }
    Ok(())
}

/// A message that came whole.
fn arrived(body: &[u8], limit: usize) -> Option<Frame> {
    let mut frame = Frame::new(limit);
    let length = u32::try_from(body.len()).ok()?.to_le_bytes();
    let mut rest = [&length, body].concat();
    while !rest.is_empty() {
        let room = frame.spare();
        let count = room.len().min(rest.len());
        let after = rest.split_off(count);
        room.iter_mut()
            .zip(&rest)
            .for_each(|(to, from)| *to = *from);
        rest = after;
        frame.arrived(count).ok()?;
    }
    Some(frame)
}

/// A message's body. What was read says the same when it is said and read again.
fn said(message: &impl Serialize, limit: usize) -> Result<Vec<u8>> {
    let mut frame = Frame::new(limit);
    let bytes = frame.encode(message)?;
    Ok(bytes.get(size_of::<u32>()..).unwrap_or_default().to_vec())
}

fn check(same: bool) -> Result<()> {
    match same {
        true => Ok(()),
        false => Err(otherwise()),
    }
}

fn otherwise() -> Error {
    Error::Internal("said otherwise".to_owned())
}
