//! A session: its search, and one operation of each kind at a time.

use std::sync::Arc;
use std::vec::IntoIter;

use devkey::store::{KeyRecord, ObjectId};

use crate::attr;
use crate::mech;
use crate::object::{Body, Class, Object, SecretKey};
pub(crate) use crate::op::Cancelled;
use crate::op::{Decrypting, Signing, Verifying};
use crate::raw::{Answer, Attribute, Mechanism, Room, Ulong};
use crate::rv::{Result, Rv};
use crate::slot::Slot;
use crate::template::{NewObject, Template};

/// A session.
pub(crate) struct Session {
    /// Its handle.
    pub(crate) handle: Ulong,
    /// The slot that it is with.
    pub(crate) slot: Arc<Slot>,
    /// Whether it may change the token.
    pub(crate) writable: bool,
    /// How many logins had ended when its operations began.
    ended: u64,
    search: Option<IntoIter<Ulong>>,
    signing: Option<Signing>,
    verifying: Option<Verifying>,
    decrypting: Option<Decrypting>,
}

impl Session {
    /// A session without any operation.
    pub(crate) fn new(handle: Ulong, slot: Arc<Slot>, writable: bool) -> Self {
        Session {
            handle,
            ended: slot.ended(),
            slot,
            writable,
            search: None,
            signing: None,
            verifying: None,
            decrypting: None,
        }
    }

    /// Ends what began before a logout. Gives the number of logins that have ended.
    pub(crate) fn end_what_was_before(&mut self) -> u64 {
        let ended = self.slot.ended();
        if self.ended != ended {
            self.cancel(Cancelled::ALL);
            self.ended = ended;
        }
        ended
    }

    /// C_SessionCancel.
    pub(crate) fn cancel(&mut self, what: Cancelled) {
        self.search.take_if(|_| what.search);
        self.signing.take_if(|_| what.sign);
        self.verifying.take_if(|_| what.verify);
        self.decrypting.take_if(|_| what.decrypt);
    }

    /// C_FindObjectsInit. A class or attribute that nobody has finds nothing.
    pub(crate) fn find_init(&mut self, template: &Template<'_>) -> Result<()> {
        if self.search.is_some() {
            return Err(Rv::OPERATION_ACTIVE);
        }
        let all = self.slot.fresh_objects()?.all();
        let fits = |(_, object): &(Ulong, Arc<Object>)| attr::matches(object, template.pairs());
        let found: Vec<Ulong> = all
            .into_iter()
            .filter(fits)
            .map(|(handle, _)| handle)
            .collect();
        self.search = Some(found.into_iter());
        Ok(())
    }

    /// C_FindObjects.
    pub(crate) fn find(&mut self, most: usize) -> Result<Vec<Ulong>> {
        let search = self.search.as_mut().ok_or(Rv::OPERATION_NOT_INITIALIZED)?;
        Ok(search.take(most).collect())
    }

    /// C_FindObjectsFinal.
    pub(crate) fn find_final(&mut self) -> Result<()> {
        let ended = self.search.take();
        ended.map(|_| ()).ok_or(Rv::OPERATION_NOT_INITIALIZED)
    }

