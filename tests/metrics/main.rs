//! What is shipped for Prometheus and Grafana, held against what the real binary says: every name that an alert rule or
//! a panel asks for is there, `promtool` is content with rules and output, and, in `tests/slow/metrics`, a real
//! Prometheus scrapes real daemons, and every panel has something to show.
//!
//! `promtool` and `prometheus` are Debian's, unpacked by `tests/run` below `target/prometheus`; without them what needs
//! them is skipped.

#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test says what it expects by failing")]
#![expect(clippy::disallowed_methods, reason = "what is waited for happens in other processes")]

#[expect(dead_code, reason = "other tests use more of it")]
#[path = "../support/daemon.rs"]
mod daemon;
mod fleet;
mod prometheus;
mod tools;

use fleet::Fleet;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tools::promtool;

pub(crate) fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

/// The names of metrics in a text: of ours, and of those that others have made known.
fn names(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("spot_watchdog_") || word.starts_with("aws_instance_"))
        .collect()
}

/// The names of the samples of a scrape.
fn sampled(scrape: &str) -> BTreeSet<&str> {
    scrape.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(['{', ' ']).next()).collect()
}

#[test]
fn every_metric_that_rules_and_panels_ask_for_is_there() {
    let scrapes = Fleet::played();
    let there: BTreeSet<&str> = scrapes.iter().flat_map(|(_, text)| sampled(text)).collect();
    for file in ["prometheus/rules.yml", "grafana/spot-watchdog.json"] {
        let text = fs::read_to_string(shipped(file)).unwrap();
        let asked = names(&text);
        assert!(asked.len() >= 8, "{file} asks for nothing: {asked:?}");
        let missing: Vec<&&str> = asked.difference(&there).collect();
        assert!(missing.is_empty(), "{file} asks for what is not there: {missing:?}");
    }
}

/// The names in a cell of a Markdown table, with the prefix that the table leaves out.
fn described(row: &str) -> impl Iterator<Item = String> {
    let cell = row.split('|').nth(1).unwrap();
    cell.split('`').skip(1).step_by(2).map(|name| format!("spot_watchdog_{name}"))
}

#[test]
fn every_metric_is_described_and_every_one_that_is_described_is_there() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/endpoint.md")).unwrap();
    let table = page.split("\n\n").find(|part| part.starts_with("| metric (`spot_watchdog_…`)")).unwrap();
    let described: BTreeSet<String> = table.lines().skip(2).flat_map(described).collect();
    let scrapes = Fleet::played();
    let there: BTreeSet<String> = scrapes
        .iter()
        .flat_map(|(_, text)| sampled(text))
        .filter(|name| name.starts_with("spot_watchdog_"))
        // A histogram has three samples.
        .map(|name| ["_bucket", "_sum", "_count"].iter().fold(name, |name, end| name.trim_end_matches(end)).to_owned())
        .collect();
    assert_eq!(described, there);
    for name in names(&page).iter().filter(|name| name.starts_with("aws_instance_")) {
        assert!(scrapes.iter().any(|(_, text)| sampled(text).contains(name)), "{name} is not there");
    }
}

#[test]
fn every_alert_is_described_and_every_one_that_is_described_is_there() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/endpoint.md")).unwrap();
    let rules = fs::read_to_string(shipped("prometheus/rules.yml")).unwrap();
    let there: BTreeSet<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let spans = page.split('`').skip(1).step_by(2);
    let described: BTreeSet<&str> =
        spans.filter(|span| span.starts_with("Spot") && span.chars().all(char::is_alphanumeric)).collect();
    assert_eq!(described, there);
}

#[test]
fn a_panel_has_a_title_a_sentence_and_a_place_of_its_own() {
    let panels = prometheus::panels();
    assert!(panels.len() >= 20);
    let mut taken = BTreeSet::new();
    for panel in &panels {
        for text in [&panel.title, &panel.description] {
            assert!(!text.is_empty(), "{panel:?}");
        }
        assert!(panel.description.ends_with('.'), "{panel:?}");
        assert!(taken.insert(panel.place), "two panels at {:?}", panel.place);
    }
}

#[test]
fn promtool_is_content_with_the_output_in_calm_in_mid_episode_and_after() {
    let Some(promtool) = promtool() else { return };
    for (when, scrape) in Fleet::played() {
        let said = tools::feed(&promtool, &["check", "metrics"], scrape);
        assert_eq!(said, (Some(0), String::new()), "{when}:\n{scrape}");
    }
    // It does look: what is no metric is found.
    let (code, said) = tools::feed(&promtool, &["check", "metrics"], "# TYPE a_total gauge\na_total 1\n");
    assert!(code != Some(0) && !said.is_empty());
}

#[test]
fn each_alert_fires_and_stays_silent() {
    let Some(promtool) = promtool() else { return };
    let rules = shipped("prometheus/rules.yml");
    let (code, said) = tools::run(&promtool, &["check", "rules", rules.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    // The test names its rules beside itself.
    let directory = tempfile::tempdir().unwrap();
    fs::copy(&rules, directory.path().join("rules.yml")).unwrap();
    let test = directory.path().join("rules_test.yml");
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/metrics/rules_test.yml");
    fs::copy(&tests, &test).unwrap();
    let (code, said) = tools::run(&promtool, &["test", "rules", test.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    let (text, tested) = (fs::read_to_string(&rules).unwrap(), fs::read_to_string(&tests).unwrap());
    for alert in text.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let of_it = tested
            .split("- name: ")
            .flat_map(|story| story.split(alert).skip(1).map(|rest| rest.split("alertname").next().unwrap()));
        let (silent, fires): (Vec<&str>, Vec<&str>) = of_it.partition(|rest| rest.contains("exp_alerts: []"));
        assert!(!silent.is_empty() && !fires.is_empty(), "{alert} is not seen both firing and silent");
    }
}

#[test]
fn a_scrape_is_answered_at_once() {
    let mut fleet = Fleet::started();
    fleet.open_episode();
    let mut took: Vec<Duration> = (0..200)
        .map(|_| {
            let began = Instant::now();
            assert!(fleet.scrape(fleet.busy()).contains("spot_watchdog_episode_open 1"));
            began.elapsed()
        })
        .collect();
    took.sort();
    eprintln!(
        "/metrics in mid-episode, with a new connection each: median {:?}, 99th percentile {:?}",
        took[100], took[198]
    );
    // The promise is 2 ms for a release build on a quiet machine; here nothing may be of another order.
    assert!(took[100] < Duration::from_millis(20), "{took:?}");
}
