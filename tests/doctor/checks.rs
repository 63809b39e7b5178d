//! The document of `devkey doctor --json`, to ask for single checks.

use serde_json::Value;

use crate::common::{Output, Run};

/// What the doctor said.
pub(crate) struct Checks {
    output: Output,
    all: Vec<Value>,
}

impl Checks {
    /// Runs a doctor that was given its areas.
    #[track_caller]
    pub(crate) fn of(run: Run) -> Self {
        let output = run.arg("--json").output();
        let said = serde_json::from_slice(&output.stdout);
        let said: Value = said.unwrap_or_else(|e| panic!("{e}: {output}"));
        let all = said["checks"].as_array().unwrap().clone();
        let failed = all.iter().any(|check| check["state"] == "failed");
        assert_eq!(output.status.code(), Some(i32::from(failed)), "{output}");
        Checks { output, all }
    }

    /// The checks of an id.
    #[track_caller]
    pub(crate) fn all(&self, id: &str) -> Vec<&Value> {
        let found: Vec<_> = self.all.iter().filter(|check| check["id"] == id).collect();
        assert!(!found.is_empty(), "no {id} in {}", self.output);
        found
    }

    /// One check of an id is so, says each of `texts`, and has a fix with `fix` in it where it is not ok.
    #[track_caller]
    pub(crate) fn is(&self, id: &str, state: &str, texts: &[&str], fix: &str) -> &Self {
        let fits = |check: &&Value| {
            let said = |name: &str| check[name].as_str().unwrap_or_default().to_owned();
            let all = said("subject") + ": " + &said("found");
            let texts = texts.iter().all(|text| all.contains(text));
            check["state"] == state && texts && said("fix").contains(fix)
        };
        let found = self.all(id);
        assert!(
            found.iter().any(fits),
            "{id} is not {state}, {texts:?}, {fix:?}: {found:#?}"
        );
        self
    }

    #[track_caller]
    pub(crate) fn ok(&self, id: &str, texts: &[&str]) -> &Self {
        self.is(id, "ok", texts, "")
    }

    #[track_caller]
    pub(crate) fn warning(&self, id: &str, texts: &[&str], fix: &str) -> &Self {
        self.is(id, "warning", texts, fix)
    }

    #[track_caller]
    pub(crate) fn failed(&self, id: &str, texts: &[&str], fix: &str) -> &Self {
        self.is(id, "failed", texts, fix)
    }

    #[track_caller]
    pub(crate) fn none(&self, id: &str, texts: &[&str]) -> &Self {
        self.is(id, "not-applicable", texts, "")
    }
}
