//! Rules that the compiler does not check: which module may import which, where a cloud may be named, what the engine must
//! not use, that each file says what it is for, that files stay small, and that no type name stands for two things.
//!
//! Source is read as text, line by line, with comments cut off. A rule that is broken names file and line.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops where something is not as promised")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Each module and those that it may use, as the map in `src/lib.rs` has it. `main.rs` is the last.
const MAY_USE: &[(&str, &[&str])] = &[
    ("engine", &[]),
    ("view", &["engine"]),
    ("transport", &["view"]),
    ("store", &["engine", "view"]),
    ("process", &["engine", "view", "store"]),
    ("container", &["view", "process"]),
    ("sources", &["engine", "view", "store", "transport", "process"]),
    ("actions", &["engine", "view", "transport", "store", "process"]),
    // Its texts are templates as those of a step are, and a report may be what they carry.
    ("notify", &["engine", "view", "transport", "actions", "store"]),
    ("emulators", &["engine", "view", "store"]),
    ("config", &["engine", "view", "process", "container", "sources", "actions", "notify"]),
    ("server", &["engine", "view", "sources", "actions", "store", "notify", "config"]),
    (
        "runtime",
        &["engine", "view", "store", "process", "container", "sources", "actions", "notify", "config", "server"],
    ),
    (
        "cli",
        &[
            "engine",
            "view",
            "store",
            "process",
            "container",
            "sources",
            "actions",
            "notify",
            "config",
            "server",
            "runtime",
            "emulators",
        ],
    ),
    // It hands the tables of kinds to the configuration, and the rest to a command.
    ("main", &["process", "container", "sources", "actions", "config", "cli"]),
];

/// Words that name a cloud or what only one cloud has.
const CLOUDS: &[&str] = &[
    "aws",
    "ec2",
    "imds",
    "elb",
    "amazon",
    "gcp",
    "gce",
    "google",
    "azure",
    "imdsv2",
    "alibaba",
    "aliyun",
    "tencent",
    "tencentyun",
    "volcengine",
    "volc",
    "oracle",
    "runpod",
    "vast",
];

/// Parts of the addresses that only a cloud's metadata service has.
const CLOUD_ADDRESSES: &[&str] = &["169.254.", "fd00:ec2", "100.100.100.200", "100.96.0.96", "metadata.google"];

/// Where clouds may be named, with the reason.
const CLOUD_PLACES: &[(&str, &str)] = &[
    ("src/sources/aws/", "it is this cloud's source"),
    ("src/sources/gcp/", "it is this cloud's source"),
    ("src/sources/platforms.rs", "it is the table of clouds and platforms without a source"),
    ("src/sources/alibaba/", "it is this cloud's source"),
    ("src/sources/tencent/", "it is this cloud's source"),
    ("src/sources/volcengine/", "it is this cloud's source"),
    ("src/actions/aws/", "it is how this cloud's API is called"),
    ("src/actions/target_group/", "it leaves this cloud's load balancer"),
    ("src/actions/auto_scaling/", "it leaves this cloud's group of machines"),
    ("src/sources/azure/", "it is this cloud's source"),
    ("src/emulators/azure/", "it plays this cloud's metadata service"),
    ("src/emulators/aws/", "it plays this cloud's metadata service"),
    ("src/emulators/gcp/", "it plays this cloud's metadata service"),
    ("src/container/platform.rs", "it says how containers end there, where nothing can be asked"),
    ("src/emulators/alibaba/", "it plays this cloud's metadata service"),
    ("src/emulators/tencent/", "it plays this cloud's metadata service"),
    ("src/emulators/volcengine/", "it plays this cloud's metadata service"),
];

