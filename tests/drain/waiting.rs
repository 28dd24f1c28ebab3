//! The `drain` action against the stand-in for vLLM, well and in every trouble.

use crate::vllm::{Answer, Vllm};
use crate::{action, context, tls};
use futures_util::future::join_all;
use spot_watchdog::actions::HostInfo;
use spot_watchdog::engine::{Outcome, Work};
use spot_watchdog::view::FindingLevel;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn what_is_in_flight_is_let_finish_and_then_the_file_is_there() {
    let place = TempDir::new().unwrap();
    let vllm = Vllm::start(place.path(), 0);
    let drained = place.path().join("drained");
    fs::write(&drained, "of an earlier notice").unwrap();
    let keys = format!("metrics = '{}'\nsettle = '0s'\ndrained = '{}'", vllm.metrics(), drained.display());
    let drain = action("drain", &keys);
    let requests: Vec<_> = (0..5).map(|_| vllm.ask(Duration::from_secs(3))).collect();
    vllm.has(5);
    let run = context(Work::Act, LONG);
    let (ending, seen) = tokio::join!(drain.act(&run), async {
        let began = Instant::now();
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let preparation = drain.preparation();
            if preparation["in-flight"] == 5 || began.elapsed() > LONG {
                return (preparation, drained.exists());
            }
        }
    });
    assert_eq!(seen.0["requests"], 5);
    assert!(!seen.1, "the file of an earlier notice is gone as soon as it begins");
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
    assert!(ending.detail.contains("nothing is in flight any more"), "{}", ending.detail);
    assert_eq!(run.output.tail()[0], "5 requests in flight");
    for request in requests {
        assert!(request.is_finished(), "it ended before an answer did");
        assert_eq!(request.join().unwrap(), Answer::Whole);
    }
    let line: serde_json::Value = serde_json::from_slice(&fs::read(&drained).unwrap()).unwrap();
    assert_eq!(line["episode"], "e");

    let undone = drain.undo(&context(Work::Undo, LONG)).await;
    assert_eq!((undone.outcome, drained.exists()), (Outcome::Done, false), "{}", undone.detail);
}

#[tokio::test]
async fn links_where_others_may_write_are_not_followed() {
    let place = TempDir::new().unwrap();
    let (secret, drained) = (place.path().join("secret"), place.path().join("drained"));
    fs::write(&secret, "of root alone").unwrap();
    for name in ["drained", "drained.new", ".drained.new", "drained.tmp"] {
        std::os::unix::fs::symlink(&secret, place.path().join(name)).unwrap();
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let drain = action("drain", &format!("connections = [{port}]\nsettle = '0s'\ndrained = '{}'", drained.display()));
    let ending = drain.act(&context(Work::Act, LONG)).await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
    assert_eq!(fs::read_to_string(&secret).unwrap(), "of root alone");
    assert!(fs::symlink_metadata(&drained).unwrap().is_file());
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 5, "and nothing else is left");
    assert_eq!(drain.undo(&context(Work::Undo, LONG)).await.outcome, Outcome::Done);
    assert!(secret.exists() && fs::symlink_metadata(&drained).is_err());
}

#[tokio::test]
async fn a_zero_is_not_believed_before_the_load_balancer_had_its_time() {
    let place = TempDir::new().unwrap();
    let vllm = Vllm::start(place.path(), 0);
    let drain = action("drain", &format!("metrics = '{}'\nsettle = '4s'", vllm.metrics()));
    let began = Instant::now();
    let run = context(Work::Act, LONG);
    let (ending, late) = tokio::join!(drain.act(&run), async {
        // What a load balancer sends that has not heard yet: more than two looks saw nothing by now.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        vllm.ask(Duration::from_secs(4))
    });
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
    assert!(began.elapsed() >= Duration::from_millis(5500), "it ended after {:?}", began.elapsed());
    assert_eq!(late.join().unwrap(), Answer::Whole);
    assert_eq!(run.output.tail()[0], "nothing in flight; load balancers may still send");

    // A run that is taken back after a crash settles from when it began, not anew.
    let mut run = context(Work::Act, LONG);
    run.started -= Duration::from_secs(4);
    let began = Instant::now();
    assert_eq!(drain.adopt(&run, None).await.outcome, Outcome::Done);
    assert!(began.elapsed() < Duration::from_secs(4), "it took {:?}", began.elapsed());
}

