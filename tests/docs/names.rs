//! Flags, subcommands, keys and variables that the documentation names are those that the binary has.

use crate::markdown::{Page, pages, root};
use serde_json::Value;
use spot_watchdog::emulators::aws::SERVICE;
use spot_watchdog::emulators::service::Play;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// Flags of other programs, and whose they are.
const FLAGS_OF_OTHERS: &[(&str, &str)] =
    &[("--enable-metrics", "SGLang"), ("--exit-signal-handler", "Megatron-LM"), ("--shutdown-timeout", "vLLM")];

/// Names in the kebab-case of our keys that are not ours, and whose they are.
const NAMES_OF_OTHERS: &[(&str, &str)] =
    &[("server-state-file", "HAProxy"), ("leave-load-balancer", "a step of an example"), ("systemd-run", "systemd")];

/// What the binary prints for these arguments.
fn printed(arguments: &[&str]) -> String {
    let directory = TempDir::new().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_watchdog"))
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("STATE_DIRECTORY", directory.path().join("state"))
        .env("RUNTIME_DIRECTORY", directory.path().join("run"))
        .env("SPOT_TEST_ROOT", directory.path().join("root"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The flags of each command, by its words: nothing for the program itself, "emulate aws" for a command in a command.
fn commands() -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::new();
    let mut open = vec![String::new()];
    while let Some(command) = open.pop() {
        let help = printed(&command.split_whitespace().chain(["--help"]).collect::<Vec<_>>());
        if let Some((_, listed)) = help.split_once("\nCommands:\n") {
            let listed = listed.split("\n\n").next().unwrap();
            let names = listed.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
            open.extend(
                names.filter(|name| !name.is_empty()).map(|name| format!("{command} {name}").trim().to_owned()),
            );
        }
        let flags = help.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '-'));
        all.insert(command, flags.filter(|word| word.starts_with("--")).map(str::to_owned).collect());
    }
    assert!(all.len() > 10, "{all:?}");
    all
}

/// Each command line of a page that begins with the name of the binary: line and words after the name.
fn command_lines(page: &Page) -> Vec<(usize, Vec<String>)> {
    let in_blocks = page
        .blocks
        .iter()
        .filter(|block| matches!(block.language.as_str(), "sh" | "console"))
        .flat_map(|block| (block.line + 1..).zip(block.text.lines()));
    let in_spans = page.spans.iter().map(|(line, span)| (*line, span.as_str()));
    in_blocks
        .chain(in_spans)
        .flat_map(|(line, text)| {
            let code = text.trim_start_matches("$ ").split(" #").next().unwrap();
            let words = |part: &str| part.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            code.split(['|', ';', '&', '"']).map(words).map(move |words| (line, words)).collect::<Vec<_>>()
        })
        .filter(|(_, words)| words.first().is_some_and(|word| word == "watchdog"))
        .map(|(line, words)| (line, words[1..].to_vec()))
        .collect()
}

#[test]
fn every_command_and_flag_that_is_named_is_there() {
    let commands = commands();
    let mut named = BTreeSet::new();
    for page in pages() {
        for (line, words) in command_lines(&page) {
            let mut command = String::new();
            for word in &words {
                let word = word.trim_matches(['[', ']', '\'', ',']);
                let longer = format!("{command} {word}").trim().to_owned();
                if word.starts_with("--") {
                    assert!(commands[&command].contains(word), "{}: watchdog {command} has no {word}", page.at(line));
                } else if commands.contains_key(&longer) {
                    named.insert(longer.clone());
                    command = longer;
                } else if word == words[0] {
                    panic!("{}: there is no watchdog {word}", page.at(line));
                }
            }
        }
        for (line, span) in &page.spans {
            if let Some(flag) = span.split([' ', '=']).next().filter(|word| word.starts_with("--")) {
                let others = FLAGS_OF_OTHERS.iter().any(|(other, _)| *other == flag);
                let ours = commands.values().any(|flags| flags.contains(flag));
                assert!(ours != others, "{}: nothing here has {flag}, or it is named as another's", page.at(*line));
            }
        }
    }
    let missing: Vec<_> = commands.keys().filter(|command| !command.is_empty() && !named.contains(*command)).collect();
    assert!(missing.is_empty(), "described nowhere: {missing:?}");
}

