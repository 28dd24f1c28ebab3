//! What the configuration promises: every key, every error, and who beats whom.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops where something is not as promised")]

use super::*;
use crate::actions::{Action, BuildError, Defaults, HostInfo as Here, PathKey, Reach, Row, RunContext, Task};
use crate::engine::{NoticeKind, Process, Rerun, RunResult, Step};
use crate::sources::Source;
use std::collections::BTreeSet;
use std::sync::Arc;

mod commands;
mod detection;

/// A step that does nothing; it remembers what it was built from.
#[derive(Debug)]
struct Idle(toml::Table);

impl Action for Idle {
    fn describe(&self) -> String {
        self.0.to_string().trim().to_owned()
    }
    fn act<'a>(&'a self, _: &'a RunContext) -> Task<'a, RunResult> {
        unreachable!("configuration runs nothing")
    }
    fn undo<'a>(&'a self, _: &'a RunContext) -> Task<'a, RunResult> {
        unreachable!("configuration runs nothing")
    }
    fn adopt<'a>(&'a self, _: &'a RunContext, _: Option<Process>) -> Task<'a, RunResult> {
        unreachable!("configuration runs nothing")
    }
    fn check<'a>(&'a self, _: &'a Here) -> Task<'a, Vec<Finding>> {
        Box::pin(std::future::ready(Vec::new()))
    }
}

fn build(own: toml::Table) -> Result<Arc<dyn Action>, BuildError> {
    if let Some(toml::Value::Table(proof)) = own.get("proof")
        && proof.contains_key("newr")
    {
        return Err(BuildError {
            key: "proof.newr".to_owned(),
            message: "unknown field `newr`, expected one of `newer`, `absent`".to_owned(),
        });
    }
    if !own.contains_key("command") && !own.contains_key("target-groups") {
        return Err(BuildError { key: String::new(), message: "command is missing".to_owned() });
    }
    Ok(Arc::new(Idle(own)))
}

fn hook_schema() -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "properties": { "command": { "type": "array" }, "working-directory": {}, "proof": {} },
        "required": ["command"],
    })
}

fn group_schema() -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "properties": { "target-groups": { "type": "array" }, "region": {}, "endpoint-url": {} },
    })
}

static ROWS: &[Row] = &[
    Row {
        kind: "hook",
        summary: "runs a command",
        reach: Reach::Machine,
        undo: Undo::Stay,
        build,
        schema: hook_schema,
        paths: &[PathKey::Command("command"), PathKey::File("working-directory"), PathKey::Pattern("proof.newer")],
        defaults: Defaults { needs: Duration::from_secs(5), retries: 1, repeat: true },
    },
    Row {
        kind: "target-group",
        summary: "leaves AWS target groups",
        reach: Reach::Outside,
        undo: Undo::PutBack,
        build,
        schema: group_schema,
        paths: &[],
        defaults: Defaults { needs: Duration::from_secs(3), retries: 0, repeat: false },
    },
];

/// The real kinds, as the shipped file shows them; those that some builds cannot have are real in all but what they do.
static REAL_ROWS: &[Row] = &[
    actions::hook::ROW,
    Row { build: idle, ..actions::target_group::ROW },
    Row { build: idle, ..actions::auto_scaling::ROW },
    actions::haproxy::ROW,
    actions::http::ROW,
    actions::drain::ROW,
    actions::signal::ROW,
    actions::workload::ROW,
];

fn idle(own: toml::Table) -> Result<Arc<dyn Action>, BuildError> {
    Ok(Arc::new(Idle(own)))
}

/// A start in an empty directory, with a configuration file if there is a text for it.
struct Scene {
    start: Start,
    folder: tempfile::TempDir,
}

fn scene(file: &str) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("watchdog.toml");
    if !file.is_empty() {
        std::fs::write(&path, file).unwrap();
    }
    let start = Start {
        flags: Flags::default(),
        variables: BTreeMap::from([("HOME".to_owned(), "/home/ada".to_owned())]),
        directory: folder.path().to_owned(),
        usual_file: path,
    };
    Scene { start, folder }
}