#[tokio::test]
async fn what_cannot_be_read_never_counts_as_drained() {
    let troubles = [
        ("stuck", "3 requests cut: still in flight when time was up"),
        ("nan", "says that vllm:num_requests_waiting is NaN, which counts nothing"),
        ("missing", "has metrics of vllm and no gauge vllm:num_requests_waiting"),
        ("html", "answers with a page of HTML and not with metrics (is it the right path?)"),
        ("broken", "answers with status 500"),
        ("hang", "does not answer within 2 s"),
    ];
    // All play before the first is looked at: nothing else happens while one begins.
    let played: Vec<_> = troubles
        .map(|(trick, said)| {
            let place = TempDir::new().unwrap();
            let vllm = Vllm::start(place.path(), 0);
            vllm.play(trick);
            (trick, said, place, vllm)
        })
        .into();
    join_all(played.iter().map(|(trick, said, place, vllm)| is_no_zero(trick, said, place, vllm))).await;
}

#[tokio::test]
async fn a_zero_that_comes_late_is_not_believed_while_a_client_is_served() {
    let place = TempDir::new().unwrap();
    let vllm = Vllm::start(place.path(), 0);
    let drain = action("drain", &format!("metrics = '{}'\nsettle = '0s'", vllm.metrics()));
    // Proxies keep connections open that nobody asks anything on.
    let _kept = TcpStream::connect(("127.0.0.1", vllm.port)).unwrap();
    vllm.play("late");
    let request = vllm.ask(Duration::from_secs(8));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let run = context(Work::Act, LONG);
    let ending = drain.act(&run).await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
    assert!(ending.detail.ends_with("nothing is in flight any more"), "{}", ending.detail);
    assert!(request.is_finished(), "it ended before the answer did: {:?}", run.output.tail());
    assert_eq!(request.join().unwrap(), Answer::Whole);
    assert!(run.output.tail()[0].starts_with("no request by the gauges and "), "{:?}", run.output.tail());
}

#[tokio::test]
async fn gauges_that_never_change_are_not_waited_for_where_nobody_is_connected() {
    let place = TempDir::new().unwrap();
    let (alone, asked) = (Vllm::start(place.path(), 0), TempDir::new().unwrap());
    let drained = place.path().join("drained");
    let asked = Vllm::start(asked.path(), 0);
    for vllm in [&alone, &asked] {
        vllm.play("stuck");
    }
    let keys = format!("metrics = '{}'\nsettle = '0s'\ndrained = '{}'", alone.metrics(), drained.display());
    let (drain, run) = (action("drain", &keys), context(Work::Act, LONG));
    let other = action("drain", &format!("metrics = '{}'\nsettle = '0s'", asked.metrics()));
    let (request, other_run) = (asked.ask(Duration::from_secs(30)), context(Work::Act, Duration::from_secs(16)));
    let (ending, still_asked) = tokio::join!(drain.act(&run), other.act(&other_run));
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
    let said = "nobody is connected, and the metrics have shown 3 in flight without any change for 1";
    assert!(ending.detail.contains(said), "{}", ending.detail);
    assert!(drained.exists());
    assert_eq!(still_asked.outcome, Outcome::TimedOut, "{}", still_asked.detail);
    assert!(!request.is_finished());
}

async fn is_no_zero(trick: &str, said: &str, place: &TempDir, vllm: &Vllm) {
    let drained = place.path().join("drained");
    let keys = format!("metrics = '{}'\nsettle = '0s'\ndrained = '{}'", vllm.metrics(), drained.display());
    let drain = action("drain", &keys);
    let (began, left) = (Instant::now(), Duration::from_secs(4));
    let ending = drain.act(&context(Work::Act, left)).await;
    assert!(began.elapsed() < left + Duration::from_secs(3), "{trick}: it took {:?}", began.elapsed());
    assert_eq!(ending.outcome, Outcome::TimedOut, "{trick}: {}", ending.detail);
    assert!(ending.detail.ends_with(said), "{trick}: {}", ending.detail);
    assert!(!drained.exists(), "{trick}");
    let found = drain.check(&HostInfo::default()).await;
    match trick {
        "stuck" => assert_eq!(found[0].sentence, "it sees 3 requests in flight now (vllm)"),
        _ => {
            assert_eq!(found[0].weight, FindingLevel::Error, "{trick}: {found:?}");
            assert!(found[0].sentence.contains(said), "{trick}: {found:?}");
        }
    }
}

