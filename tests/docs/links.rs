//! Links, anchors, tables of contents, and the names of files.

use crate::markdown::{Page, pages, root};
use std::collections::BTreeSet;
use std::path::Path;

/// Longer pages than this have a table of contents: two screens.
const LINES_WITHOUT_CONTENTS: usize = 100;

#[test]
fn every_link_leads_to_a_file_and_every_anchor_to_a_heading() {
    let pages = pages();
    let mut links = 0;
    for page in &pages {
        let directory = Path::new(&page.path).parent().unwrap();
        for (line, target) in &page.links {
            if target.starts_with("http://") || target.starts_with("https://") {
                continue;
            }
            links += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { page.path.clone() } else { resolved(directory, file) };
            assert!(root().join(&path).exists(), "{}: there is no {path}", page.at(*line));
            if anchor.is_empty() {
                continue;
            }
            let other = pages.iter().find(|other| other.path == path);
            assert!(
                other.is_some_and(|other| other.anchors.iter().any(|it| it == anchor)),
                "{}: {path} has no heading for #{anchor}",
                page.at(*line)
            );
        }
    }
    assert!(links > 50, "{links}");
}

/// A relative path, seen from the root of the project.
fn resolved(directory: &Path, file: &str) -> String {
    let mut parts: Vec<&str> = directory.iter().map(|part| part.to_str().unwrap()).collect();
    for part in file.split('/') {
        match part {
            "." => {}
            ".." => assert!(parts.pop().is_some(), "{file} leads out of the project"),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[test]
fn every_page_is_reached_from_the_readme() {
    let pages = pages();
    let readme = pages.iter().find(|page| page.path == "README.md").unwrap();
    for page in pages.iter().filter(|page| page.path != "README.md") {
        assert!(readme.links.iter().any(|(_, target)| *target == page.path), "README.md has no link to {}", page.path);
    }
}

#[test]
fn a_long_page_begins_with_its_contents_and_the_readme_stays_short() {
    for page in pages() {
        let lines = std::fs::read_to_string(root().join(&page.path)).unwrap().lines().count();
        if page.path == "README.md" {
            assert!(lines <= 250, "README.md has {lines} lines");
        } else if lines > LINES_WITHOUT_CONTENTS {
            let linked: Vec<&str> = page.links.iter().filter_map(|(_, target)| target.strip_prefix('#')).collect();
            // The first heading is the title; those of the third level need not be listed.
            let missing: Vec<_> = sections(&page).filter(|anchor| !linked.contains(&anchor.as_str())).collect();
            assert!(missing.is_empty(), "{}: its contents lack {missing:?}", page.path);
        }
    }
}

/// The anchors of the headings of the second level.
fn sections(page: &Page) -> impl Iterator<Item = String> {
    let titles: Vec<bool> =
        page.prose.lines().filter(|line| line.starts_with('#')).map(|line| line.starts_with("## ")).collect();
    assert_eq!(titles.len(), page.anchors.len());
    page.anchors.clone().into_iter().zip(titles).filter_map(|(anchor, section)| section.then_some(anchor))
}

#[test]
fn every_file_that_is_named_is_there() {
    let mut named = BTreeSet::new();
    for page in pages() {
        let code = page.blocks.iter().map(|block| block.text.as_str());
        for text in code.chain([page.prose.as_str()]) {
            let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || "/._-*".contains(letter)));
            for word in words {
                let word = word.trim_end_matches(['.', '/', '*']);
                if ["config/", "systemd/", "tests/", "src/", "docs/"].iter().any(|top| word.starts_with(top)) {
                    assert!(root().join(word).exists(), "{} names {word}", page.path);
                    named.insert(word.to_owned());
                }
            }
        }
        // Test programs are named by `cargo test --test NAME`.
        for text in page.blocks.iter().map(|block| &block.text).chain(page.spans.iter().map(|(_, span)| span)) {
            for after in text.split("--test ").skip(1) {
                let name = after.split_whitespace().next().unwrap();
                let there = root().join(format!("tests/{name}.rs")).exists()
                    || root().join(format!("tests/{name}/main.rs")).exists();
                assert!(there || name.chars().all(char::is_uppercase), "{}: there is no test {name}", page.path);
            }
        }
    }
    assert!(named.len() > 20, "{named:?}");
}

#[test]
fn every_hook_that_is_shipped_is_described() {
    let pages = pages();
    let hooks = pages.iter().find(|page| page.path == "docs/hooks.md").unwrap();
    for entry in std::fs::read_dir(root().join("config/hooks")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(hooks.prose.contains(&format!("\n| `{name}` |")), "{name}");
    }
}

#[test]
fn every_module_that_is_described_is_there() {
    let pages = pages();
    let guide = pages.iter().find(|page| page.path == "CONTRIBUTING.md").unwrap();
    let described: BTreeSet<&str> = guide
        .first_columns
        .iter()
        .filter(|(head, ..)| head == "module")
        .map(|(.., cell)| cell.trim_matches([' ', '`']))
        .collect();
    let lib = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let public: BTreeSet<&str> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(described.len() > 10 && described.is_subset(&public), "{:?}", described.difference(&public));
}
