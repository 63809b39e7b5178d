//! What a request is about: the right that it takes, and the line that it leaves in the log.

use std::borrow::Cow;
use std::fmt;

use super::super::protocol::Request;
use super::super::rights::Right;
use crate::error::Error;
use crate::key::{DecryptScheme, KeyKind, Scheme};
use crate::store::{ObjectId, Role};

/// A request that takes a right or leaves a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Deed<'r> {
    /// What is done.
    pub(super) what: &'static str,
    /// The right that it takes; `None` where the sight of the token is enough.
    pub(super) right: Option<Right>,
    /// The token's number.
    pub(super) token: Option<u32>,
    /// The object.
    pub(super) object: Option<Cow<'r, ObjectId>>,
    /// The label of the key, where it is known before the object is looked up.
    pub(super) label: Option<Cow<'r, str>>,
    /// `CKA_ID` of the key, likewise.
    pub(super) cka_id: Option<Cow<'r, [u8]>>,
    /// The label that the object is to get.
    pub(super) becomes: Option<Cow<'r, str>>,
    /// The `CKA_ID` that it is to get.
    pub(super) becomes_id: Option<Cow<'r, [u8]>>,
    /// The token that is to be made.
    pub(super) makes: Option<Cow<'r, str>>,
    /// How: scheme, kind or role. Never what is signed, decrypted or tried.
    how: Option<How>,
}

/// How something is done, as the log has it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Sign(Scheme),
    Decrypt(DecryptScheme),
    Kind(KeyKind),
    Role(Role),
}

impl<'r> Deed<'r> {
    fn new(what: &'static str, right: Option<Right>, token: u32) -> Self {
        Deed {
            what,
            right,
            token: Some(token),
            object: None,
            label: None,
            cka_id: None,
            becomes: None,
            becomes_id: None,
            makes: None,
            how: None,
        }
    }

    fn on(self, object: &'r ObjectId) -> Self {
        Deed {
            object: Some(Cow::Borrowed(object)),
            ..self
        }
    }

    fn by(self, how: How) -> Self {
        Deed {
            how: Some(how),
            ..self
        }
    }

    /// What a request is about; `None` for those that do nothing.
    pub(super) fn of(request: &'r Request<'_>) -> Option<Self> {
        let using = |what, token: &u32| Deed::new(what, Some(Right::Use), *token);
        let managing = |what, token: &u32| Deed::new(what, Some(Right::Manage), *token);
        Some(match request {
            Request::Hello { .. }
            | Request::Open { .. }
            | Request::Find { .. }
            | Request::Logout { .. }
            | Request::Create { .. }
            | Request::Tries { .. } => return None,
            Request::Sign {
                token, key, scheme, ..
            } => using("sign", token).on(key).by(How::Sign(*scheme)),
            Request::Agree { token, key, .. } => using("agree", token).on(key),
            Request::Decrypt {
                token, key, scheme, ..
            } => using("decrypt", token).on(key).by(How::Decrypt(*scheme)),
            Request::Attest { token, .. } => managing("attest", token),
            Request::Certify { token, key, .. } => managing("certify", token).on(key),
            Request::Generate { token, request } => Deed {
                label: request.names.label.as_deref().map(Cow::Borrowed),
                cka_id: request.names.cka_id.as_deref().map(Cow::Borrowed),
                ..managing("generate", token).by(How::Kind(request.kind))
            },
            Request::AddCertificate { token, .. } => managing("add-certificate", token),
            Request::ReplaceCertificates { token, .. } => managing("replace-certificates", token),
            Request::Rename {
                token,
                object,
                names,
            } => Deed {
                becomes: names.label.as_deref().map(Cow::Borrowed),
                becomes_id: names.cka_id.as_deref().map(Cow::Borrowed),
                ..managing("rename", token).on(object)
            },
            Request::Delete { token, object } => managing("delete", token).on(object),
            Request::Login {
                token,
                role: Role::User,
                ..
            } => Deed::new("login", None, *token).by(How::Role(Role::User)),
            Request::Login { token, role, .. } => managing("login", token).by(How::Role(*role)),
            Request::SetPin { token, role, .. } => managing("set-pin", token).by(How::Role(*role)),
            Request::InitPin { token, .. } => managing("init-pin", token),
            Request::Reset { token, .. } => managing("reset", token),
            Request::Make { wanted, .. } => Deed {
                token: None,
                makes: Some(Cow::Borrowed(&wanted.name)),
                ..Deed::new("make", None, 0)
            },
        })
    }

