//! What a device says of where its key is.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use devkey::config::FoundToken;
use devkey::identity::flow::Source;
use devkey::token::Token;

/// The back end whose device may be no device.
const PUF: &str = "puf";
/// Its node, where no setting says another.
const NODE: &str = "/dev/puf0";

/// What a token says of itself in a request.
pub(crate) fn source(found: &FoundToken, token: &dyn Token) -> Source {
    let record = token.store().token();
    let configured = found
        .settings
        .iter()
        .find(|setting| setting.name == "device");
    let recorded = || record.settings.get("device");
    let node = configured.map(|setting| &setting.value).or_else(recorded);
    let node = node.map_or(NODE, String::as_str);
    Source {
        back_end: record.back_end.clone(),
        stand_in: record.back_end == PUF && !is_hardware(Path::new(node)),
    }
}

/// Whether the kernel knows hardware behind a node: a character device, or an attribute in sysfs, that does
/// not belong to a virtual device. FUSE, CUSE, a pseudo-terminal and a file have none.
fn is_hardware(node: &Path) -> bool {
    let device = || {
        let about = fs::metadata(node)
            .ok()
            .filter(|about| about.file_type().is_char_device())?;
        let number = about.rdev();
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        Some(PathBuf::from(format!("/sys/dev/char/{major}:{minor}")))
    };
    let in_sysfs = device().unwrap_or_else(|| node.to_owned());
    in_sysfs.canonicalize().is_ok_and(|real| {
        real.starts_with("/sys/devices") && !real.starts_with("/sys/devices/virtual")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen to fail without the look at `virtual`.
    #[test]
    fn what_is_no_hardware_is_a_stand_in() {
        for node in [
            "/dev/null",
            "/dev/ptmx",
            "/etc/passwd",
            "/nowhere",
            "/sys/devices/virtual/mem/null/dev",
        ] {
            assert!(!is_hardware(Path::new(node)), "{node}");
        }
    }
}