#[tokio::test]
async fn metrics_are_read_by_tls_with_our_certificate() {
    let place = TempDir::new().unwrap();
    let vllm = Vllm::start(place.path(), 0);
    let address = tls::in_front_of(([127, 0, 0, 1], vllm.port).into(), true).await;
    let url = format!("metrics = 'https://localhost:{}/metrics'\nsettle = '0s'\n", address.port());
    let drain = action("drain", &format!("{url}{}", tls::keys("ca.pem", true)));
    let request = vllm.ask(Duration::from_secs(2));
    vllm.has(1);
    let ending = drain.act(&context(Work::Act, LONG)).await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
    assert_eq!(request.join().unwrap(), Answer::Whole);
    let found = drain.check(&HostInfo::default()).await;
    assert_eq!(
        (found[0].weight, found[0].sentence.as_str()),
        (FindingLevel::Good, "it sees nothing in flight now (vllm)")
    );
    for (keys, words) in [
        (tls::keys("other-ca.pem", true), "cannot be asked by TLS: invalid peer certificate: UnknownIssuer"),
        // In what words depends on whether its own come before the end of the connection.
        (tls::keys("ca.pem", false), ""),
        (tls::keys("missing.pem", true), "missing.pem cannot be read: no such file or directory"),
    ] {
        let drain = action("drain", &format!("{url}{keys}"));
        let ending = drain.act(&context(Work::Act, Duration::from_secs(2))).await;
        assert!(ending.outcome == Outcome::TimedOut && ending.detail.contains(words), "{}", ending.detail);
        let found = drain.check(&HostInfo::default()).await;
        assert!(found[0].weight == FindingLevel::Error && found[0].sentence.contains(words), "{found:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_gone_is_drained_and_one_that_only_listens_no_more_is_not() {
    let place = TempDir::new().unwrap();
    let vllm = Vllm::start(place.path(), 0);
    let drain = action("drain", &format!("metrics = '{}'\nsettle = '0s'", vllm.metrics()));
    let request = vllm.ask(Duration::from_secs(3));
    vllm.has(1);
    vllm.play("deaf");
    let ending = drain.act(&context(Work::Act, LONG)).await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
    assert!(ending.detail.ends_with("the server is gone, and so is what it had"), "{}", ending.detail);
    assert!(request.is_finished(), "it ended before the answer did");
    assert_eq!(request.join().unwrap(), Answer::Whole);
    let found = drain.check(&HostInfo::default()).await;
    assert_eq!(found[0].weight, FindingLevel::Warning);
    assert!(found[0].sentence.starts_with("nobody listens at http://127.0.0.1:"), "{found:?}");
}

#[tokio::test]
async fn connections_are_counted_where_there_are_no_gauges() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let drain = action("drain", &format!("connections = [{port}]\nsettle = '0s'"));
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();

    let ending = drain.act(&context(Work::Act, Duration::from_millis(1200))).await;
    assert_eq!(ending.outcome, Outcome::TimedOut);
    assert_eq!(ending.detail, "1 connection cut: still in flight when time was up");
    let found = drain.check(&HostInfo::default()).await;
    assert_eq!(found[0].sentence, "it sees 1 connection in flight now");
    assert!(
        found.iter().any(|it| it.weight == FindingLevel::Note && it.sentence.contains("keep idle ones open")),
        "{found:?}"
    );

    drop((client, server));
    let ending = drain.act(&context(Work::Act, LONG)).await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
    drop(listener);
    let found = drain.check(&HostInfo::default()).await;
    assert!(found.iter().any(|it| it.sentence.starts_with(&format!("nobody listens on port {port}"))), "{found:?}");
}