impl Scene {
    fn set(mut self, name: &str, value: &str) -> Self {
        self.start.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    fn flags(mut self, flags: Flags) -> Self {
        self.start.flags = flags;
        self
    }

    fn load(&self) -> Result<Settings, ConfigError> {
        load(&self.start, ROWS, crate::sources::ROWS)
    }

    /// The settings with [`REAL_ROWS`].
    fn real(&self) -> Settings {
        load(&self.start, REAL_ROWS, crate::sources::ROWS).unwrap_or_else(|refused| panic!("{refused}"))
    }

    /// The settings; a refusal is shown.
    fn settings(&self) -> Settings {
        self.load().unwrap_or_else(|refused| panic!("{refused}"))
    }

    /// What is said of it, with the file's folder left out.
    fn refused(&self) -> String {
        let refused =
            self.load().map(|_| "everything is well".to_owned()).unwrap_or_else(|refused| refused.to_string());
        refused.replace(&format!("{}/", self.folder.path().display()), "")
    }
}

fn refused(file: &str) -> String {
    scene(file).refused()
}

fn hooks(texts: &[&str]) -> Flags {
    Flags { hook: texts.iter().map(|&text| text.to_owned()).collect(), ..Flags::default() }
}

/// The shipped file with all that is commented out brought in.
fn shipped_whole() -> String {
    let bring_in = |line: &'static str| match line.strip_prefix('#') {
        Some(code) if !code.is_empty() && !code.starts_with(' ') => code,
        Some(_) | None => line,
    };
    SHIPPED.lines().map(bring_in).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_shipped_file_is_a_configuration_with_and_without_its_examples() {
    let settings = scene(SHIPPED).settings();
    assert_eq!(settings.policy.steps, []);
    assert_eq!(settings.warnings.len(), 1, "{:?}", settings.warnings);
    let settings = scene(&shipped_whole()).real();
    assert_eq!(settings.steps.len(), REAL_ROWS.len() + 1, "one of each kind, and a second hook");
    let told: Vec<&str> = settings.notifications.iter().map(crate::notify::Sink::name).collect();
    assert_eq!(told, ["ops", "channel", "pager"]);
    assert_eq!(settings.warnings, []);
}

#[test]
fn what_stands_in_the_shipped_file_is_what_an_empty_file_means() {
    let shown = |settings: &Settings| format!("{:?} {:?}", settings.policy, settings.sources);
    assert_eq!(shown(&scene("# nothing\n").settings()), shown(&scene(SHIPPED).settings()));
}

#[test]
fn every_key_stands_in_the_shipped_file_with_its_reason_and_nothing_else_does() {
    let whole: toml::Table = toml::from_str(&shipped_whole()).unwrap();
    let prose = schema::prose(SHIPPED);
    let stands = |table: &str, here: &toml::Table, keys: &[keys::Key]| {
        for key in keys {
            assert!(here.contains_key(key.name), "{table}: {} does not stand in the shipped file", key.name);
            if key.name != "kind" || table == "step" {
                let location = (table.to_owned(), key.name.to_owned());
                assert!(prose.contains_key(&location), "{table}: {} has no reason", key.name);
            }
        }
    };
    stands("", &whole, keys::TOP);
    stands("assume", whole["assume"].as_table().unwrap(), keys::ASSUME);
    let sources = whole["source"].as_array().unwrap();
    assert_eq!(sources.len(), crate::sources::ROWS.len());
    for (source, row) in sources.iter().zip(crate::sources::ROWS) {
        assert_eq!(source["kind"].as_str(), Some(row.kind));
        for key in sources::own_keys(row) {
            assert!(source.get(&key).is_some(), "{}: {key} does not stand in the shipped file", row.kind);
            assert!(prose.contains_key(&("source".to_owned(), key.clone())), "{}: {key} has no reason", row.kind);
        }
    }
    stands("source", sources[0].as_table().unwrap(), keys::SOURCE);
    stands("step", whole["step"][0].as_table().unwrap(), keys::STEP);
    for row in actions::ROWS {
        let steps = whole["step"].as_array().unwrap();
        let example = steps.iter().find(|step| step["kind"].as_str() == Some(row.kind)).unwrap();
        for key in steps::own_keys(row).unwrap() {
            assert!(example.get(&key).is_some(), "{}: {key} does not stand in the shipped file", row.kind);
            assert!(prose.contains_key(&("step".to_owned(), key.clone())), "{}: {key} has no reason", row.kind);
        }
    }
    let messages = whole["notification"].as_array().unwrap();
    let own = messages::own_keys().into_iter().chain(keys::NOTIFICATION.iter().map(|key| key.name.to_owned()));
    for key in own {
        assert!(messages.iter().any(|message| message.get(&key).is_some()), "{key} does not stand in the shipped file");
        assert!(prose.contains_key(&("notification".to_owned(), key.clone())), "message: {key} has no reason");
    }
    // That nothing else stands there is what loading it shows: unknown keys are refused.
}

#[test]
fn the_example_step_shows_the_defaults_of_a_hook() {
    let example = &scene(&shipped_whole()).real().policy.steps[0];
    let short = "[[step]]\nname = \"checkpoint\"\nkind = \"hook\"\ncommand = [\"x\"]\n";
    let plain = &scene(short).real().policy.steps[0];
    let Step { timeout, hold_until_left, undo, .. } = *example;
    let expected = Step { timeout, hold_until_left, undo, ..plain.clone() };
    assert_eq!(*example, expected);
    assert_eq!((plain.timeout, plain.hold_until_left, plain.undo), (None, None, Undo::Stay));
    assert_eq!(undo, Undo::PutBack, "it names a command for it");
}

#[test]
fn a_drain_settles_where_a_load_balancer_was_left_before_it() {
    let settle = |after: &str| {
        let step = |name: &str, rest: &str| format!("[[step]]\nname = \"{name}\"\n{rest}\n");
        let file = step("drain", &format!("kind = \"drain\"\nconnections = [80]\nafter = [{after}]"))
            + &step("leave", "kind = \"target-group\"\ntarget-groups = [\"a\"]")
            + &step("say", "kind = \"hook\"\ncommand = [\"x\"]\nafter = [\"leave\"]")
            + &step("save", "kind = \"hook\"\ncommand = [\"x\"]");
        format!("{:?}", scene(&file).real().steps[0].action)
    };
    for after in ["\"leave\"", "\"save\", \"leave\"", "\"say\""] {
        assert!(settle(after).contains("settle: Span(15s)"), "{after}: {}", settle(after));
    }
    for after in ["", "\"save\""] {
        assert!(settle(after).contains("settle: Span(0ns)"), "{after}: {}", settle(after));
    }
}

#[test]
fn the_schema_has_every_key_and_the_keys_of_each_kind() {
    let schema = schema(ROWS, crate::sources::ROWS);
    for key in keys::TOP {
        assert!(schema["properties"][key.name]["description"].is_string(), "{}", key.name);
    }
    assert_eq!(schema["properties"]["assume"]["properties"]["shutdown"]["default"], "25s");
    let hook = &schema["properties"]["step"]["items"]["oneOf"][0];
    assert_eq!(hook["properties"]["kind"]["const"], "hook");
    assert_eq!(hook["required"], serde_json::json!(["name", "kind", "command"]));
    for key in keys::STEP.iter().map(|key| key.name).chain(["command", "proof"]) {
        assert!(hook["properties"][key].is_object(), "{key}");
    }
    let aws = &schema["properties"]["source"]["items"]["oneOf"][0]["properties"];
    assert!(aws["imds-v1"].is_object());
}

#[test]
fn every_kind_of_source_can_be_built() {
    for row in crate::sources::ROWS {
        let needed = match row.kind {
            "file" => "path = \"/run/notice\"\n",
            "http" => "url = \"http://127.0.0.1/\"\npointer = \"/event\"\n",
            "command" => "command = [\"probe\"]\n",
            _ => "",
        };
        let settings = scene(&format!("[[source]]\nkind = \"{}\"\n{needed}", row.kind)).settings();
        assert_eq!(settings.sources.len(), 1);
    }
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    let interval = |scene: &Scene| first_source(scene).interval();
    let of_file = || scene("poll-interval = \"4s\"\n");
    let flags = || Flags { poll_interval: Some("2s".to_owned()), ..Flags::default() };
    assert_eq!(interval(&scene("#\n")), Duration::from_secs(5));
    assert_eq!(interval(&of_file()), Duration::from_secs(4));
    let of_variable = of_file().set("SPOT_WATCHDOG_POLL_INTERVAL", "3s");
    assert_eq!(interval(&of_variable), Duration::from_secs(3));
    assert_eq!(interval(&of_variable.flags(flags())), Duration::from_secs(2));
}

/// The first source that is named, or may be found.
fn first_source(scene: &Scene) -> Arc<dyn Source> {
    let settings = scene.settings();
    let candidate = settings.candidates.first().map(|candidate| Arc::clone(&candidate.source));
    candidate.unwrap_or_else(|| Arc::clone(&settings.sources[0]))
}

#[test]
fn a_mistake_in_the_file_is_told_even_where_a_flag_beats_it() {
    let flags = Flags { poll_interval: Some("2s".to_owned()), ..Flags::default() };
    let said = scene("poll-interval = 4\n").flags(flags).refused();
    assert_eq!(said, "watchdog.toml:1: poll-interval: 4 has no unit; write \"4s\" if seconds are meant");
}

#[test]
fn variables_hold_lists_numbers_and_nothing() {
    let settings = scene("listen = \"off\"\n")
        .set("SPOT_WATCHDOG_LISTEN", "127.0.0.1:1, [::1]:2")
        .set("SPOT_WATCHDOG_ALLOWED_HOSTS", "a.example,B.example")
        .set("SPOT_WATCHDOG_EPISODES_KEPT", "7")
        .set("SPOT_WATCHDOG_EXPOSE", "")
        .set("SPOT_WATCHDOG_STATE_DIR", "state")
        .settings();
    assert_eq!(settings.listen, ["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()]);
    assert_eq!(settings.allowed_hosts, ["a.example", "b.example"]);
    assert_eq!(settings.episodes_kept, 7);
    assert_eq!(settings.expose, Expose::Health);
    assert!(settings.state_dir.is_some_and(|dir| dir.is_absolute() && dir.ends_with("state")));
}

#[test]
fn an_unknown_variable_is_a_warning_with_the_nearest_name() {
    let settings = scene("#\n").set("SPOT_WATCHDOG_LOG", "foo").settings();
    assert_eq!(
        (settings.warnings[0].subject.as_str(), settings.warnings[0].sentence.as_str()),
        ("SPOT_WATCHDOG_LOG", "there is no level \"foo\" and it is ignored; it may be \"info\" or \"debug\"")
    );
    let settings = scene("#\n").set("SPOT_WATCHDOG_LOG", "debug").set("SPOT_WATCHDOG_POL_INTERVAL", "3s").settings();
    let warning = &settings.warnings[0];
    assert_eq!(warning.subject, "SPOT_WATCHDOG_POL_INTERVAL");
    assert_eq!(
        warning.sentence,
        "no such variable is known, and it is ignored; did you mean SPOT_WATCHDOG_POLL_INTERVAL?"
    );
}

#[test]
fn a_wrong_flag_is_a_matter_of_usage_and_a_wrong_variable_is_not() {
    let flags = Flags { listen: vec!["9189".to_owned()], ..Flags::default() };
    let refused = scene("#\n").flags(flags).load().unwrap_err();
    assert_eq!(refused.kind(), ConfigErrorKind::Usage);
    assert_eq!(
        refused.to_string(),
        "--listen: \"9189\" has no address; write \"127.0.0.1:9189\" for this machine, \"0.0.0.0:9189\" for every network"
    );
    let refused = scene("#\n").set("SPOT_WATCHDOG_LISTEN", "here").load().unwrap_err();
    assert_eq!(refused.kind(), ConfigErrorKind::Configuration);
    assert_eq!(
        refused.to_string(),
        "SPOT_WATCHDOG_LISTEN: \"here\" is no address with a port; write one as \"127.0.0.1:9189\" or \"[::1]:9189\""
    );
}

#[test]
fn without_a_file_or_a_hook_there_is_nothing_to_do() {
    let nothing = scene("");
    let refused = nothing.load().unwrap_err();
    assert_eq!(refused.kind(), ConfigErrorKind::Usage);
    insta::assert_snapshot!(nothing.refused(), @r"
    nothing to do: no --hook, no --target-group, no --config, and there is no watchdog.toml
    give it a command to run when the machine is to be taken: watchdog --hook ./save_checkpoint.sh
    ");
}

#[test]
fn a_file_that_is_named_and_missing_is_told() {
    let flags = Flags { config: Some("/nowhere/watchdog.toml".to_owned()), ..Flags::default() };
    let said = scene("").flags(flags).refused();
    assert_eq!(said, "/nowhere/watchdog.toml: cannot be read: no such file or directory");
}

#[test]
fn a_step_is_read_with_its_kinds_defaults() {
    let file = "[[step]]\nname = \"out\"\nkind = \"target-group\"\ntarget-groups = [\"a\"]\n\
                [[step]]\nname = \"save\"\nkind = \"hook\"\ncommand = [\"/x\"]\nafter = [\"out\"]\n\
                timeout = \"2s\"\noptional = true\nhold-until-left = \"1m\"\nretries = 4\nrepeat = false\nrerun = \"never\"\n";
    let settings = scene(file).settings();
    let [out, save] = settings.policy.steps.as_slice() else { panic!("two steps") };
    assert_eq!((out.needs, out.repeat, out.undo), (Duration::from_secs(3), false, Undo::PutBack));
    assert_eq!(save.needs, Duration::from_secs(2), "a default is no more than the timeout");
    assert_eq!(save.hold_until_left, Some(Duration::from_secs(60)));
    assert_eq!((save.retries, save.repeat, save.rerun, save.optional), (4, false, Rerun::Never, true));
    assert_eq!(save.after, std::slice::from_ref(&out.name));
    assert_eq!(settings.steps[1].action.describe(), "command = [\"/x\"]", "only its own keys are its kind's");
}

#[test]
fn everything_wrong_is_told_at_once_with_line_key_and_the_nearest_name() {
    insta::assert_snapshot!(refused(r#"
listn = "off"
poll-interval = 5
reserve = "five"
maintenance-lead = "-1s"
least-window = "10ms"
survived-after = "9000h"
expose = "al"
log-format = "yaml"
undo-on-survival = true
episodes-kept = 0
allowed-hosts = ["good.example", "http://bad.example"]
metadata-endpoint = "http://user:secret@10.0.0.1/"
state-dir = "~/state"

[assume]
hibernation = "60s"
shutdown = 25.5

[[source]]
kind = "awss"

[[source]]
kind = "shutdown"
poll-interval = "5s"

[[source]]
kind = "aws"
imds-v1 = "alow"
poll-interval = "49ms"

[[source]]
kind = "aws"
"#), @r#"
    watchdog.toml:2: unknown key "listn"; did you mean "listen"?
    watchdog.toml:3: poll-interval: 5 has no unit; write "5s" if seconds are meant
    watchdog.toml:4: reserve: "five" is no duration; write one as "250ms", "5s" or "1m30s"
    watchdog.toml:5: maintenance-lead: "-1s" is less than nothing
    watchdog.toml:6: least-window: "10ms" is too short; the least is "1s"
    watchdog.toml:7: survived-after: "9000h" is longer than a year
    watchdog.toml:8: expose: unknown "al"; did you mean "all"?
    watchdog.toml:9: log-format: unknown "yaml"; it may be "text" or "json"
    watchdog.toml:10: undo-on-survival: true is not what stands here; write "put-back" or "stay"
    watchdog.toml:11: episodes-kept: 0 is not what stands here; write a whole number from 1 to 10000
    watchdog.toml:12: allowed-hosts: "http://bad.example" is no host name; write it without scheme and port
    watchdog.toml:13: metadata-endpoint: not a usable address (write http://HOST or http://HOST:PORT): it must not hold a user or a password
    watchdog.toml:14: state-dir: "~/state" is read by no shell, which would expand it; write the whole path
    watchdog.toml:17: [assume]: unknown key "hibernation"; did you mean "hibernate"?
    watchdog.toml:18: [assume]: shutdown: 25.5 has no unit; write "25.5s" if seconds are meant
    watchdog.toml:21: source 1: kind: unknown kind of source "awss"; did you mean "aws"?
    watchdog.toml:25: source "shutdown": unknown key "poll-interval"; there is only "kind"
    watchdog.toml:29: source "aws": imds-v1: unknown "alow"; did you mean "allow"?
    watchdog.toml:30: source "aws": poll-interval: "49ms" is too short; the least is "50ms"
    watchdog.toml:33: source "aws": kind: this source is there already
    "#);
}

#[test]
fn everything_wrong_with_steps_is_told_at_once() {
    insta::assert_snapshot!(refused(r#"
[[step]]
name = "checkpoint"
kind = "hook"
command = ["/x"]
timout = "90s"
needs = "2m"
timeout = "90s"

[[step]]
name = "Check Point"
kind = "hok"

[[step]]
kind = "hook"
on = []
optional = "yes"
retries = -1
rerun = "always"
proof = { newr = "/mnt/*" }

[[step]]
name = "tell"
kind = "hook"
command = ["/x"]
after = ["chekpoint", "tell"]
on = ["interruption", "interuption"]

[[step]]
name = "tell"
kind = "hook"
"#), @r#"
    watchdog.toml:6: step "checkpoint": unknown key "timout"; did you mean "timeout"?
    watchdog.toml:7: step "checkpoint": needs: "120s" is more than its timeout, "90s"
    watchdog.toml:11: step 2: name: "Check Point" is no name; a name is of a-z, 0-9, "-", "_" and ".", at most 64 characters
    watchdog.toml:12: step 2: kind: unknown kind of step "hok"; did you mean "hook"?
    watchdog.toml:14: step 3: name is missing
    watchdog.toml:16: step 3: on: a step for no kind of notice would never run; leave the step out instead
    watchdog.toml:17: step 3: optional: "yes" is not what stands here; write true or false, without quotes
    watchdog.toml:18: step 3: retries: -1 is not what stands here; write a whole number from 0 to 100
    watchdog.toml:19: step 3: rerun: unknown "always"; it may be "if-lost" or "never"
    watchdog.toml:20: step 3: proof: unknown key "newr"; did you mean "newer"?
    watchdog.toml:26: step "tell": after: a step cannot wait for itself
    watchdog.toml:26: step "tell": after: there is no step "chekpoint"; did you mean "checkpoint"?
    watchdog.toml:27: step "tell": on: unknown kind of notice "interuption"; did you mean "interruption"?
    watchdog.toml:29: step "tell": command is missing
    watchdog.toml:30: step "tell": name: another step has this name
    "#);
}

#[test]
fn a_circle_is_shown() {
    let step = |name: &str, after: &str| {
        format!("[[step]]\nname = \"{name}\"\nkind = \"hook\"\ncommand = [\"/x\"]\nafter = [{after}]\n")
    };
    let file = [step("a", "\"b\""), step("b", "\"d\", \"c\""), step("c", "\"a\""), step("d", "")].concat();
    assert_eq!(refused(&file), "watchdog.toml:5: step \"a\": after: these steps wait for each other: a → b → c → a");
    let diamond = [step("a", "\"b\", \"c\""), step("b", "\"d\""), step("c", "\"d\""), step("d", "")].concat();
    assert_eq!(refused(&diamond), "everything is well");
}

#[test]
fn what_is_no_toml_is_told_alone() {
    insta::assert_snapshot!(refused("listen = \"off\"\nlisten = \"off\"\nexpose = \"al\"\n"), @"watchdog.toml:2: not valid TOML: duplicate key, at `listen`");
    insta::assert_snapshot!(refused("listen = \n\n[[step]\n"), @r#"
    watchdog.toml:1: not valid TOML: string values must be quoted, expected literal string
    watchdog.toml:3: not valid TOML: unclosed array table, expected `]`
    "#);
    insta::assert_snapshot!(refused("step = \"x\"\nassume = 3\nsource = [1]\n"), @r#"
    watchdog.toml:1: step: each step begins with [[step]]
    watchdog.toml:2: assume is a table, and begins with [assume]
    watchdog.toml:3: source: each source begins with [[source]]
    "#);
}

#[test]
fn a_file_has_bounds_and_an_encoding() {
    let large = scene(&"#".repeat((1 << 20) + 1));
    assert_eq!(large.refused(), "watchdog.toml: is larger than 1 MiB, which no configuration is");
    let latin = scene("x");
    std::fs::write(&latin.start.usual_file, b"# fine\n# caf\xe9\n").unwrap();
    assert_eq!(latin.refused(), "watchdog.toml:2: is not UTF-8; save the file as UTF-8");
    let steps = "[[step]]\n".repeat(101);
    assert_eq!(refused(&steps), "watchdog.toml:101: more than 100 steps");
    let typed = scene("").flags(hooks(&["/x"; 101])).refused();
    assert_eq!(typed, "--hook: more than 100 steps");
}

#[test]
fn a_poll_interval_for_tests_warns() {
    let settings = scene("poll-interval = \"200ms\"\n").settings();
    let warned: Vec<_> = settings.warnings.iter().map(|warning| warning.subject.as_str()).collect();
    assert_eq!(warned, ["poll-interval", "steps"]);
    let settings = scene("poll-interval = \"200ms\"\n[[source]]\nkind = \"aws\"\n").settings();
    let warned: Vec<_> = settings.warnings.iter().map(|warning| warning.subject.as_str()).collect();
    assert_eq!(warned, ["source aws", "steps"]);
}

#[test]
fn a_daemon_is_looked_for_where_its_configuration_puts_it_even_if_that_is_wrong_elsewhere() {
    let found =
        daemon_address(&scene("listen = \"127.0.0.1:7\"\nstate-dir = \"/elsewhere\"\npoll-interval = 5\n").start);
    assert_eq!(found.listen, ["127.0.0.1:7".parse().unwrap()]);
    assert_eq!(found.state_dir, Some(PathBuf::from("/elsewhere")));
    let found = daemon_address(&scene("").start);
    assert_eq!(found.state_dir, None);
    assert_eq!(found.listen, ["127.0.0.1:9189".parse().unwrap()]);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_is_done_to_a_file_it_is_read_or_refused(
        cut in 0..12_000_usize,
        length in 0..40_usize,
        paste in proptest::sample::select(vec!["", "\0", "é", "\"", "[", "]]", "= ", "\n[[step]]\n", "99999999999999999999", "{ a = {} }"]),
    ) {
        let whole: Vec<char> = shipped_whole().chars().collect();
        let cut = cut.min(whole.len());
        let rest = whole.iter().skip(cut + length);
        let changed: String = whole.iter().take(cut).copied().chain(paste.chars()).chain(rest.copied()).collect();
        let said = refused(&changed);
        proptest::prop_assert!(!said.is_empty() && said.lines().count() <= 50, "{said}");
        proptest::prop_assert!(said.lines().all(|line| line.starts_with("watchdog.toml:") || line == "everything is well"), "{said}");
    }
}

#[test]
fn a_message_that_cannot_be_is_refused_with_file_line_and_the_nearest_field() {
    let refused = refused(
        "[[notification]]\nkind = \"webhook\"\nurl = \"https://hooks.example/x\"\n\
         body = '{\"text\": \"{{secnds_left}}\"}'\n\
         [[notification]]\nkind = \"mail\"\nname = \"a\"\nsend = [\"begin\"]\non = [\"fire\"]\nurl-fil = \"/x\"\n\
         [[notification]]\nname = \"a\"\nkind = \"webhook\"\nurl-variable = \"X\"\n\
         [[step]]\nname = \"tell\"\nkind = \"webhook\"\n",
    );
    for line in [
        ":4: notification \"webhook\": body: knows no field {{ secnds_left }}; did you mean {{ seconds_left }}?",
        ":6: notification \"a\": kind: unknown kind of notification \"mail\"; there is only \"webhook\"",
        ":8: notification \"a\": send: unknown \"begin\"; it may be \"detection\", \"failure\" or \"end\"",
        ":9: notification \"a\": on: unknown kind of notice \"fire\"",
        ":10: notification \"a\": unknown key \"url-fil\"; did you mean \"url-file\"?",
        ":12: notification \"a\": name: another notification has this name",
        ":17: step \"tell\": kind: a notification is no step, since nothing waits for it; write it as [[notification]]",
    ] {
        assert!(refused.contains(line), "{line}\nin\n{refused}");
    }
}

#[test]
fn a_hook_on_the_command_line_has_a_proof_and_its_share_of_the_time() {
    let typed = Flags {
        hook: vec!["/save".to_owned(), "/tell".to_owned()],
        proof: Some("ckpt/*/DONE".to_owned()),
        needs: Some("20s".to_owned()),
        timeout: Some("90s".to_owned()),
        window: Some("30s".to_owned()),
        target_group: vec!["arn:x".to_owned()],
        ..Flags::default()
    };
    let scene = scene("").flags(typed);
    let settings = scene.settings();
    assert_eq!(settings.policy.assume.interruption, Duration::from_secs(30));
    for (step, of) in settings.policy.steps.iter().zip(&settings.steps) {
        let is_hook = of.kind == "hook";
        assert_eq!(step.timeout, is_hook.then_some(Duration::from_secs(90)), "{}", step.name);
        assert_eq!(step.needs == Duration::from_secs(20), is_hook, "{}", step.name);
        let proof = format!("newer = \"{}\"", scene.folder.path().join("ckpt/*/DONE").display());
        assert_eq!(of.action.describe().contains(&proof), is_hook, "{}", of.action.describe());
    }
    let shorter = Flags { timeout: Some("2s".to_owned()), ..hooks(&["/save"]) };
    assert_eq!(self::scene("").flags(shorter).settings().policy.steps[0].needs, Duration::from_secs(2));
}

#[test]
fn what_is_said_of_hooks_needs_one_and_fits_together() {
    let needs = |needs: &str, timeout: Option<&str>, hook: &[&str]| {
        let timeout = timeout.map(str::to_owned);
        scene("listen = \"off\"\n").flags(Flags { needs: Some(needs.to_owned()), timeout, ..hooks(hook) }).refused()
    };
    assert_eq!(needs("90s", Some("20s"), &["/save"]), "--hook: needs: \"90s\" is more than its timeout, \"20s\"");
    assert_eq!(needs("9s", None, &[]), "--needs: it is for each --hook, and none is given");
    assert_eq!(needs("9", None, &["/save"]), "--needs: 9 has no unit; write \"9s\" if seconds are meant");
}
