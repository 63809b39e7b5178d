//! Login and PINs: what the `C_` functions about them demand of a slot and its sessions.
//!
//! A login is of the process and holds for all sessions of its slot (PKCS#11 3.0 §5.6.8). On a
//! token without PINs the user's always succeeds and means nothing, and there is no SO.

use devkey::secret::Secret;
use devkey::store::Role;
use devkey::token::Pin;
use devkey::{Error, Result as LibraryResult};

use crate::module::Module;
use crate::raw::Ulong;
use crate::rv::{Result, Rv};
use crate::slot::Slot;

/// C_Login. Nothing is counted but a PIN that could be right.
pub(crate) fn login(module: &Module, session: Ulong, role: Role, pin: Option<&[u8]>) -> Result<()> {
    let (slot, _) = module.about(session)?;
    let _alone = slot.changing();
    match (slot.has_pins(), role, slot.who()) {
        (false, Role::So, _) => return Err(Rv::USER_TYPE_INVALID),
        (_, _, Some(who)) if who == role => return Err(Rv::USER_ALREADY_LOGGED_IN),
        (_, _, Some(_)) => return Err(Rv::USER_ANOTHER_ALREADY_LOGGED_IN),
        (false, Role::User, None) => {
            slot.log_in(role);
            return Ok(());
        }
        (true, _, None) => {}
    }
    allowed(module, &slot, session, role)?;
    let pin = old_pin(pin)?;
    let token = slot.token().map_err(|_| Rv::USER_PIN_NOT_INITIALIZED)?;
    let done = token.login(role, &pin, false);
    done.map_err(|e| Rv::of_login(e, role))?;
    slot.log_in(role);
    // Sessions may have come and gone meanwhile.
    let still = allowed(module, &slot, session, role);
    if still.is_err() {
        slot.end_login();
    }
    still
}

/// C_InitPIN.
pub(crate) fn init_pin(module: &Module, session: Ulong, pin: Option<&[u8]>) -> Result<()> {
    let (slot, _) = module.about(session)?;
    let _alone = slot.changing();
    if slot.who() != Some(Role::So) {
        return Err(Rv::USER_NOT_LOGGED_IN);
    }
    let pin = new_pin(pin)?;
    match slot.token()?.init_pin(&pin, false) {
        Err(Error::LoginRequired) => {
            slot.end_login();
            Err(Rv::USER_NOT_LOGGED_IN)
        }
        done => done.map_err(Rv::of_write),
    }
}

/// C_SetPIN: the SO's where the SO is logged in, else the user's, who need not be.
pub(crate) fn set_pin(
    module: &Module,
    session: Ulong,
    old: Option<&[u8]>,
    new: Option<&[u8]>,
) -> Result<()> {
    let (slot, writable) = module.about(session)?;
    if !writable {
        return Err(Rv::SESSION_READ_ONLY);
    }
    if !slot.has_pins() {
        return Err(Rv::FUNCTION_NOT_SUPPORTED);
    }
    let _alone = slot.changing();
    // The new one first: a try of the old one would be wasted.
    let (new, old) = (new_pin(new)?, old_pin(old)?);
    let token = slot.token().map_err(|_| Rv::USER_PIN_NOT_INITIALIZED)?;
    let role = slot.who().unwrap_or(Role::User);
    token.set_pin(role, &old, &new).map_err(Rv::of_write)
}

/// C_InitToken: makes the token of a slot that is offered for it; empties one that has PINs.
pub(crate) fn init_token(
    module: &Module,
    slot: Ulong,
    pin: Option<&[u8]>,
    label: &[u8],
) -> Result<()> {
    let slot = module.slot(slot)?;
    if module.count(slot.id).0 > 0 {
        return Err(Rv::SESSION_EXISTS);
    }
    if !slot.has_pins() {
        return Err(Rv::FUNCTION_NOT_SUPPORTED);
    }
    let label = str::from_utf8(label).map_err(|_| Rv::ARGUMENTS_BAD)?;
    let label = label.trim_end_matches(' ');
    if label.is_empty() {
        return Err(Rv::ARGUMENTS_BAD);
    }
    let _alone = slot.changing();
    if slot.is_blank() {
        return slot.initialise(module.links(), label, &new_pin(pin)?);
    }
    match slot.token()?.reset(&old_pin(pin)?, label) {
        // Without a SO there is nobody who may.
        Err(Error::PinNotSet) => return Err(Rv::FUNCTION_NOT_SUPPORTED),
        done => done.map_err(Rv::of_write)?,
    }
    slot.reopen(module.links());
    Ok(())
}

/// Whether a session is there and none is in the way of a login: the SO's would make of one that
/// only reads what PKCS#11 does not have.
fn allowed(module: &Module, slot: &Slot, session: Ulong, role: Role) -> Result<()> {
    module.about(session)?;
    let (all, writable) = module.count(slot.id);
    match role == Role::So && all > writable {
        true => Err(Rv::SESSION_READ_ONLY_EXISTS),
        false => Ok(()),
    }
}

/// A PIN that is to be compared: one that nobody can have is wrong.
fn old_pin(pin: Option<&[u8]>) -> Result<Pin> {
    checked(pin, Rv::PIN_INCORRECT)
}

/// A PIN that is to be set.
fn new_pin(pin: Option<&[u8]>) -> Result<Pin> {
    checked(pin, Rv::PIN_INVALID)
}

/// No PIN at all asks for another way to enter it, which there is not.
fn checked(pin: Option<&[u8]>, malformed: Rv) -> Result<Pin> {
    let pin: LibraryResult<Pin> = Pin::new(Secret::new(pin.ok_or(Rv::ARGUMENTS_BAD)?.to_vec()));
    pin.map_err(|error| match error {
        Error::PinLength => Rv::PIN_LEN_RANGE,
        _ => malformed,
    })
}
