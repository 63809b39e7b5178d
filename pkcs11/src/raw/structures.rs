//! Templates and mechanisms: structures of the caller with pointers inside.

use std::ffi::c_void;

use cryptoki_sys::{CK_ATTRIBUTE, CK_MECHANISM, CK_UNAVAILABLE_INFORMATION};

use super::{Plain, Ptr, Ulong};
use crate::rv::{Result, Rv};

/// Most attributes in a template; the longest that a client was seen to send has 110.
const MAX_ATTRIBUTES: Ulong = 4096;
/// Longest value of an attribute in a template, in bytes: a certificate has a few thousand.
const MAX_VALUE: Ulong = 1 << 20;

/// One attribute of a template, in the caller's memory.
#[derive(Clone, Copy)]
pub(crate) struct Attribute<'c> {
    place: Ptr<'c, CK_ATTRIBUTE>,
    copy: CK_ATTRIBUTE,
}

/// The attributes of a template; NULL is fine where there are none.
pub(crate) fn attributes<'c>(
    template: Ptr<'c, CK_ATTRIBUTE>,
    count: Ulong,
) -> Result<Vec<Attribute<'c>>> {
    if count > MAX_ATTRIBUTES {
        return Err(Rv::ARGUMENTS_BAD);
    }
    let attribute = |index| {
        // SAFETY: within the array that the caller vouches for; wrapping, for NULL is not one.
        let place = template.of(template.at.wrapping_add(index));
        let copy = match template.is_null() {
            true => Err(Rv::ARGUMENTS_BAD),
            false => place.read(),
        };
        Ok(Attribute { place, copy: copy? })
    };
    (0..count as usize).map(attribute).collect()
}

impl<'c> Attribute<'c> {
    /// Its type.
    pub(crate) fn kind(&self) -> Ulong {
        self.copy.type_
    }

    /// The value that the caller gives.
    pub(crate) fn value(&self) -> Result<&'c [u8]> {
        if self.copy.ulValueLen > MAX_VALUE {
            return Err(Rv::ATTRIBUTE_VALUE_INVALID);
        }
        let value: Ptr<'c, u8> = self.place.of(self.copy.pValue.cast());
        let value = value.slice(self.copy.ulValueLen);
        value.map_err(|_| Rv::ATTRIBUTE_VALUE_INVALID)
    }

    /// Gives the caller a value, or why there is none (PKCS#11 3.0 §5.7.5, C_GetAttributeValue).
    pub(crate) fn answer(&self, value: Result<&[u8]>) -> Result<()> {
        // CK_UNAVAILABLE_INFORMATION, left there by an earlier answer, is not a length.
        let room = isize::try_from(self.copy.ulValueLen).unwrap_or(0) as usize;
        let to: Ptr<'c, u8> = self.place.of(self.copy.pValue.cast());
        let (length, result) = match value {
            Ok(value) if to.is_null() => (value.len() as Ulong, Ok(())),
            Ok(value) if value.len() > room => {
                (CK_UNAVAILABLE_INFORMATION, Err(Rv::BUFFER_TOO_SMALL))
            }
            Ok(value) => {
                to.put(0, value)?;
                (value.len() as Ulong, Ok(()))
            }
            Err(rv) => (CK_UNAVAILABLE_INFORMATION, Err(rv)),
        };
        let mut copy = self.copy;
        copy.ulValueLen = length;
        self.place.write(copy)?;
        result
    }
}

/// A mechanism with its parameter, in the caller's memory.
#[derive(Clone, Copy)]
pub(crate) struct Mechanism<'c> {
    /// Its type.
    pub(crate) kind: Ulong,
    parameter: Ptr<'c, u8>,
    length: Ulong,
}

impl<'c> Mechanism<'c> {
    /// Reads the structure, not the parameter.
    pub(crate) fn read(from: Ptr<'c, CK_MECHANISM>) -> Result<Self> {
        let raw = from.read()?;
        Ok(Mechanism {
            kind: raw.mechanism,
            parameter: from.of(raw.pParameter.cast()),
            length: raw.ulParameterLen,
        })
    }

    /// Whether there is no parameter.
    pub(crate) fn is_bare(&self) -> bool {
        self.length == 0
    }

    /// The parameter, which has exactly the size of `T`.
    pub(crate) fn parameter<T: Plain>(&self) -> Result<T> {
        match usize::try_from(self.length) {
            Ok(length) if length == size_of::<T>() => self.parameter.cast().read(),
            _ => Err(Rv::MECHANISM_PARAM_INVALID),
        }
        .map_err(|_| Rv::MECHANISM_PARAM_INVALID)
    }

    /// Bytes that a field of the parameter points to.
    pub(crate) fn bytes(&self, field: *mut c_void, length: Ulong) -> Result<&'c [u8]> {
        if length > MAX_VALUE {
            return Err(Rv::MECHANISM_PARAM_INVALID);
        }
        let bytes: Ptr<'c, u8> = self.parameter.of(field.cast());
        let bytes = bytes.slice(length);
        bytes.map_err(|_| Rv::MECHANISM_PARAM_INVALID)
    }
}

#[cfg(test)]
impl Mechanism<'_> {
    /// A mechanism with a PSS parameter for a hash as (hash, `CKM_`, `CKG_`), or with none.
    pub(crate) fn with_pss<T>(
        kind: Ulong,
        hash: Option<(devkey::key::Hash, Ulong, Ulong)>,
        then: impl FnOnce(&Mechanism<'_>) -> T,
    ) -> T {
        let parameter = hash.map(
            |(hash, mechanism, mgf)| cryptoki_sys::CK_RSA_PKCS_PSS_PARAMS {
                hashAlg: mechanism,
                mgf,
                sLen: hash.size() as Ulong,
            },
        );
        let at = parameter
            .as_ref()
            .map_or(std::ptr::null(), std::ptr::from_ref);
        let length = parameter.as_ref().map_or(0, size_of_val);
        then(&Mechanism {
            kind,
            parameter: Ptr {
                at: at.cast_mut().cast(),
                call: std::marker::PhantomData,
            },
            length: length as Ulong,
        })
    }
}
