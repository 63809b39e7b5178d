//! Pages of docs/ whose commands tests run.

/// The titles of a page's sections.
pub(crate) fn sections(page: &str) -> Vec<&str> {
    let sections = page.split("\n## ").skip(1);
    sections
        .map(|text| text.lines().next().unwrap_or_default())
        .collect()
}

/// The blocks of a kind, `sh` say, in the section of that title.
pub(crate) fn blocks(page: &str, section: &str, kind: &str) -> Vec<String> {
    let texts = page.split("\n## ").filter_map(|text| text.split_once('\n'));
    let mut found = texts.filter(|(title, _)| *title == section);
    let (_, text) = found
        .next()
        .unwrap_or_else(|| panic!("no section {section:?}"));
    let fence = format!("\n```{kind}\n");
    let blocks = text.split(&fence).skip(1);
    let blocks: Vec<_> = blocks
        .map(|text| text.split("\n```").next().unwrap_or_default().to_owned())
        .collect();
    assert!(!blocks.is_empty(), "no {kind} in {section:?}");
    blocks
}