/// Lines elsewhere that may name one: file, what the line contains, and why.
const CLOUD_LINES: &[(&str, &str, &str)] = &[
    ("src/sources/mod.rs", "pub mod aws;", "its row stands in the table"),
    ("src/sources/mod.rs", "aws::ROW", "its row stands in the table"),
    ("src/sources/mod.rs", "pub mod gcp;", "its row stands in the table"),
    ("src/sources/mod.rs", "gcp::ROW", "its row stands in the table"),
    ("src/emulators/mod.rs", "aws", "its row stands in the table"),
    ("src/emulators/mod.rs", "gcp", "its row stands in the table"),
    ("src/sources/mod.rs", "pub mod azure;", "its row stands in the table"),
    ("src/sources/mod.rs", "azure::ROW", "its row stands in the table"),
    ("src/emulators/mod.rs", "azure", "its row stands in the table"),
    ("src/sources/mod.rs", "pub mod alibaba;", "its row stands in the table"),
    ("src/sources/mod.rs", "alibaba::ROW", "its row stands in the table"),
    ("src/emulators/mod.rs", "alibaba", "its row stands in the table"),
    ("src/sources/mod.rs", "pub mod tencent;", "its row stands in the table"),
    ("src/sources/mod.rs", "tencent::ROW", "its row stands in the table"),
    ("src/emulators/mod.rs", "tencent", "its row stands in the table"),
    ("src/sources/mod.rs", "pub mod volcengine;", "its row stands in the table"),
    ("src/sources/mod.rs", "volcengine::ROW", "its row stands in the table"),
    ("src/emulators/mod.rs", "volcengine", "its row stands in the table"),
    ("src/actions/mod.rs", "aws", "the API's module is built with a feature"),
    ("src/actions/hook/check.rs", "INSTANCE_STORE", "the kernel's name of a disk that is lost with the machine"),
    ("src/cli/args.rs", "rehearse --hook ./save_checkpoint.sh --cloud gcp", "an example of a command has to name one"),
    ("src/cli/args.rs", "aws", "examples in the help"),
];

/// What the engine must not use: it is pure.
const NOT_IN_THE_ENGINE: &[&str] = &[
    "std::time::Instant",
    "Instant::now",
    "SystemTime",
    "Timestamp::now",
    "Zoned::now",
    "tokio",
    "HashMap",
    "HashSet",
    "rand::",
    "async",
    "await",
    "Mutex",
    "RwLock",
    "Atomic",
    "thread",
    "std::fs",
    "std::env",
    "std::io",
    "std::net",
    "std::process",
    "tracing",
];

/// The most lines of a file.
const MOST_LINES: usize = 700;

/// A source file.
struct File {
    /// From the root of the repository.
    path: String,
    text: String,
}

impl File {
    /// Numbered lines without comments; what stands in a module of tests at the end of the file is left out.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines: Vec<&str> = self.text.lines().collect();
        // A module of tests ends its file; one in a file of its own is one line.
        let tests = lines.iter().position(|line| *line == "#[cfg(test)]");
        (1..)
            .zip(lines.into_iter().take(tests.unwrap_or(usize::MAX)))
            .map(|(number, line)| (number, without_comment(line)))
    }

    /// The top module that it belongs to.
    fn module(&self) -> &str {
        let inside = self.path.trim_start_matches("src/");
        inside.split(['/', '.']).next().unwrap_or_default()
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("tests.rs") || self.path.contains("/tests/")
    }
}

/// The line without its comment; the `//` of a URL begins none.
fn without_comment(line: &str) -> &str {
    let trimmed = line.trim_start();
    if trimmed.starts_with("//") {
        return "";
    }
    line.find(" // ").map_or(line, |at| &line[..at])
}

fn sources() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                files.push(File { path, text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(files.len() > 80, "the sources were not found");
    files
}

/// The top modules that a piece of code names after `crate::` or `spot_watchdog::`, with braces followed.
fn named_modules(code: &str) -> Vec<String> {
    let mut named = Vec::new();
    for root in ["crate::", "spot_watchdog::"] {
        for (at, _) in code.match_indices(root) {
            let boundary = code[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '$');
            if !boundary {
                continue;
            }
            let rest = &code[at + root.len()..];
            match rest.strip_prefix('{') {
                Some(list) => named.extend(heads(list)),
                None => named.extend(word(rest)),
            }
        }
    }
    named
}

/// The first word of each item of a brace list; lists inside are skipped.
fn heads(list: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let (mut depth, mut is_head) = (0, true);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => is_head = true,
            c if is_head && c.is_alphabetic() => {
                heads.extend(word(&list[at..]));
                is_head = false;
            }
            _ => {}
        }
    }
    heads
}

fn word(text: &str) -> Option<String> {
    let word: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!word.is_empty()).then_some(word)
}

