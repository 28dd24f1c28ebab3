//! Just enough of Markdown for the documentation of this project: headings, links, code, and the comment that may precede
//! a block of code.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The root of the project.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// One page of the documentation.
pub(crate) struct Page {
    /// Its path, from the root of the project.
    pub(crate) path: String,
    /// The anchors of its headings.
    pub(crate) anchors: Vec<String>,
    /// Its links and images: line and target.
    pub(crate) links: Vec<(usize, String)>,
    /// Its blocks of code.
    pub(crate) blocks: Vec<Block>,
    /// Its inline code: line and text.
    pub(crate) spans: Vec<(usize, String)>,
    /// Its text without blocks of code, for what is searched in prose too.
    pub(crate) prose: String,
    /// The cells of its tables, by the first cell of the table's head: line and text of the first column.
    pub(crate) first_columns: Vec<(String, usize, String)>,
}

/// A block of code.
pub(crate) struct Block {
    /// Where it begins, from 1.
    pub(crate) line: usize,
    /// What follows the fence.
    pub(crate) language: String,
    /// What the comment before it says; empty without one.
    pub(crate) mark: String,
    pub(crate) text: String,
}

/// All pages: the README, the guide for contributors, and what is in `docs`.
pub(crate) fn pages() -> Vec<Page> {
    let mut paths = vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned()];
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if Path::new(&name).extension().is_some_and(|extension| extension == "md") {
            paths.push(format!("docs/{name}"));
        }
    }
    assert!(paths.len() > 8, "{paths:?}");
    paths.sort();
    paths.into_iter().map(Page::read).collect()
}

impl Page {
    fn read(path: String) -> Self {
        let text = fs::read_to_string(root().join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut page = Self {
            path,
            anchors: Vec::new(),
            links: Vec::new(),
            blocks: Vec::new(),
            spans: Vec::new(),
            prose: String::new(),
            first_columns: Vec::new(),
        };
        let mut seen = BTreeMap::new();
        let (mut open, mut mark, mut table) = (None::<Block>, String::new(), None::<String>);
        for (line, content) in (1..).zip(text.lines()) {
            if let Some(fence) = content.strip_prefix("```") {
                match open.take() {
                    Some(block) => page.blocks.push(block),
                    None => {
                        let language = fence.trim().to_owned();
                        open = Some(Block { line, language, mark: std::mem::take(&mut mark), text: String::new() });
                    }
                }
                continue;
            }
            if let Some(block) = &mut open {
                block.text.extend([content, "\n"]);
                continue;
            }
            mark = content.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")).unwrap_or("").to_owned();
            page.prose.extend([content, "\n"]);
            page.spans.extend(content.split('`').skip(1).step_by(2).map(|span| (line, span.to_owned())));
            page.links.extend(targets(content).map(|target| (line, target)));
            if let Some(heading) = content.strip_prefix('#') {
                let anchor = anchor(heading.trim_start_matches('#').trim());
                let times: &mut usize = seen.entry(anchor.clone()).or_default();
                page.anchors.push(if *times == 0 { anchor } else { format!("{anchor}-{times}") });
                *times += 1;
            }
            match (content.strip_prefix('|').and_then(|row| row.split('|').next()), &table) {
                (None, _) => table = None,
                (Some(cell), None) => table = Some(cell.trim().to_owned()),
                (Some(cell), Some(_)) if cell.starts_with("---") => {}
                (Some(cell), Some(head)) => page.first_columns.push((head.clone(), line, cell.to_owned())),
            }
        }
        assert!(open.is_none(), "{}: a block of code is not closed", page.path);
        page
    }

    /// How a line is named where something is wrong with it.
    pub(crate) fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path)
    }
}

/// The targets of the links in a line.
fn targets(line: &str) -> impl Iterator<Item = String> {
    // What is in backquotes is no link.
    let outside: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
    let links = outside.split("](").skip(1).map(|rest| (rest, ')'));
    let images = outside.split(" src=\"").skip(1).map(|rest| (rest, '"'));
    let targets = links.chain(images).map(|(rest, end)| {
        let (target, _) = rest.split_once(end).unwrap_or_else(|| panic!("a link is not closed: {line}"));
        target.to_owned()
    });
    targets.collect::<Vec<_>>().into_iter()
}

/// The anchor that GitHub makes of a heading.
fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'))
        .map(|letter| if letter == ' ' { '-' } else { letter })
        .collect()
}

#[test]
fn an_anchor_is_made_as_github_makes_it() {
    assert_eq!(anchor("Requests in flight: `drain`"), "requests-in-flight-drain");
    assert_eq!(anchor("A fleet's reports, together"), "a-fleets-reports-together");
}
