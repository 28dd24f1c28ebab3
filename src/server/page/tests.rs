//! The page in each state, and with texts that nobody should be trusted with.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail by panicking")]
use super::*;
use crate::server::SourceStatus;
use crate::server::publisher::tests::{calm_publisher, draining_publisher};
use base64::Engine as _;
use proptest::prelude::*;
use serde_json::{Value, json};

/// A status of the publisher, with this changed in it.
fn status(publisher: &crate::server::StatusPublisher, change: impl FnOnce(&mut Value)) -> Status {
    let mut value = serde_json::to_value(publisher.read()).unwrap();
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

/// How a step ended, written over what it was before.
fn end(step: &mut Value, outcome: &str, detail: &str) {
    let sentence = format!("{outcome} in 25s, 80s to spare: {detail}");
    let end = json!({ "attempts": 1, "outcome": outcome, "detail": detail, "sentence": sentence,
        "ended": "2026-01-01T00:00:30Z", "duration-seconds": 25, "margin-seconds": 80, "leftover-processes": 0 });
    step.as_object_mut().unwrap().extend(end.as_object().unwrap().clone());
}

/// An episode whose only step stands there.
fn active(progress: &str, text: &str) -> Status {
    status(&draining_publisher(), |it| {
        let step = &mut it["episode"]["steps"][0];
        step["progress"] = json!(progress);
        if progress != "running" {
            step.as_object_mut().unwrap().retain(|key, _| key != "running");
        }
        if ["done", "failed", "timed-out", "skipped", "lost"].contains(&progress) {
            end(step, progress, text);
        }
        step["output"] = json!([text]);
        let failure = match progress {
            "failed" => "checkpoint failed",
            "timed-out" => "checkpoint ran out of time",
            "lost" => "checkpoint lost in a crash or reboot",
            _ => "",
        };
        step["failure"] = json!(failure);
        it["episode"]["complete"] = json!(!["due", "running"].contains(&progress));
        it["episode"]["good"] = json!(progress == "done");
        it["episode"]["verdict"] = json!("its only step done, 80s to spare");
    })
}

fn calm() -> Status {
    status(&calm_publisher(), |_| {})
}

/// What stands between the tags, as somebody reads it without a browser.
fn words(html: &str) -> String {
    let mut words = String::new();
    for part in html.split('<').skip(1) {
        words.push_str(part.split_once('>').unwrap().1);
        words.push(' ');
    }
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The tags with the names of their attributes: all that a text from outside must not touch.
fn skeleton(html: &str) -> Vec<String> {
    let mut tags = Vec::new();
    for part in html.split('<').skip(1) {
        let (tag, text) = part.split_once('>').unwrap_or_else(|| panic!("a tag without an end: {part}"));
        assert!(!text.contains('>'), "a bare > in {text}");
        let mut pieces = tag.split('"');
        let mut bones = String::new();
        while let Some(outside) = pieces.next() {
            bones.push_str(outside);
            let _value = pieces.next();
        }
        tags.push(bones);
    }
    tags
}

#[tokio::test(start_paused = true)]
async fn a_calm_page_says_who_is_watched_and_what_would_run() {
    let html = fragment(&calm(), &[], &[]);
    let words = words(&html);
    for wanted in [
        "All is calm.",
        "No notice is active. Watching aws.",
        "If a notice came now",
        "An interruption leaves 110s for steps (120s, less up to 5s until it is detected and 5s in reserve).",
        "begins by 70s , ends by 115s",
        "spot-watchdog 0.1.0",
    ] {
        assert!(words.replace(" ,", ",").contains(&wanted.replace(" ,", ",")), "{wanted} is not in: {words}");
    }
    assert!(html.starts_with("<main id=\"state\" class=\"calm\""));
}

#[tokio::test(start_paused = true)]
async fn each_state_has_its_headline() {
    let blind = [Reason::new("blind", "aws could not be read for 20s")];
    let partly = [Reason::new("blind-scale-in", "a notice of scale-in would not be detected")];
    let broken = [Reason::new("journal-broken", "the disk is full")];
    let settling = status(&draining_publisher(), |it| {
        it["episode"]["phase"] = json!("closing");
        it["episode"]["close-reason"] = json!("withdrawn");
    });
    let warned = status(&draining_publisher(), |it| {
        it["episode"]["strength"] = json!("weak");
        it["notices"][0]["kind"] = json!("rebalance");
    });
    let skipped = |good: bool, failure: &str| {
        let mut value =
            serde_json::to_value(active("skipped", "it is optional, and the others need the time")).unwrap();
        value["episode"]["good"] = json!(good);
        value["episode"]["steps"][0]["failure"] = json!(failure);
        serde_json::from_value::<Status>(value).unwrap()
    };
    let warming_up = Status {
        sources: vec![SourceStatus { warming_up: true, last_good_read: None, ..calm().sources[0].clone() }],
        ..calm()
    };
    for (status, reasons, class, headline) in [
        (skipped(true, ""), &[][..], "finished", "Everything is done."),
        (skipped(false, "checkpoint skipped"), &[], "failed", "checkpoint skipped."),
        (calm(), &[], "calm", "All is calm."),
        (calm(), &blind, "blind", "A source is blind."),
        (warming_up, &[], "calm", "A source is warming up."),
        (calm(), &partly, "blind", "Some notices would not be detected."),
        (calm(), &broken, "troubled", "Something is not as it should be."),
        (active("running", ""), &[], "draining", "This machine will be taken away."),
        (active("due", ""), &blind, "draining", "This machine will be taken away."),
        (active("done", "exit status 0"), &[], "finished", "Everything is done."),
        (active("failed", "exit status 3"), &[], "failed", "checkpoint failed."),
        (active("timed-out", "stopped"), &[], "failed", "checkpoint ran out of time."),
        (active("lost", ""), &[], "failed", "checkpoint lost in a crash or reboot."),
        (settling, &[], "settling", "The danger is over."),
        (warned, &[], "warned", "This machine may be taken away soon."),
    ] {
        let html = fragment(&status, reasons, &[]);
        assert!(html.contains(&format!("<main id=\"state\" class=\"{class}\"")), "{headline}");
        assert!(html.contains(&format!("<h1 id=\"headline\">{headline}</h1>")), "{headline} is not in {html}");
        let whole = document(&status, reasons, &[]);
        assert!(whole.contains(&format!("<title>{}", headline.trim_end_matches('.'))));
        assert!(whole.contains(&html), "the document holds the same as the fragment");
    }
}

#[tokio::test(start_paused = true)]
async fn an_episode_counts_down_and_draws_each_step_on_one_line() {
    tokio::time::advance(std::time::Duration::from_secs(30)).await;
    let html = fragment(&active("running", "shard 3 of 8"), &[], &[]);
    assert!(html.contains("data-clock=\"120\">2:00</span>"), "{html}");
    // 120 s in all, of which the last 5 are the reserve; the step may take 90.
    assert!(html.contains("<rect class=\"reserve\" x=\"95.83%\" width=\"4.17%\""), "{html}");
    assert!(html.contains("<rect class=\"may\" x=\"0.00%\" width=\"75.00%\""), "{html}");
    assert!(html.contains("<line class=\"stop\" x1=\"75.00%\""), "{html}");
    assert!(html.contains("<details data-key=\"output\" open>"), "what runs shows what it prints");
    let failed = fragment(&active("failed", "exit status 3"), &[], &[]);
    assert!(failed.contains("<details data-key=\"wrong\" open>"), "{failed}");
    assert!(failed.contains("<rect class=\"ran wrong\""), "{failed}");
    assert!(words(&failed).contains("failed in 25s, 80s to spare: exit status 3"), "{}", words(&failed));
}

#[tokio::test(start_paused = true)]
async fn what_is_said_aloud_changes_with_events_and_not_with_seconds() {
    let said = |status: &Status| {
        let html = fragment(status, &[], &[]);
        html.split("data-say=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    };
    let publisher = draining_publisher();
    let first = said(&publisher.read());
    tokio::time::advance(std::time::Duration::from_secs(7)).await;
    assert_eq!(said(&publisher.read()), first);
    assert_eq!(first, "This machine will be taken away. checkpoint running.");
    assert_ne!(said(&active("done", "")), first);
}

#[tokio::test(start_paused = true)]
async fn the_story_of_the_last_episode_is_told() {
    let told = status(&calm_publisher(), |it| {
        let at = json!("2026-01-01T00:00:00Z");
        it["last-episode"] = json!({
            "id": "e-1", "generation": 1, "opened": at, "closed": at, "phase": "closed",
            "close-reason": "survived",
            "complete": true, "good": true, "verdict": "its only step done, 80s to spare",
            "steps": [{ "name": "checkpoint", "kind": "hook", "describe": "", "attempt": 1, "progress": "done" }],
        });
        end(&mut it["last-episode"]["steps"][0], "done", "exit status 0");
    });
    let words = words(&fragment(&told, &[], &[]));
    assert!(words.contains("it closed because the machine still runs long after its deadline"), "{words}");
    assert!(words.contains("checkpoint done in 25s"), "{words}");
}

/// A report whose texts are this one.
fn report(text: &str) -> Report {
    let step = json!({ "name": text, "kind": text, "progress": "failed", "outcome": "failed", "detail": text, "sentence": text,
        "duration-seconds": 31, "output": [text] });
    let at = "2026-01-01T00:00:00Z";
    serde_json::from_value(json!({
        "schema": 1, "rehearsal": true, "written": at, "last-report-by": at,
        "episode": { "id": text, "opened": at, "complete": true, "verdict": text, "steps": [step] },
    }))
    .unwrap()
}

#[tokio::test(start_paused = true)]
async fn past_episodes_and_rehearsals_are_told_with_their_verdict() {
    let words = words(&fragment(&calm(), &[], &[report("1 step failed")]));
    assert!(words.contains("2026-01-01 00:00:00 UTC rehearsal 1 step failed. Its steps"), "{words}");
    assert!(words.contains("Its steps 1 step failed 1 step failed"), "{words}");
}

#[test]
fn the_policy_knows_the_style_and_the_script_by_their_hashes() {
    for (open, close, directive) in [("<script>", "</script>", "script-src"), ("<style>", "</style>", "style-src")] {
        assert_eq!(TEMPLATE.matches(open).count(), 1);
        let content = TEMPLATE.split_once(open).unwrap().1.split_once(close).unwrap().0;
        let digest = ring::digest::digest(&ring::digest::SHA256, content.as_bytes());
        let hash = base64::engine::general_purpose::STANDARD.encode(digest);
        let wanted = format!("{directive} 'sha256-{hash}'");
        assert!(CONTENT_SECURITY_POLICY.contains(&wanted), "page.html changed; in the policy write: {wanted}");
    }
    assert!(CONTENT_SECURITY_POLICY.starts_with("default-src 'none';"));
    assert!(!CONTENT_SECURITY_POLICY.contains("unsafe"));
}

#[tokio::test(start_paused = true)]
async fn the_page_is_small_and_asks_nobody_else() {
    assert_eq!(TEMPLATE.matches(STATE).count(), 1);
    assert_eq!(TEMPLATE.matches(TITLE).count(), 1);
    let full =
        status(&draining_publisher(), |it| it["episode"]["steps"][0]["output"] = json!(vec!["o".repeat(400); 20]));
    for status in [calm(), full] {
        let size = document(&status, &[], &[]).len();
        assert!(size < 60 * 1024, "{size} bytes");
    }
    // The name of a format is no address.
    let plain = TEMPLATE.replace("xmlns='http://www.w3.org/2000/svg'", "");
    for never in
        ["http:", "https:", "//cdn", "src=", "@import", "innerHTML", "outerHTML", "insertAdjacent", " style=", "eval("]
    {
        assert!(!plain.contains(never), "{never} stands in page.html");
    }
    let links: Vec<&str> = plain.split("href=\"").skip(1).map(|part| part.split('"').next().unwrap()).collect();
    assert!(
        links.iter().all(|link| link.starts_with(['#', 'd']) || ["status", "metrics", "healthz"].contains(link)),
        "{links:?}"
    );
}

/// A status that has this text wherever a text from outside can be.
fn full_of(text: &str, episode: bool) -> (Status, Vec<Reason>) {
    let publisher = if episode { draining_publisher() } else { calm_publisher() };
    let fault = json!({ "word": text, "sentence": text });
    let at = json!({ "at": "2026-01-01T00:00:00Z", "seconds-ago": 9 });
    let status = status(&publisher, |it| {
        it["version"] = json!(text);
        it["machine"] = json!({ "id": text, "type": text, "lifecycle": "spot", "region": text, "zone": text });
        it["sources"][0]["name"] = json!(text);
        it["sources"][0]["fault"] = fault.clone();
        it["sources"][0]["blind-since"] = at.clone();
        it["sources"][0]["probes"] = json!([{ "name": text, "rank": "vital", "misses": 3, "fault": fault }]);
        let step = &mut it["steps"][0];
        for key in ["kind", "describe", "name"] {
            step[key] = json!(text);
        }
        step["preparation"] = json!({ text: [text] });
        step["trouble"] = json!(text);
        it["last-episode"] = json!({
            "id": text, "generation": 1, "opened": at["at"], "closed": at["at"], "phase": "closed",
            "complete": true, "good": false, "verdict": text,
            "steps": [{ "name": text, "kind": text, "describe": text, "attempt": 1, "progress": "done" }],
        });
        end(&mut it["last-episode"]["steps"][0], "done", text);
        if !episode {
            it["plan"]["slots"][0]["step"] = json!(text);
        } else {
            let step = &mut it["episode"]["steps"][0];
            for key in ["kind", "describe", "name"] {
                step[key] = json!(text);
            }
            step["output"] = json!([text, text]);
            end(step, "failed", text);
            step["failure"] = json!(text);
            it["episode"]["verdict"] = json!(text);
            it["notices"][0]["detail"] = json!(text);
            it["notices"][0]["source"] = json!(text);
            it["notices"][0]["event"] = json!(text);
        }
    });
    (status, vec![Reason::new(text, text)])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_text_from_outside_can_leave_its_place(text in "(.|[<>\"'&/=!\\-\n\u{1b}\u{202e}]|</?(script|pre|title|main)>|<!--state-->){0,24}") {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _inside = runtime.enter();
        for episode in [true, false] {
            let (harmless, reasons) = full_of("x", episode);
            let usual = document(&harmless, &reasons, &[report("x")]);
            let (hostile, reasons) = full_of(&format!("x{text}"), episode);
            let html = document(&hostile, &reasons, &[report(&format!("x{text}"))]);
            let body = |html: &str| html.split_once("<main").unwrap().1.split_once("</main>").unwrap().0.to_owned();
            prop_assert_eq!(skeleton(&format!("<main{}", body(&html))), skeleton(&format!("<main{}", body(&usual))));
            prop_assert_eq!(html.matches("<script").count(), 1);
            prop_assert_eq!(html.matches("</title>").count(), 1);
            let unseen = html.contains(['\u{1b}', '\u{202e}']);
            prop_assert!(!unseen);
        }
    }
}