#[test]
fn imports_go_one_way() {
    let modules: Vec<&str> = MAY_USE.iter().map(|(module, _)| *module).collect();
    let mut wrong = Vec::new();
    for file in sources().iter().filter(|file| file.path != "src/lib.rs") {
        let module = file.module();
        let (_, allowed) = MAY_USE
            .iter()
            .find(|(name, _)| *name == module)
            .unwrap_or_else(|| panic!("{}: the module {module} is not in the table", file.path));
        // A `use` may go over several lines; it is read as one, at its first.
        let mut open: Option<(usize, String)> = None;
        for (number, line) in file.code() {
            let (number, code) = match open.take() {
                Some((first, before)) => (first, before + line),
                None => (number, line.to_owned()),
            };
            let is_use = code.trim_start().trim_start_matches("pub ").starts_with("use ");
            if is_use && !code.contains(';') {
                open = Some((number, code));
                continue;
            }
            for used in named_modules(&code) {
                let known = modules.contains(&used.as_str());
                if known && used != module && !allowed.contains(&used.as_str()) {
                    wrong.push(format!("{}:{number}: {module} uses {used}", file.path));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "imports against the direction:\n{}", wrong.join("\n"));
}

#[test]
fn no_other_file_names_a_cloud() {
    let mut wrong = Vec::new();
    let mut used = Vec::new();
    for file in sources().iter().filter(|file| !file.is_test()) {
        if CLOUD_PLACES.iter().any(|(place, _)| file.path.starts_with(place)) {
            continue;
        }
        for (number, line) in file.code() {
            let lower = line.to_lowercase();
            let named = lower.split(|c: char| !c.is_alphanumeric()).any(|word| CLOUDS.contains(&word))
                || CLOUD_ADDRESSES.iter().any(|part| lower.contains(part));
            if !named {
                continue;
            }
            // A line may hold the rows of several.
            let excuses =
                (0..).zip(CLOUD_LINES).filter(|(_, (path, part, _))| *path == file.path && line.contains(part));
            let before = used.len();
            used.extend(excuses.map(|(at, _)| at));
            if used.len() == before {
                wrong.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "clouds are named outside their files:\n{}", wrong.join("\n"));
    for (at, (path, part, _)) in CLOUD_LINES.iter().enumerate() {
        assert!(used.contains(&at), "{path} has no line with {part} any more: take the exception away");
    }
}

#[test]
fn the_engine_is_pure() {
    let mut wrong = Vec::new();
    for file in sources().iter().filter(|file| file.module() == "engine") {
        for (number, line) in file.code() {
            for word in NOT_IN_THE_ENGINE {
                if line.contains(word) {
                    wrong.push(format!("{}:{number}: {word}", file.path));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "the engine is not pure:\n{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for_and_stays_small() {
    let mut wrong = Vec::new();
    for file in sources() {
        if !file.text.starts_with("//! ") {
            wrong.push(format!("{}: does not open with //!", file.path));
        }
        let lines = file.text.lines().count();
        if lines > MOST_LINES {
            wrong.push(format!("{}: {lines} lines, more than {MOST_LINES}", file.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The one name that many types have: the keys of each kind of step, always named with their module.
const OF_EACH_KIND: &str = "Settings";

/// The type that a line declares at the top level of its file.
fn declared(line: &str) -> Option<&str> {
    let line = match line.strip_prefix("pub") {
        Some(rest) => rest.split_once(' ')?.1,
        None => line,
    };
    let name = ["struct ", "enum ", "trait ", "type "].iter().find_map(|word| line.strip_prefix(word))?;
    name.split(|c: char| !c.is_alphanumeric() && c != '_').next()
}

#[test]
fn no_type_name_stands_for_two_things() {
    let files = sources();
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for file in files.iter().filter(|file| !file.is_test()) {
        for (number, line) in file.code() {
            if let Some(name) = declared(line).filter(|name| *name != OF_EACH_KIND) {
                places.entry(name).or_default().push(format!("{}:{number}", file.path));
            }
        }
    }
    assert!(places.len() > 300, "the types were not found");
    let twice: Vec<_> = places.into_iter().filter(|(_, places)| places.len() > 1).collect();
    assert!(twice.is_empty(), "{twice:#?}");
}

#[test]
fn imports_are_found_in_every_way_they_are_written() {
    assert_eq!(named_modules("use crate::engine::Event;"), ["engine"]);
    assert_eq!(named_modules("use crate::{actions, sources as ears};"), ["actions", "sources"]);
    assert_eq!(named_modules("use crate::{engine::{Event, Now}, view::Finding};"), ["engine", "view"]);
    assert_eq!(named_modules("fn f(x: crate::server::StatusPublisher) -> crate::engine::Now"), ["server", "engine"]);
    assert_eq!(named_modules("let http = othercrate::model::Now;"), Vec::<String>::new());
}
