//! The PKCS#11 module: installed, known to p11-kit, taken by ssh-agent, and loadable.

use std::fs;
use std::path::{Path, PathBuf};

use super::finding::{Area, Finding};
use super::program::{Asked, ask};
use super::scope::Scope;
use super::ssh;
use crate::agent::takes;

const AREA: Area = Area::Module;
const FILE: &str = "module.file";
const AGENT_LIST: &str = "module.agent-list";
const P11_KIT: &str = "module.p11-kit";
const LOADS: &str = "module.loads";

/// What ssh-keygen says of a module that it cannot load, or that is none.
const UNLOADED: [&str; 2] = ["dlopen", "is not a PKCS11 library"];

/// Where p11-kit's own and the administrator's module files are: pkcs11.conf(5). The latter go first.
const CONFIGS: [&str; 2] = ["/etc/pkcs11/modules", "/usr/share/p11-kit/modules"];

pub(super) fn look(scope: &Scope, say: &mut dyn FnMut(Finding)) {
    let shown = scope.module.display();
    match scope.module.canonicalize() {
        Ok(real) => {
            say(Finding::ok(AREA, FILE, &shown));
            say(agent_list(&real));
            say(loads(&real));
            say(p11_kit(&real));
        }
        Err(error) => say(Finding::failed(AREA, FILE, format!("{shown}: {error}"))
            .fix("make install PREFIX=/usr; one elsewhere is named by --module")),
    }
    ssh::look(scope, say);
}

/// ssh-agent judges the real path.
fn agent_list(real: &Path) -> Finding {
    match takes(real) {
        true => Finding::ok(AREA, AGENT_LIST, "ssh-agent takes modules from there"),
        false => {
            let found = format!("ssh-agent takes no module from {}", real.display());
            let fix = format!(
                "install it below /usr/lib, or ssh-agent -P {}",
                real.display()
            );
            Finding::warning(AREA, AGENT_LIST, found).fix(fix)
        }
    }
}

/// Has ssh-keygen load it, which lists the keys that ssh can use, and asks for no PIN.
fn loads(real: &Path) -> Finding {
    let said = match ask("ssh-keygen", &["-D", &real.to_string_lossy()]) {
        Asked::Said(said) => said,
        Asked::Missing => {
            return Finding::none(AREA, LOADS, "ssh-keygen is not installed to try it");
        }
        Asked::Hangs(what) => {
            return Finding::failed(AREA, LOADS, what).fix("DEVKEY_LOG=debug ssh-keygen -D MODULE");
        }
    };
    let why = said
        .stderr
        .lines()
        .find(|line| UNLOADED.iter().any(|part| line.contains(part)));
    if let Some(why) = why.or(said.code.is_none().then_some("ssh-keygen crashed")) {
        let found = format!("it cannot be loaded: {why}");
        return Finding::failed(AREA, LOADS, found)
            .fix("ldd MODULE names what is missing; install it anew");
    }
    let keys = said.stdout.lines().filter(|line| !line.is_empty()).count();
    Finding::ok(
        AREA,
        LOADS,
        format!("ssh-keygen loads it; keys for ssh: {keys}"),
    )
}

/// GnuTLS, p11tool and what else asks p11-kit find modules by files in two directories.
fn p11_kit(real: &Path) -> Finding {
    let is_there = CONFIGS.iter().any(|dir| Path::new(dir).is_dir());
    if !is_there {
        return Finding::none(AREA, P11_KIT, "p11-kit is not installed");
    }
    let mut files: Vec<PathBuf> = CONFIGS
        .iter()
        .flat_map(|dir| modules(Path::new(dir)))
        .collect();
    files.retain(|file| named(file, real).is_some());
    let register = format!(
        "echo 'module: {}' | sudo tee {}/devkey.module",
        real.display(),
        CONFIGS[0]
    );
    let Some(file) = files.first() else {
        let found = "p11-kit does not know it: GnuTLS, p11tool and others do not find the keys";
        return Finding::warning(AREA, P11_KIT, found)
            .fix(format!("sudo mkdir -p {}; {register}", CONFIGS[0]));
    };
    match named(file, real) {
        Some(Ok(())) => Finding::ok(AREA, P11_KIT, file.display()),
        Some(Err(path)) => {
            let found = format!(
                "{} names {}, which is another or not there",
                file.display(),
                path.display()
            );
            Finding::failed(AREA, P11_KIT, found).fix(format!("rm {}; {register}", file.display()))
        }
        None => Finding::none(AREA, P11_KIT, "changed just now"),
    }
}

fn modules(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let is_module = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "module");
    entries
        .map(|entry| entry.path())
        .filter(is_module)
        .collect()
}

/// Whether a file is about a module of devkey's, and about this one; else which it names.
fn named(file: &Path, real: &Path) -> Option<Result<(), PathBuf>> {
    let text = fs::read_to_string(file).ok()?;
    let mut values = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("module:"));
    let path = PathBuf::from(values.next_back()?.trim());
    path.file_name()?
        .to_str()
        .filter(|name| name.contains("devkey"))?;
    // A name alone is one in the directory of the modules, where ours is too.
    let path = match path.is_absolute() {
        true => path,
        false => real.parent()?.join(path),
    };
    Some(match path.canonicalize() {
        Ok(named) if named == real => Ok(()),
        _ => Err(path),
    })
}
