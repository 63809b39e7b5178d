//! The boot-time window overwritten after its one reading, so that who becomes root later cannot
//! read it again.

use rustix::io::{self, Errno};

use super::copies::Enrolled;
use super::node::{Node, Wanted, failed, fault};
use super::source::Source;
use super::{reconstruct, window};
use crate::error::{Error, Result};

/// Overwrites the window of an enrolment by random bytes, and makes sure that it has gone.
///
/// # Errors
/// [`Error::DeviceError`] where it cannot be overwritten or does not stay so: the setting is a promise
/// to the operator, so that the root is not given out then.
pub(super) fn scrub(source: &Source, enrolled: &Enrolled) -> Result<()> {
    let (options, place) = (source.options.clone(), window(enrolled)?);
    let path = options.device.clone();
    source.patience.run(&path, options.timeout, move || {
        let wanted = Wanted {
            file: options.allow_file,
            write: true,
        };
        let node = Node::open(&options.device, wanted, options.timeout)?;
        let mut noise = vec![0; place.most];
        aws_lc_rs::rand::fill(&mut noise)?;
        write_at(&node, &noise, place.offset)
    })?;
    match source
        .read(place)
        .and_then(|now| reconstruct(enrolled, &now))
    {
        Err(Error::NotReproduced) => Ok(()),
        Err(e) => Err(e),
        Ok(_) => Err(failed(
            &path,
            "it was overwritten and still gives the key; scrub = \"yes\" is for windows that keep \
             what is written to them",
        )),
    }
}

fn write_at(node: &Node, noise: &[u8], offset: usize) -> Result<()> {
    let mut done = 0;
    while let Some(rest) = noise.get(done..).filter(|rest| !rest.is_empty()) {
        match io::pwrite(node, rest, (offset + done) as u64) {
            Ok(0) => return Err(failed(node.path(), "it cannot be overwritten")),
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(fault(node.path(), e)),
        }
    }
    Ok(())
}
