//! The log of the real binary: quiet while all is calm; in an episode a line for each event, with the seconds that are
//! left; as JSON with keys that stay.

#![expect(clippy::disallowed_methods, reason = "a test beside real processes has nothing to do but wait for them")]
#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

#[expect(dead_code, reason = "other tests play longer stories with it")]
#[path = "support/daemon.rs"]
mod stand;

use serde_json::Value;
use spot_watchdog::emulators::service::{EmulatedAction, Script, StatedTime};
use stand::{Cloud, Scene, Watch, wait_for};
use std::collections::BTreeSet;
use std::time::Duration;

/// The keys that a line may have, as docs/endpoint.md names them.
const KEYS: [&str; 18] = [
    "timestamp",
    "level",
    "message",
    "event",
    "seconds-left",
    "episode",
    "notice",
    "source",
    "step",
    "work",
    "attempt",
    "outcome",
    "reason",
    "stream",
    "pid",
    "lines",
    "reads",
    "misses",
];

/// A machine is interrupted while a chain of three steps is configured, of which one fails, is tried again and fails, and
/// the last one prints something; then the daemon is asked to end. Gives its log.
fn interrupted(format: &str) -> String {
    let (cloud, scene) = (Cloud::playing(Script::default()), Scene::new());
    let fails = scene.script("fails", "echo 'no space left on device' >&2; exit 3");
    let saves = scene.script("saves", "echo 'saved 8 of 8'");
    let file = scene.write(
        "watchdog.toml",
        &format!(
            "[[step]]\nname = \"fails\"\nkind = \"hook\"\ncommand = [\"{fails}\"]\n\
             [[step]]\nname = \"saves\"\nkind = \"hook\"\ncommand = [\"{saves}\"]\nafter = [\"fails\"]\n\
             on = [\"interruption\"]\n"
        ),
    );
    let file = file.to_str().unwrap().to_owned();
    let mut watch = Watch::start(scene.watch(&cloud.url, &["--config", &file, "--log-format", format]));
    wait_for("the start", || watch.log().contains("serving http://").then_some(()));
    // Polls, twenty a second, and not a word.
    let before = watch.log();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(watch.log(), before, "quiet while nothing happens");
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    wait_for("the end of the last step", || watch.log().contains("saves done").then_some(()));
    watch.stop();
    watch.log()
}

#[test]
fn an_interruption_reads_as_a_story_in_which_every_line_says_what_is_left() {
    let log = interrupted("text");
    assert!(!log.contains('\u{1b}'), "no colours where no terminal is: {log:?}");
    let mut told = Vec::new();
    for line in log.lines() {
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.len() == 24 && time.parse::<jiff::Timestamp>().is_ok(), "{line}");
        let mut words = String::new();
        for letter in rest.chars() {
            // Numbers differ from run to run.
            match (letter.is_ascii_digit(), words.ends_with('N')) {
                (true, true) => {}
                (true, false) => words.push('N'),
                (false, _) => words.push(letter),
            }
        }
        // The notice may come between two questions, and be heard first where less is said.
        told.push(words.replace(" (by termination-time)", ""));
    }
    // What hooks print comes when it comes, even before the daemon has said that they begin.
    let (printed, told): (Vec<String>, Vec<String>) = told.into_iter().partition(|line| line.contains(" | "));
    let begins = told.iter().position(|line| line.contains("notice:")).unwrap();
    assert_eq!(printed.len(), 3, "{printed:?}");
    assert!(printed.contains(&"INFO saves | saved N of N".to_owned()), "{printed:?}");
    insta::assert_snapshot!(told[begins..].join("\n"), @r"
    INFO [Ns left] notice: interruption from aws, terminate at N-N-NTN:N:NZ; Ns left
    INFO [Ns left] episode NTNZ-N opened
    INFO [Ns left] planning for Ns, of which Ns are for steps
    INFO [Ns left] saves waits for fails
    INFO [Ns left] fails started: process N, to end within Ns
    ERROR [Ns left] fails failed: exit status N; trying again in Ns (attempt N of N)
    INFO [Ns left] fails (attempt N) started: process N, to end within Ns
    ERROR [Ns left] fails (attempt N) failed: exit status N
    INFO [Ns left] saves started: process N, to end within Ns
    INFO [Ns left] saves done: exit status N, no proof asked for
    ERROR [Ns left] work or requests may be lost: fails failed
    INFO [Ns left] asked to end
    INFO [Ns left] notice: shutdown (we were asked to end by a signal); Ns assumed left
    INFO [Ns left] planning for Ns, of which Ns are for steps
    INFO [Ns left] nothing is due or running; ending
    INFO ended
    ");
}

#[test]
fn a_log_for_machines_has_keys_that_stay() {
    let log = interrupted("json");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let known: BTreeSet<&str> = KEYS.into();
    for line in &lines {
        let keys: BTreeSet<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
        assert!(keys.is_subset(&known), "a key that docs/endpoint.md does not name: {line}");
        assert!(line["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{line}");
        assert!(["INFO", "WARN", "ERROR"].contains(&line["level"].as_str().unwrap()), "{line}");
        assert!(!line["message"].as_str().unwrap().is_empty(), "{line}");
    }
    let of_episode: Vec<&Value> = lines.iter().filter(|line| line.get("episode").is_some()).collect();
    let episode = &of_episode[0]["episode"];
    for line in &of_episode {
        assert_eq!(&line["episode"], episode, "{line}");
        assert!(line["seconds-left"].as_u64().is_some_and(|left| left <= 120), "{line}");
        assert!(line["event"].is_string(), "{line}");
    }
    let story: Vec<String> = of_episode
        .iter()
        .map(|line| {
            let word = |key: &str| line[key].as_str().map_or_else(String::new, |word| format!(" {word}"));
            let attempt = line["attempt"].as_u64().map_or_else(String::new, |attempt| format!(" {attempt}"));
            format!(
                "{}{}{}{attempt}{}{}",
                line["event"].as_str().unwrap(),
                word("notice"),
                word("step"),
                word("outcome"),
                word("reason")
            )
        })
        .collect();
    insta::assert_snapshot!(story.join("\n"), @r"
    notice-appeared interruption
    episode-opened
    deadline-set
    step-due saves
    step-started fails 1
    step-ended fails 1 failed
    step-started fails 2
    step-ended fails 2 failed
    step-started saves 1
    step-ended saves 1 done
    steps-ended
    exit-asked
    notice-appeared shutdown
    deadline-set
    exited
    ");
    let printed = lines.iter().find(|line| line["message"] == "saved 8 of 8").unwrap();
    assert_eq!(
        (&printed["step"], &printed["stream"], &printed["attempt"]),
        (&"saves".into(), &"stdout".into(), &1.into())
    );
}