    /// What rules may call the key: its label, its id in the store, its `CKA_ID` as `devkey key list` has it.
    pub(super) fn names(&self) -> Vec<String> {
        let label = self.label.as_deref().map(str::to_owned);
        let id = self.object.as_deref().map(|id| id.as_str().to_owned());
        let cka_id = self.cka_id.as_deref().map(base16ct::lower::encode_string);
        [label, id, cka_id].into_iter().flatten().collect()
    }

    /// The names that the key would have no more, and those that it would get.
    pub(super) fn moves(&self) -> Vec<String> {
        let mut moved = Vec::new();
        if let (Some(from), Some(to)) = (&self.label, &self.becomes)
            && from != to
        {
            moved.extend([from, to].map(|label| label.as_ref().to_owned()));
        }
        if let (Some(from), Some(to)) = (&self.cka_id, &self.becomes_id)
            && from != to
        {
            moved.extend([from, to].map(|id| base16ct::lower::encode_string(id)));
        }
        moved
    }

    /// The same, with the names that it borrowed.
    pub(super) fn into_owned(self) -> Deed<'static> {
        let owned = |name: Option<Cow<'_, str>>| name.map(|name| Cow::Owned(name.into_owned()));
        let bytes = |id: Option<Cow<'_, [u8]>>| id.map(|id| Cow::Owned(id.into_owned()));
        Deed {
            what: self.what,
            right: self.right,
            token: self.token,
            object: self.object.map(|object| Cow::Owned(object.into_owned())),
            label: owned(self.label),
            cka_id: bytes(self.cka_id),
            becomes: owned(self.becomes),
            becomes_id: bytes(self.becomes_id),
            makes: owned(self.makes),
            how: self.how,
        }
    }

    /// The refusal of what there is no right to.
    pub(super) fn refusal(&self, right: Right, token: &str, dir: &std::path::Path) -> Error {
        match right {
            Right::Use => Error::NotPermitted(format!(
                "{} by you: `use` of token {token} in the key service's devkey.toml does not name \
                 you nor a group of yours",
                self.what
            )),
            Right::Manage => Error::Refused {
                path: dir.to_owned(),
                reason: format!(
                    "you may not {} there: `manage` of token {token} in the key service's \
                     devkey.toml does not name you nor a group of yours",
                    self.what
                ),
            },
        }
    }
}

impl fmt::Display for Deed<'_> {
    /// The part of the line that says what, after the token's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "do={}", self.what)?;
        if let Some(label) = &self.label {
            write!(f, " key={:?}", cut(label))?;
        }
        if let Some(label) = &self.becomes {
            write!(f, " to={:?}", cut(label))?;
        }
        if let Some(object) = &self.object {
            write!(f, " id={:?}", object.as_str())?;
        }
        match self.how {
            Some(how) => write!(f, " by=\"{how:?}\""),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            How::Sign(scheme) => scheme.fmt(f),
            How::Decrypt(scheme) => scheme.fmt(f),
            How::Kind(kind) => kind.fmt(f),
            How::Role(role) => role.fmt(f),
        }
    }
}

/// As much as one line takes of what a client chose. Longer than any name; the reasons of refusals
/// repeat names.
pub(super) fn cut(text: &str) -> &str {
    const MOST: usize = 512;
    text.get(..text.floor_char_boundary(MOST)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen to fail with `text` as the whole of `cut`, and with `MOST` for the boundary.
    #[test]
    fn a_line_is_no_longer_than_it_must_be() {
        for long in [
            "x".repeat(1 << 20),
            "ü".repeat(1 << 20),
            "x".to_owned() + &"€".repeat(999),
        ] {
            let cut = cut(&long);
            assert!((500..=512).contains(&cut.len()) && long.starts_with(cut));
        }
        assert_eq!([cut(""), cut("key")], ["", "key"]);
    }
}
