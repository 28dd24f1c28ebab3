//! Fleets that are made up here, told as one.

#![expect(clippy::unwrap_used, reason = "a test stops where something is not as promised")]

use super::*;
use serde_json::{Value, json};

fn terms() -> FleetTerms {
    FleetTerms { gpus: 8.0, price: Some(2.5), currency: "USD".to_owned(), machine_hours: None, checkpoint: None }
}

/// The report of a machine that booted a number of hours before it was taken.
fn report(number: i64, hours: i64, change: impl FnOnce(&mut Value)) -> Report {
    let first: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
    let opened = first + jiff::SignedDuration::from_hours(7 * number);
    let at = |seconds: i64| (opened + jiff::SignedDuration::from_secs(seconds)).to_string();
    let mut value = json!({
        "schema": 1, "written": at(70), "machine": { "id": format!("i-{number:03}") }, "last-report-by": at(120),
        "episode": {
            "id": format!("{opened}-1"), "opened": at(0), "booted": at(-3_600 * hours), "complete": true, "good": true,
            "margin-seconds": 40 + number,
            "notices": [{ "kind": "interruption", "announced": "interruption", "source": "aws", "action": "terminate",
                "deadline": { "at": at(120), "seconds-left": 50 }, "deadline-basis": "stated", "detected": at(0),
                "detection-delay-seconds": 3 + number % 3 }],
            "steps": [
                { "name": "leave", "attempts": 1, "outcome": "done", "good": true, "duration-seconds": 1 },
                { "name": "save", "attempts": 1, "outcome": "done", "good": true, "duration-seconds": 60, "proof-before": at(-1_800),
                    "proof-after": at(60) },
                { "name": "upload" },
            ],
        },
    });
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

fn told(reports: &[Report], terms: &FleetTerms) -> FleetSummary {
    let mut fleet = Fleet::default();
    reports.iter().for_each(|report| fleet.take_in(report));
    fleet.tell(terms)
}

#[test]
fn a_fleet_is_told_with_what_it_lost_and_how_often_to_save() {
    let mut reports: Vec<Report> = (0..18).map(|number| report(number, 20 + number, |_| {})).collect();
    reports[3] = report(3, 23, |it| {
        it["episode"]["good"] = json!(false);
        it["episode"]["steps"][1]["outcome"] = json!("timed-out");
        it["episode"]["steps"][1]["good"] = json!(false);
        it["episode"]["steps"][2] = json!({ "name": "upload", "outcome": "skipped", "good": false });
    });
    reports[4] = report(4, 24, |it| {
        it["episode"]["complete"] = json!(false);
        it["episode"]["good"] = json!(false);
        it["episode"]["steps"][1] = json!({ "name": "save", "attempts": 1, "proof-before": "2026-03-02T03:00:00Z" });
    });
    reports[5] = report(5, 25, |it| it["episode"]["notices"][0]["kind"] = json!("scale-in"));
    reports[6] = report(6, 26, |it| it["episode"]["notices"][0]["withdrawn"] = json!("2026-03-02T18:00:20Z"));
    reports[7] = report(7, 27, |it| it["episode"]["close-reason"] = json!("survived"));
    reports[8] = report(8, 28, |it| it["rehearsal"] = json!(true));
    reports[9] = report(9, 29, |it| it["episode"]["notices"][0]["kind"] = json!("rebalance"));
    insta::assert_snapshot!(told(&reports, &terms()).to_string(), @r#"
    interruptions    14 (13 by interruption, 1 by scale-in) of 14 machines
                     from 2026-03-01 to 2026-03-05
    beside them      2 withdrawn or survived, 0 shutdowns, 1 warnings, 1 rehearsals (1 good)
    all was done     in 12 of 14
    end never told   of 1 (i-004): their last report says that steps were still due
    detected after   4s median, 5s at worst (14 known)
    margin           50s median, 40s at least (14 known)
    steps failed     save: 1 timed-out
                     upload: 1 skipped
    work saved       6h in 12 interruptions: 48.0 GPU hours, 120.00 USD
    work lost        1h30m in 2 interruptions: 12.0 GPU hours, 30.00 USD

    Save every 58m6s to lose least: √(2·C·M) is 58m46s (Young), and 58m6s with Daly's higher order, where
      C = 60s is what a checkpoint takes, in the middle
      M = 1d4h is the mean time between interruptions of one machine
    With 95 % of certainty M is from 18h7m to 2d4h, which makes it every 45m58s to 1h18m.
    This takes interruptions for independent of one another, at a rate that stays the same.
    M is counted from boot to interruption. Machines that were never interrupted leave no report, so M is really longer:
    say with --machine-hours for how long all machines ran together.
    "#);
}

#[test]
fn a_step_that_was_skipped_as_the_policy_allows_is_no_failure() {
    let allowed =
        report(1, 5, |it| it["episode"]["steps"][2] = json!({ "name": "upload", "outcome": "skipped", "good": true }));
    let summary = told(&[allowed], &terms());
    assert_eq!((summary.good, summary.failed.len()), (1, 0));
}

#[test]
fn one_that_was_written_twice_counts_once_as_it_was_at_the_end() {
    let whole = report(1, 5, |_| {});
    let early = report(1, 5, |it| {
        it["episode"]["complete"] = json!(false);
        it["written"] = json!("2030-01-01T00:00:00Z");
    });
    for order in [[whole.clone(), early.clone()], [early, whole]] {
        let summary = told(&order, &terms());
        assert_eq!((summary.interruptions, summary.never_ended), (1, 0), "whatever order files come in");
    }
}

#[test]
fn a_machine_that_is_taken_again_is_counted_from_the_time_before() {
    let again: Vec<Report> =
        (0..12).map(|number| report(number, 100 + 7 * number, |it| it["machine"]["id"] = json!("i-same"))).collect();
    let interval = told(&again, &terms()).interval.unwrap();
    // 100 hours to the first, then 7 to each of eleven others.
    assert!((interval.between_seconds - 3_600.0 * (100.0 + 77.0) / 12.0).abs() < 1.0, "{interval:?}");
    let counted = told(&again, &FleetTerms { machine_hours: Some(1_200.0), ..terms() }).interval.unwrap();
    assert!((counted.between_seconds - 360_000.0).abs() < 1.0);
}

#[test]
fn little_is_known_of_few_and_nothing_of_none() {
    insta::assert_snapshot!(told(&[], &terms()).to_string(), @r#"
    interruptions    0 of 0 machines
    beside them      0 withdrawn or survived, 0 shutdowns, 0 warnings, 0 rehearsals (0 good)
    all was done     in 0 of 0
    detected after   not known
    margin           not known
    steps            none failed
    work saved       0s in 0 interruptions: 0.0 GPU hours, 0.00 USD
    work lost        0s in 0 interruptions: 0.0 GPU hours, 0.00 USD

    Nothing is said of the interval between checkpoints: 0 interruptions are known, and below 10 that would be a guess.
    "#);
    let summary = told(&(0..9).map(|number| report(number, 5, |_| {})).collect::<Vec<_>>(), &terms());
    assert!(summary.why_no_interval.unwrap().contains("9 interruptions are known, and below 10"));
    let without = |it: &mut Value| it["episode"]["steps"] = json!([]);
    let unproven = (0..12).map(|number| report(number, 5, without)).collect::<Vec<_>>();
    assert!(told(&unproven, &terms()).why_no_interval.unwrap().contains("--checkpoint"));
    assert!(told(&unproven, &FleetTerms { checkpoint: Some(Duration::from_secs(60)), ..terms() }).interval.is_some());
    assert_eq!(told(&unproven, &terms()).work_unknown, 12);
}

#[test]
fn a_clock_that_was_set_makes_no_years_of_work() {
    let odd = report(1, 5, |it| {
        it["episode"]["steps"][1]["proof-before"] = json!("1970-01-01T00:00:00Z");
        it["episode"]["booted"] = json!("1970-01-01T00:00:00Z");
    });
    let summary = told(&[odd], &terms());
    assert_eq!((summary.saved.times, summary.work_unknown), (0, 1));
}