/// The names of all properties of a JSON schema, and the values that it lists.
fn schema_words(schema: &Value, keys: &mut BTreeSet<String>, values: &mut BTreeSet<String>) {
    match schema {
        Value::Object(object) => {
            for (name, inner) in object {
                match (name.as_str(), inner) {
                    ("properties", Value::Object(properties)) => keys.extend(properties.keys().cloned()),
                    ("const", Value::String(value)) => drop(values.insert(value.clone())),
                    ("enum", Value::Array(listed)) => {
                        values.extend(listed.iter().filter_map(|value| value.as_str().map(str::to_owned)));
                    }
                    _ => {}
                }
                schema_words(inner, keys, values);
            }
        }
        Value::Array(inner) => inner.iter().for_each(|inner| schema_words(inner, keys, values)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// All that stands between quotation marks in the sources, where the words of the log and of reports are.
fn quoted_in_sources(directory: &Path, words: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            quoted_in_sources(&path, words);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            words.extend(text.split('"').skip(1).step_by(2).map(str::to_owned));
            // What serde renames to kebab-case.
            let names = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
            words.extend(names.filter(|name| name.contains('_')).map(|name| name.replace('_', "-")));
        }
    }
}

#[test]
fn every_key_that_is_named_is_there() {
    let (mut keys, mut words) = (BTreeSet::new(), BTreeSet::new());
    for schema in ["schema", "status-schema"] {
        let schema: Value = serde_json::from_str(&printed(&["generate", schema])).unwrap();
        schema_words(&schema, &mut keys, &mut words);
    }
    let settings = keys.clone();
    // The reader of emulator scripts lists its keys to who writes a wrong one.
    for script in ["wrong = 1", "[[notice]]\nwrong = 1", "[[trouble]]\nwrong = 1"] {
        let told = Play::parse(&SERVICE, script, "script").unwrap_err().to_string();
        keys.extend(told.split('`').skip(1).step_by(2).map(str::to_owned));
    }
    assert!(keys.len() > settings.len() + 10, "{:?}", keys.difference(&settings));
    words.append(&mut keys);
    quoted_in_sources(&root().join("src"), &mut words);
    // A reason of /healthz is made of this and a kind.
    words.extend(["scale-in", "maintenance", "rebalance"].map(|kind| format!("blind-{kind}")));
    words.extend(NAMES_OF_OTHERS.iter().map(|(name, _)| (*name).to_owned()));

    let mut named = 0;
    for page in pages() {
        let first_columns = page.first_columns.iter().filter(|(head, ..)| head.starts_with("key"));
        for (_, line, cell) in first_columns {
            for key in cell.split('`').skip(1).step_by(2) {
                named += 1;
                assert!(settings.contains(key), "{}: there is no key {key}", page.at(*line));
            }
        }
        for (line, span) in &page.spans {
            if let Some((key, _)) = span.split_once(" = ").filter(|(key, _)| is_name(key)) {
                named += 1;
                assert!(words.contains(key), "{}: there is no key {key}", page.at(*line));
            } else if span.contains('-') && is_name(span) {
                named += 1;
                assert!(words.contains(span), "{}: nothing here is called {span}", page.at(*line));
            }
        }
    }
    assert!(named > 60, "{named}");
}

/// Whether a text has the form of a key.
fn is_name(text: &str) -> bool {
    text.starts_with(|letter: char| letter.is_ascii_lowercase())
        && text.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-')
}

#[test]
fn every_variable_that_is_named_is_there_and_every_variable_of_a_hook_is_named() {
    let variables = |text: &str| -> BTreeSet<String> {
        let words =
            text.split(|letter: char| !(letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_'));
        words.filter(|word| word.starts_with("SPOT_") && word.len() > 5).map(str::to_owned).collect()
    };
    let mut of_hooks = variables(&printed(&["rehearse", "--hook", "env"]));
    // What we set is passed on.
    of_hooks.remove("SPOT_TEST_ROOT");
    assert!(of_hooks.len() > 10, "{of_hooks:?}");
    let run = &commands()["run"];
    let mut of_tests = String::new();
    for program in ["run", "bench", "slow/page", "worlds.rs", "scenarios.rs", "simulator"] {
        let path = root().join("tests").join(program);
        let files = if path.is_dir() {
            fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect()
        } else {
            vec![path]
        };
        of_tests.extend(files.iter().map(|file| fs::read_to_string(file).unwrap()));
    }
    let of_tests = variables(&of_tests);

    for page in pages() {
        let code: String = page.blocks.iter().map(|block| block.text.as_str()).collect();
        for name in variables(&format!("{}\n{code}", page.prose)) {
            let setting = name.strip_prefix("SPOT_WATCHDOG_").map(|key| {
                key.is_empty() || key == "LOG" || run.contains(&format!("--{}", key.to_lowercase().replace('_', "-")))
            });
            let there = setting.unwrap_or_else(|| of_hooks.contains(&name) || of_tests.contains(&name));
            assert!(there, "{} names {name}", page.path);
        }
        if page.path == "docs/hooks.md" {
            let named = variables(&page.prose);
            let missing: Vec<_> = of_hooks.difference(&named).collect();
            assert!(missing.is_empty(), "{} does not name {missing:?}", page.path);
        }
    }
}

#[test]
fn every_item_of_the_code_that_is_named_is_there() {
    let mut words = BTreeSet::new();
    words_of_sources(&root().join("src"), &mut words);
    let pages = pages();
    let guide = pages.iter().find(|page| page.path == "CONTRIBUTING.md").unwrap();
    let mut named = 0;
    for (line, span) in &guide.spans {
        let code = span.split(['(', ')', '?', '"', '.', ' ']).flat_map(|part| part.split("::"));
        let is_item = |word: &&str| {
            let letters = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
            word.chars().all(letters) && word.contains(char::is_lowercase)
        };
        let shaped = |word: &&str| word.contains('_') || word.starts_with(char::is_uppercase);
        for word in code.filter(is_item).filter(shaped) {
            named += 1;
            assert!(words.contains(word), "{}: nothing in src is called {word}", guide.at(*line));
        }
    }
    assert!(named > 20, "{named}");
}

/// Every word of the sources.
fn words_of_sources(directory: &Path, words: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            words_of_sources(&path, words);
        } else {
            let text = fs::read_to_string(&path).unwrap();
            let all = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
            words.extend(all.map(str::to_owned));
        }
    }
}
