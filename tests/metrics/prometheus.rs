//! A real Prometheus scrapes a fleet: the panels of the dashboard have something to show, and the alerts that should fire
//! do. It takes half a minute, so it is played only by `tests/slow/metrics`.

use super::daemon::{PATIENCE, wait_for};
use super::fleet::Fleet;
use super::{shipped, tools};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// How long an alert may take.
const ALERTED: Duration = Duration::from_secs(120);

/// A panel of the dashboard.
#[derive(Debug)]
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) description: String,
    /// From the left, from the top.
    pub(crate) place: (u64, u64),
    expressions: Vec<String>,
}

/// The panels that show something, with their expressions as Grafana would ask them.
pub(crate) fn panels() -> Vec<Panel> {
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string(shipped("grafana/spot-watchdog.json")).unwrap()).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let shown = dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row");
    shown
        .map(|panel| Panel {
            title: text(&panel["title"]),
            description: text(&panel["description"]),
            place: (panel["gridPos"]["x"].as_u64().unwrap(), panel["gridPos"]["y"].as_u64().unwrap()),
            expressions: panel["targets"]
                .as_array()
                .unwrap()
                .iter()
                .map(|target| asked(&text(&target["expr"])))
                .collect(),
        })
        .collect()
}

fn asked(expression: &str) -> String {
    let asked = [("$job", "spot-watchdog"), ("$instance", "i-busy"), ("$__rate_interval", "5s"), ("$__range", "1m")]
        .into_iter()
        .fold(expression.to_owned(), |text, (name, value)| text.replace(name, value));
    assert!(!asked.contains('$'), "{asked}");
    asked
}

/// A Prometheus of our own; it ends with this.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl Prometheus {
    /// Scrapes these machines each second, with the rules that are shipped. Where these wait for a minute it is ten
    /// seconds here: how long they wait is what promtool tries, with `rules_test.yml`.
    fn start(program: &Path, machines: &[(&str, SocketAddr)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let rules = fs::read_to_string(shipped("prometheus/rules.yml")).unwrap();
        let quick = rules.replace("for: 1m\n", "for: 10s\n");
        assert_ne!(quick, rules, "some rule waits for a minute");
        fs::write(directory.path().join("rules.yml"), quick).unwrap();
        let mut settings = "global: { scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }\n\
                            rule_files: [rules.yml]\nscrape_configs:\n  - job_name: spot-watchdog\n    static_configs:\n"
            .to_owned();
        for (name, address) in machines {
            settings += &format!("      - targets: [\"{address}\"]\n        labels: {{ instance: {name} }}\n");
        }
        let file = directory.path().join("prometheus.yml");
        fs::write(&file, settings).unwrap();
        // It cannot be asked which port it was given, so one that is free now is named.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new(program)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        Self { child, address, _directory: directory }
    }

    /// One question to its API; nothing where it does not answer yet.
    fn api(&self, path: &str) -> Option<Value> {
        let mut stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(5)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        // As 1.0, so that the answer comes in one piece.
        write!(stream, "GET /api/v1/{path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let answer: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
        Some(answer["data"]["result"].clone()).filter(|_| answer["status"] == "success")
    }

    fn now(&self, expression: &str) -> Vec<Value> {
        let found = self.api(&format!("query?query={}", encoded(expression)));
        found.and_then(|found| found.as_array().cloned()).unwrap_or_default()
    }

    /// Every value that an expression had in each second since then.
    fn since(&self, expression: &str, since: f64) -> Vec<f64> {
        let until = seconds();
        let found = self
            .api(&format!("query_range?query={}&start={since}&end={until}&step=1", encoded(expression)))
            .unwrap_or_else(|| panic!("not understood: {expression}"));
        let values = found.as_array().unwrap().iter().flat_map(|series| series["values"].as_array().unwrap());
        values.map(|value| value[1].as_str().unwrap().parse::<f64>().unwrap()).filter(|value| !value.is_nan()).collect()
    }

    /// The machines for which an alert fires.
    fn firing(&self, alert: &str) -> Vec<String> {
        let found = self.now(&format!("ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}}"));
        found.iter().map(|series| series["metric"]["instance"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn every_panel_has_something_to_show_and_the_alerts_fire() {
    if std::env::var_os("SPOT_PROMETHEUS").is_none() {
        eprintln!("skipped: tests/slow/metrics plays it");
        return;
    }
    let Some(program) = tools::tool("prometheus") else { panic!("there is no prometheus") };
    let mut fleet = Fleet::started();
    fleet.add_mortal();
    let machines =
        [("i-busy", fleet.busy().address), ("i-blind", fleet.blind().address), ("i-mortal", fleet.mortal().address)];
    let prometheus = Prometheus::start(&program, &machines);
    let began = seconds();
    wait_for("three machines that are scraped", || {
        (prometheus.now("count_over_time(spot_watchdog_healthy[1m]) >= 3").len() == 3).then_some(())
    });
    fleet.open_episode();
    let interrupted = || {
        let mut firing = prometheus.firing("SpotInterruption");
        firing.sort();
        (firing == ["i-busy", "i-mortal"]).then_some(())
    };
    wait_for("two machines that will be taken", interrupted);
    wait_for("steps that are seen running", || {
        (prometheus.now("count_over_time((spot_watchdog_step_running == 1)[1m:1s]) >= 3").len() >= 2).then_some(())
    });
    fleet.let_it_die();
    fleet.let_it_end();
    wait_for("the margin", || (!prometheus.now("spot_watchdog_episode_margin_seconds").is_empty()).then_some(()));
    wait_for("a bad end", || (prometheus.firing("SpotWatchdogEpisodeFailed") == ["i-busy"]).then_some(()));

    let panels = panels();
    let silent = || {
        let asked = panels.iter().flat_map(|panel| panel.expressions.iter().map(|asked| (&panel.title, asked)));
        let empty = asked.filter(|(_, expression)| prometheus.since(expression, began).is_empty());
        empty.map(|(title, expression)| format!("{title}: {expression}")).collect::<Vec<_>>()
    };
    // The newest metrics are shown with the next scrape, and by a graph with its next second.
    let until = Instant::now() + PATIENCE;
    let mut empty = silent();
    while !empty.is_empty() && Instant::now() < until {
        thread::sleep(Duration::from_millis(500));
        empty = silent();
    }
    assert!(empty.is_empty(), "panels without anything to show:\n{}", empty.join("\n"));
    let expressions = panels.iter().map(|panel| panel.expressions.len()).sum::<usize>();
    eprintln!("{} panels, {expressions} expressions, each with something to show", panels.len());

    let until = Instant::now() + ALERTED;
    for (alert, machine) in [("SpotWatchdogBlind", "i-blind"), ("SpotWatchdogVanished", "i-mortal")] {
        while prometheus.firing(alert).is_empty() {
            assert!(Instant::now() < until, "{alert} does not fire");
            thread::sleep(Duration::from_millis(500));
        }
        assert_eq!(prometheus.firing(alert), [machine], "{alert}");
    }
    for alert in ["SpotWatchdogJournalBroken", "SpotWatchdogWouldNotFit"] {
        assert_eq!(prometheus.firing(alert), Vec::<String>::new(), "{alert}");
    }
}
