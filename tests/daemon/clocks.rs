//! Notices that say strange things about time, and clocks that differ. What is read of a notice may be wrong; the hook
//! runs, with no more time than there may be.

use super::stand::{Cloud, Scene, Watch};
use super::{ACTION, NOTES, troubled};
use jiff::{SignedDuration, Timestamp};
use spot_watchdog::emulators::service::{Behaviour, DateSaid, EmulatedAction, Script, StatedTime, Trouble};
use std::ops::RangeInclusive;
use std::thread;

/// Hears a notice in these words, and returns the seconds that the hook was told.
fn told(body: &str, action: &str, words: &str) -> u64 {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let hook = scene.script("save.sh", NOTES);
    let mut watch = Watch::start(scene.watch(&cloud.url, &["--hook", &hook]));
    watch.says(&["watching"]);
    let spoiled = troubled(ACTION, Behaviour::Body(body.as_bytes().to_vec()));
    cloud.emulator.change(|script| script.troubles = spoiled.troubles);
    watch.says(&["notice: interruption from aws", words]);
    watch.says(&["save done"]);
    assert_eq!(scene.noted("SPOT_ACTION"), action, "{}", watch.log());
    let left = scene.noted("SPOT_SECONDS_LEFT").parse().unwrap();
    watch.stop();
    left
}

fn second(seconds: i64) -> String {
    ahead(seconds).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn ahead(seconds: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(seconds)
}

#[test]
fn a_notice_with_an_unknown_action_or_a_strange_time_runs_the_hook() {
    let in_time = 95..=115;
    thread::scope(|scope| {
        let zoneless = ahead(120).strftime("%Y-%m-%dT%H:%M:%S").to_string();
        for (action, time, known, words, wanted) in [
            ("evaporate", second(120), "terminate", "the action \"evaporate\" is not known", in_time.clone()),
            ("terminate", zoneless, "terminate", "a time that cannot be read", in_time.clone()),
            ("terminate", "soon".to_owned(), "terminate", "a time that cannot be read (\"soon\")", in_time.clone()),
            ("terminate", second(-45), "terminate", "10s assumed left", 5..=9),
            ("stop", second(365 * 86_400), "stop", "120s assumed left", in_time.clone()),
        ] {
            scope.spawn(move || {
                let body = format!("{{\"action\": \"{action}\", \"time\": \"{time}\"}}");
                let left = told(&body, known, words);
                assert!(wanted.contains(&left), "{action} {time}: {left} s");
            });
        }
    });
}

fn told_by_a_clock(minutes_ahead: i64, date: Option<DateSaid>, wanted: RangeInclusive<u64>) {
    let anywhere = |date| Trouble { path: None, ..Trouble::at("", Behaviour::Date(date)) };
    let troubles = date.iter().cloned().map(anywhere).collect();
    let script = Script { ahead: SignedDuration::from_mins(minutes_ahead), troubles, ..Script::default() };
    let (scene, cloud) = (Scene::new(), Cloud::playing(script));
    let hook = scene.script("save.sh", NOTES);
    let mut watch = Watch::start(scene.watch(&cloud.url, &["--hook", &hook]));
    watch.says(&["watching"]);
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    watch.says(&["save done"]);
    let left = scene.noted("SPOT_SECONDS_LEFT").parse().unwrap();
    assert!(wanted.contains(&left), "{minutes_ahead} min, {date:?}: {left} s\n{}", watch.log());
    watch.stop();
}

#[test]
fn a_clock_that_is_three_minutes_off_is_corrected_where_the_cloud_tells_its_time_and_never_trusted_too_far() {
    thread::scope(|scope| {
        for minutes in [-3, 3] {
            scope.spawn(move || told_by_a_clock(minutes, None, 95..=115));
        }
        // Then nobody can know; the usual window of two minutes is the most that is believed.
        let left_out = || Some(DateSaid::Text(String::new()));
        scope.spawn(move || told_by_a_clock(3, left_out(), 95..=115));
        scope.spawn(move || told_by_a_clock(-3, left_out(), 5..=9));
    });
}
