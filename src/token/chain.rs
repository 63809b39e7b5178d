//! Chains of certificates: one file each, so that one rename replaces all of it.

use crate::error::{Error, Result};
use crate::store::{Certificate, Listing, ObjectId, Writer};

/// Puts `chain` (DER) in the place of `old`: over the file of the first of them, whose name and label
/// stay; the files of the others go only when the new one is on the disk.
pub(super) fn replace(
    writer: &Writer,
    known: &Listing,
    old: &[ObjectId],
    chain: &[Vec<u8>],
) -> Result<Option<ObjectId>> {
    let files = files(known, old)?;
    if chain.is_empty() {
        files
            .iter()
            .try_for_each(|file| writer.remove_chain(&file.id))?;
        return Ok(None);
    }
    let id = match files.first() {
        Some(first) => first.id.clone(),
        None => ObjectId::random_certificate()?,
    };
    let mut made = Vec::new();
    for der in chain {
        made.push(Certificate::from_der(id.clone(), der)?);
    }
    if let Some(leaf) = made.first_mut() {
        if known.key_of(leaf).is_none() {
            return Err(Error::input("the certificate is for no key of the token"));
        }
        leaf.label = files.first().and_then(|first| first.label.clone());
    }
    writer.put_chain(&id, &made, !files.is_empty())?;
    files
        .iter()
        .skip(1)
        .try_for_each(|file| writer.remove_chain(&file.id))?;
    Ok(Some(id))
}

/// The first certificate of each file that holds one of `old`.
fn files<'l>(known: &'l Listing, old: &[ObjectId]) -> Result<Vec<&'l Certificate>> {
    let mut files: Vec<&Certificate> = Vec::new();
    for id in old {
        let all = known.certificates.iter().map(AsRef::as_ref);
        let mut inside = all.filter(|c: &&Certificate| c.id.same_file(id));
        let first = inside.clone().next();
        let first = first.ok_or_else(|| Error::NotFound(format!("certificate {id}")))?;
        if let Some(other) = inside.find(|c| known.key_of(c).is_some() && !old.contains(&c.id)) {
            return Err(Error::input(format!(
                "certificate {} of another key is in the same file; give each a file of its own",
                other.id
            )));
        }
        if !files.iter().any(|file| file.id == first.id) {
            files.push(first);
        }
    }
    Ok(files)
}
