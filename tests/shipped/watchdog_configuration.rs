//! The example configurations, taken by the watchdog itself, and the policy that they need.

use crate::configuration::is_taken;
use crate::{read, root, text};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// Holds that a shipped configuration has the time that it asks for, and evidence where it saves work.
pub(crate) fn warns_of_nothing_of_its_own(name: &str, configuration: &str) {
    let found = is_taken(name, configuration);
    let of_its_own = |line: &&str| line.contains("warning") && (line.contains("  plan ") || line.contains("`proof`"));
    assert_eq!(found.lines().find(of_its_own), None, "{name}");
    assert!(found.contains("  plan "), "{name}: {found}");
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
        warns_of_nothing_of_its_own(&path.display().to_string(), &configuration);
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
fn a_configuration_to_begin_with_is_taken_and_has_the_time_that_it_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    for workload in ["training", "serving", "batch", "stateful"] {
        let output = Command::new(env!("CARGO_BIN_EXE_watchdog"))
            .args(["init", workload])
            .arg(format!("{workload}.toml"))
            .current_dir(folder.path())
            .env("SPOT_WATCHDOG_METADATA_ENDPOINT", "http://127.0.0.1:1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output));
        let said = text(&output);
        assert!(said.contains(&format!("watchdog rehearse --config {workload}.toml")), "{said}");
        let written = fs::read_to_string(folder.path().join(format!("{workload}.toml"))).unwrap();
        warns_of_nothing_of_its_own(workload, &written);
    }
}
