//! The example configurations, taken by the watchdog itself, and the policy that they need.

use crate::{read, root, text};
use spot_watchdog::emulators::aws::Play;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Whether the watchdog itself takes a configuration. What it says of this machine does not matter here.
pub(crate) fn is_taken(name: &str, configuration: &str) {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("watchdog.toml");
    fs::write(&file, configuration).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_watchdog"))
        .args(["check", "--config"])
        .arg(&file)
        .env("STATE_DIRECTORY", directory.path().join("state"))
        // Nothing listens there, so this machine is plainly not on EC2.
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9")
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{name}: {:?}\n{}", output.status, text(&output));
}

pub(crate) fn steps(configuration: &str) -> Vec<toml::Table> {
    let table: toml::Table = configuration.parse().unwrap();
    table["step"].as_array().unwrap().iter().map(|step| step.as_table().unwrap().clone()).collect()
}

#[test]
fn the_example_configurations_are_taken_and_run_hooks_that_are_shipped() {
    let mut hooks = 0;
    for entry in fs::read_dir(root().join("config/examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let configuration = fs::read_to_string(&path).unwrap();
        is_taken(&path.display().to_string(), &configuration);
        hooks += names_shipped_hooks(&configuration);
    }
    assert!(hooks > 0);
}

/// Holds that the hooks of a configuration are shipped, and returns how many it has.
pub(crate) fn names_shipped_hooks(configuration: &str) -> usize {
    let hooks: Vec<_> = steps(configuration).into_iter().filter(|step| step["kind"].as_str() == Some("hook")).collect();
    for step in &hooks {
        let program = step["command"][0].as_str().unwrap();
        assert!(step.get("undo").is_none_or(|undo| undo[0].as_str() == Some(program)), "{program}");
        let name = program.strip_prefix("/usr/local/share/spot-watchdog/hooks/").unwrap();
        let hook = root().join("config/hooks").join(name);
        assert_eq!(
            fs::metadata(&hook).unwrap().permissions().mode() & 0o111,
            0o111,
            "{} is not executable",
            hook.display()
        );
        // Every variable that it is given is one that it reads.
        for variable in step.get("environment").and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys)
        {
            assert!(
                fs::read_to_string(&hook).unwrap().contains(&format!("${{{variable}:-")),
                "{name} does not read {variable}"
            );
        }
    }
    hooks.len()
}

/// Which calls it has to allow is held by tests/target_group/auto_scaling.rs, against those that are made.
#[test]
fn the_policy_limits_what_changes_something_to_one_group() {
    let policy: serde_json::Value = serde_json::from_str(&read("config/aws-iam-policy.json")).unwrap();
    let mut allowed = BTreeSet::new();
    for statement in policy["Statement"].as_array().unwrap() {
        assert_eq!(statement["Effect"], "Allow");
        for action in statement["Action"].as_array().unwrap() {
            let action = action.as_str().unwrap();
            let changes = !action.contains(":Describe");
            // Reading cannot be limited to one group; changing can and is.
            assert_eq!(statement["Resource"] != "*", changes, "{action}");
            assert!(allowed.insert(action.to_owned()), "{action} is allowed twice");
        }
    }
}

#[test]
fn the_readme_names_only_files_that_are_there_and_shows_a_configuration_that_is_taken() {
    let readme = read("README.md");
    let words = readme.split(|letter: char| !(letter.is_ascii_alphanumeric() || "/._-".contains(letter)));
    let named: BTreeSet<_> = words
        .map(|word| word.trim_end_matches(['.', '/']))
        .filter(|word| ["config/", "systemd/", "tests/run"].iter().any(|top| word.starts_with(top)))
        .collect();
    assert!(named.len() > 5, "{named:?}");
    for path in named {
        assert!(root().join(path).exists(), "README.md names {path}");
    }
    let examples = readme.split("```toml\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    let (scripts, configurations): (Vec<_>, Vec<_>) = examples.partition(|example| example.contains("[[trouble]]"));
    assert!(!scripts.is_empty() && !configurations.is_empty());
    for configuration in configurations {
        is_taken("README.md", configuration);
    }
    for script in scripts {
        Play::parse(script, "README.md").unwrap();
    }
}

#[test]
fn the_readme_lists_every_hook_that_is_shipped() {
    let readme = read("README.md");
    for entry in fs::read_dir(root().join("config/hooks")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(readme.contains(&format!("| `{name}` |")), "{name}");
    }
}