    /// C_GetAttributeValue: every attribute is answered, whatever the others are.
    pub(crate) fn attributes(&self, object: Ulong, template: &[Attribute<'_>]) -> Result<()> {
        let object = self.slot.objects().get(object)?;
        let answers = template.iter().map(|attribute| {
            let value = attr::value(&object, attribute.kind());
            attribute.answer(value.as_deref().map_err(|rv| *rv))
        });
        answers.fold(Ok(()), Result::and)
    }

    /// C_SetAttributeValue: label and ID of what is on the token, for both halves of a pair.
    pub(crate) fn set_attributes(&self, object: Ulong, template: &Template<'_>) -> Result<()> {
        let object = self.slot.objects().get(object)?;
        let id = object.stored().ok_or(Rv::ACTION_PROHIBITED)?;
        self.writable()?;
        let names = template.new_names(&object)?;
        let changed = self.slot.token()?.rename(id, &names);
        changed.map_err(Rv::of_object)?;
        self.slot.fresh_objects().map(|_| ())
    }

    /// C_CreateObject.
    pub(crate) fn create(&self, template: &Template<'_>) -> Result<Ulong> {
        match template.new_object()? {
            NewObject::Certificate(request) => {
                self.writable()?;
                let made = self.slot.token()?.add_certificate(&request);
                self.made(Class::Certificate, &made.map_err(Rv::of_write)?.id)
            }
            NewObject::PublicKey(key, names) => {
                let id = names.cka_id.unwrap_or_else(|| key.id());
                self.add(names.label, id, Body::Foreign(key))
            }
        }
    }

    /// C_DestroyObject. The public half of a pair goes with the private one and not alone.
    pub(crate) fn destroy(&self, handle: Ulong) -> Result<()> {
        let object = self.slot.objects().get(handle)?;
        if let Body::Public(_) = object.body {
            return Err(Rv::ACTION_PROHIBITED);
        }
        let Some(id) = object.stored() else {
            self.slot.objects().remove(handle);
            return Ok(());
        };
        self.writable()?;
        let gone = self.slot.token()?.delete(id);
        gone.map_err(Rv::of_object)?;
        self.slot.fresh_objects().map(|_| ())
    }

    /// C_GenerateKeyPair: the handles of the public and the private key.
    pub(crate) fn generate(
        &self,
        mechanism: &Mechanism<'_>,
        public: &Template<'_>,
        private: &Template<'_>,
    ) -> Result<(Ulong, Ulong)> {
        let request = self.slot.capable(|capabilities| {
            let pairs = mech::generation(mechanism, capabilities)?;
            Template::key_pair(pairs, public, private, capabilities)
        })?;
        self.writable()?;
        let made = self.slot.token()?.generate(&request);
        let id = made.map_err(Rv::of_write)?.id;
        Ok((
            self.made(Class::Public, &id)?,
            self.made(Class::Private, &id)?,
        ))
    }

    /// C_DeriveKey. A shorter length keeps the end of the secret (PKCS#11 3.0 §6.3.17).
    pub(crate) fn derive(
        &self,
        mechanism: &Mechanism<'_>,
        base: Ulong,
        template: &Template<'_>,
    ) -> Result<Ulong> {
        let record = self.private(base)?;
        let kind = record.public.kind();
        let peer = self.slot.capable(|c| mech::agreement(mechanism, c, kind))?;
        if !record.usage.agree {
            return Err(Rv::KEY_FUNCTION_NOT_PERMITTED);
        }
        let wanted = template.new_secret()?;
        let size = kind.bits() / 8;
        let length = wanted.length.unwrap_or(size);
        if length == 0 || length > size {
            return Err(Rv::KEY_SIZE_RANGE);
        }
        let agreed = self.slot.token()?.agree(&record, &peer);
        let mut value = agreed.map_err(Rv::of_key)?;
        value.expose_mut().rotate_left(size - length);
        value.truncate(length);
        let secret = SecretKey {
            value,
            sensitive: wanted.sensitive,
            extractable: wanted.extractable,
            private: self.slot.has_pins(),
        };
        let names = wanted.names;
        self.add(
            names.label,
            names.cka_id.unwrap_or_default(),
            Body::Secret(secret),
        )
    }

    /// C_SignInit; without a mechanism it cancels.
    pub(crate) fn sign_init(&mut self, mechanism: Option<Mechanism<'_>>, key: Ulong) -> Result<()> {
        let Some(mechanism) = mechanism else {
            self.signing = None;
            return Ok(());
        };
        if self.signing.is_some() {
            return Err(Rv::OPERATION_ACTIVE);
        }
        let record = self.private(key)?;
        let kind = record.public.kind();
        let plan = self.slot.capable(|c| mech::signing(&mechanism, c, kind))?;
        if !record.usage.sign {
            return Err(Rv::KEY_FUNCTION_NOT_PERMITTED);
        }
        // Before the data: who cannot sign learns it here.
        self.slot.token()?.ready()?;
        self.signing = Some(Signing::new(record, plan));
        Ok(())
    }

    /// C_Sign. To ask for the length, or with too little room, asks no device.
    pub(crate) fn sign(&mut self, data: Result<&[u8]>, room: Result<Room>) -> Result<Answer<u8>> {
        let token = self.slot.token()?;
        self.signed(room, |signing| signing.sign(&*token, data?))
    }

    /// C_SignUpdate.
    pub(crate) fn sign_update(&mut self, data: Result<&[u8]>) -> Result<()> {
        let mut signing = self.signing.take().ok_or(Rv::OPERATION_NOT_INITIALIZED)?;
        signing.update(data?)?;
        self.signing = Some(signing);
        Ok(())
    }

    /// C_SignFinal.
    pub(crate) fn sign_final(&mut self, room: Result<Room>) -> Result<Answer<u8>> {
        let token = self.slot.token()?;
        self.signed(room, |signing| signing.finish(&*token))
    }

    /// C_VerifyInit; without a mechanism it cancels.
    pub(crate) fn verify_init(
        &mut self,
        mechanism: Option<Mechanism<'_>>,
        key: Ulong,
    ) -> Result<()> {
        let Some(mechanism) = mechanism else {
            self.verifying = None;
            return Ok(());
        };
        if self.verifying.is_some() {
            return Err(Rv::OPERATION_ACTIVE);
        }
        let object = self.key(key)?;
        let public = match (&object.body, object.public()) {
            (Body::Private(_), _) | (_, None) => return Err(Rv::KEY_TYPE_INCONSISTENT),
            (_, Some(public)) => public.clone(),
        };
        let kind = public.kind();
        let plan = self
            .slot
            .capable(|c| mech::verification(&mechanism, c, kind))?;
        self.verifying = Some(Verifying::new(public, plan));
        Ok(())
    }

    /// C_Verify.
    pub(crate) fn verify(&mut self, data: Result<&[u8]>, signature: Result<&[u8]>) -> Result<()> {
        let verifying = self.verifying.take().ok_or(Rv::OPERATION_NOT_INITIALIZED)?;
        verifying.verify(data?, signature?)
    }

    /// C_VerifyUpdate.
    pub(crate) fn verify_update(&mut self, data: Result<&[u8]>) -> Result<()> {
        let mut verifying = self.verifying.take().ok_or(Rv::OPERATION_NOT_INITIALIZED)?;
        verifying.update(data?)?;
        self.verifying = Some(verifying);
        Ok(())
    }

    /// C_VerifyFinal.
    pub(crate) fn verify_final(&mut self, signature: Result<&[u8]>) -> Result<()> {
        let verifying = self.verifying.take().ok_or(Rv::OPERATION_NOT_INITIALIZED)?;
        verifying.finish(signature?)
    }

    /// C_DecryptInit; without a mechanism it cancels.
    pub(crate) fn decrypt_init(
        &mut self,
        mechanism: Option<Mechanism<'_>>,
        key: Ulong,
    ) -> Result<()> {
        let Some(mechanism) = mechanism else {
            self.decrypting = None;
            return Ok(());
        };
        if self.decrypting.is_some() {
            return Err(Rv::OPERATION_ACTIVE);
        }
        let record = self.private(key)?;
        let kind = record.public.kind();
        let scheme = self
            .slot
            .capable(|c| mech::decryption(&mechanism, c, kind))?;
        if !record.usage.decrypt {
            return Err(Rv::KEY_FUNCTION_NOT_PERMITTED);
        }
        self.slot.token()?.ready()?;
        self.decrypting = Some(Decrypting::new(record, scheme));
        Ok(())
    }

    /// C_Decrypt.
    pub(crate) fn decrypt(
        &mut self,
        data: Result<&[u8]>,
        room: Result<Room>,
    ) -> Result<Answer<u8>> {
        let mut decrypting = self
            .decrypting
            .take()
            .ok_or(Rv::OPERATION_NOT_INITIALIZED)?;
        let answer = decrypting.decrypt(&*self.slot.token()?, data?, room?)?;
        if !matches!(answer, Answer::Done(_)) {
            self.decrypting = Some(decrypting);
        }
        Ok(answer)
    }

    /// Ends the signature, unless the caller only learns how much room it takes.
    fn signed(
        &mut self,
        room: Result<Room>,
        end: impl FnOnce(Signing) -> Result<Vec<u8>>,
    ) -> Result<Answer<u8>> {
        let signing = self.signing.take().ok_or(Rv::OPERATION_NOT_INITIALIZED)?;
        if let Some(answer) = room?.refuse(signing.len()) {
            self.signing = Some(signing);
            return Ok(answer);
        }
        end(signing).map(|signature| Answer::Done(signature.into()))
    }

    /// The object of a handle that stands for a key.
    fn key(&self, handle: Ulong) -> Result<Arc<Object>> {
        let object = self.slot.objects().get(handle);
        object.map_err(|_| Rv::KEY_HANDLE_INVALID)
    }

    fn private(&self, handle: Ulong) -> Result<Arc<KeyRecord>> {
        self.key(handle)?.private().cloned()
    }

    fn writable(&self) -> Result<()> {
        match self.writable {
            true => Ok(()),
            false => Err(Rv::SESSION_READ_ONLY),
        }
    }

    /// The handle of an object that was just stored.
    fn made(&self, class: Class, id: &ObjectId) -> Result<Ulong> {
        self.slot.fresh_objects()?.handle(class, id)
    }

    /// Adds an object for the time of the session.
    fn add(&self, label: Option<String>, id: Vec<u8>, body: Body) -> Result<Ulong> {
        let object = Object {
            label: label.unwrap_or_default(),
            id,
            body,
        };
        let mut objects = self.slot.objects();
        // Under the lock of the objects: who logs out meanwhile finds it there.
        if object.is_private() && !self.slot.is_users() {
            return Err(Rv::USER_NOT_LOGGED_IN);
        }
        objects.add(self.handle, object)
    }
}
