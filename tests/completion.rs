//! The completions, in the shells that they are for: bash, zsh, fish, as a user's shell sources them.

#![cfg(test)]

mod common;

use std::fs;
use std::path::PathBuf;

use common::Run;
use tempfile::TempDir;

/// A directory with the scripts, as packages put them there, and a file and a directory to be completed.
struct Shells(TempDir);

/// What is typed, and the one continuation that there is.
const TYPED: [(&str, &str); 4] = [
    ("devkey key n", "new"),
    ("devkey ca chal", "challenge"),
    ("devkey key new --kind ml-dsa-6", "ml-dsa-65"),
    ("devkey cert install --any", "--any-time"),
];

impl Shells {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        for (shell, name) in [
            ("bash", "devkey"),
            ("zsh", "_devkey"),
            ("fish", "devkey.fish"),
        ] {
            let script = Run::new(env!("CARGO_BIN_EXE_devkey"))
                .args(["completion", shell])
                .ok();
            fs::write(dir.path().join(name), script.stdout).unwrap();
        }
        fs::create_dir(dir.path().join("here")).unwrap();
        fs::create_dir(dir.path().join("here/place")).unwrap();
        fs::write(dir.path().join("here/place.pem"), "").unwrap();
        Shells(dir)
    }

    fn script(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, shell: &str) -> Run {
        let run = Run::new(shell).dir(&self.0.path().join("here"));
        run.env("HOME", self.0.path())
            .env("LC_ALL", "C.UTF-8")
            .env("TERM", "dumb")
    }

    /// What bash offers, a line each.
    fn bash(&self, typed: &str) -> String {
        let complete = r#"source "$1"
            read -ra COMP_WORDS <<<"$2"
            [[ $2 != *' ' ]] || COMP_WORDS+=('')
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_LINE=$2 COMP_POINT=${#2}
            _devkey devkey "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
            printf '%s\n' "${COMPREPLY[@]}""#;
        let run = self.run("bash").args(["--norc", "-c", complete, "bash"]);
        run.arg(self.script("devkey")).arg(typed).ok().text()
    }

    /// What zsh's line is after a tab: one that somebody types at a terminal.
    fn zsh(&self, typed: &str, wanted: &str) {
        let complete = r#"zmodload zsh/zpty
            zpty line zsh -f -i
            zpty -w line "PS1=; fpath=($1 \$fpath); autoload -Uz compinit; compinit -u -D; print be''gin"
            zpty -r line said '*begin*'
            zpty -w -n line "$2"$'\t'
            zpty -r line said "*$3*" && print -r -- $said"#;
        let run = self
            .run("zsh")
            .args(["-f", "-c", complete, "zsh"])
            .arg(self.0.path());
        run.arg(typed).arg(wanted).ok().says(&[wanted]);
    }

    /// What fish offers, a line each.
    fn fish(&self, typed: &str) -> String {
        let complete = "source $argv[1]; complete --do-complete $argv[2]";
        let run = self.run("fish").args(["--no-config", "-c", complete]);
        run.arg(self.script("devkey.fish")).arg(typed).ok().text()
    }
}

/// Seen to fail with hidden commands left in `visible`.
#[test]
fn bash_completes() {
    let shells = Shells::new();
    for (typed, wanted) in TYPED {
        assert_eq!(shells.bash(typed).trim(), wanted, "{typed}");
    }
    let commands = shells.bash("devkey ");
    assert!(commands.lines().any(|line| line == "init"), "{commands}");
    assert!(!commands.contains("manual"), "{commands}");
}

/// Seen to fail with `FilePath` for `DIR` in `hint`.
#[test]
fn files_and_directories_are_completed_where_they_belong() {
    let shells = Shells::new();
    // bash itself offers files where the script offers nothing.
    assert_eq!(shells.bash("devkey cert install pla").trim(), "");
    let registered = "source \"$1\"; complete -p devkey";
    let registered = shells.run("bash").args(["-c", registered, "bash"]);
    let registered = registered.arg(shells.script("devkey")).ok();
    registered.says(&["-o default"]);
    let files = shells.fish("devkey cert install pla");
    assert!(files.contains("place.pem"), "{files}");
    let places = shells.fish("devkey cert install --ssh-dir pla");
    assert!(
        places.contains("place/") && !places.contains("place.pem"),
        "{places}"
    );
    let files = shells.fish("devkey request --ca pla");
    assert!(files.contains("place.pem"), "{files}");
}

/// Seen to fail, by its deadline, with another shell's script.
#[test]
fn zsh_completes() {
    let shells = Shells::new();
    for (typed, wanted) in TYPED {
        shells.zsh(typed, wanted);
    }
}

/// Seen to fail with another shell's script.
#[test]
fn fish_completes() {
    let shells = Shells::new();
    for (typed, wanted) in TYPED {
        let said = shells.fish(typed);
        let offered = said.lines().filter_map(|line| line.split('\t').next());
        assert!(
            offered.into_iter().any(|one| one == wanted),
            "{typed}: {said}"
        );
    }
}
