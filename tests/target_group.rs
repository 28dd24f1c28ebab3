//! The `target-group` and `auto-scaling` actions against moto, and against an API that fails in every way it knows.

#![cfg(feature = "aws")]
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may panic and talk")]

#[path = "target_group/auto_scaling.rs"]
mod auto_scaling;
#[path = "support/boots.rs"]
mod boots;
#[path = "target_group/comes_back.rs"]
mod comes_back;
#[path = "support/job.rs"]
mod context;
#[path = "target_group/credentials.rs"]
mod credentials;
#[expect(clippy::disallowed_methods, dead_code, reason = "one story is told with the real binary")]
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/fake_aws.rs"]
mod fake_aws;
#[path = "target_group/live.rs"]
mod live;
#[path = "support/moto.rs"]
mod moto;

use context::{SOON, act, context, place};
use fake_aws::{FakeAws, Reply};
use moto::Moto;
use spot_watchdog::actions::{Action, ActionContext, HostInfo, ROWS};
use spot_watchdog::engine::{Outcome, StepName, Work};
use spot_watchdog::view::FindingLevel;
use std::sync::Arc;
use std::time::Duration;

const REGION: &str = "us-east-1";
const LLM: &str = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/llm/73e2d6bc24d8a067";
const WEB: &str = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/web/73e2d6bc24d8a068";
const BOTH_PORTS: [(&str, u16, &str); 3] =
    [("i-0abc", 8000, "healthy"), ("i-0abc", 8001, "unhealthy"), ("i-other", 8000, "healthy")];

fn action(endpoint: &str, groups: &[&str]) -> Arc<dyn Action> {
    let row = ROWS.iter().find(|row| row.kind == "target-group").unwrap();
    let mut keys = toml::Table::new();
    keys.insert(
        "target-groups".into(),
        groups.iter().map(|group| toml::Value::from(*group)).collect::<Vec<_>>().into(),
    );
    keys.insert("endpoint-url".into(), endpoint.into());
    (row.build)(keys).unwrap()
}

/// Runs the warm-up until it knows what is registered.
async fn warm_up(action: &Arc<dyn Action>, place: &HostInfo) {
    let (step, shared) = (StepName::new("leave"), ActionContext::default());
    shared.host.set(place.clone());
    tokio::select! {
        () = action.keep_warm(&step, &shared) => panic!("the warm-up ended"),
        () = async {
            for _ in 0..200 {
                let groups = action.preparation()["groups"].as_array().cloned().unwrap();
                if groups.iter().all(|group| !group["read-at"].is_null()) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            panic!("not warm after 10 s: {}", action.preparation());
        } => {}
    }
}

#[tokio::test]
async fn an_instance_leaves_and_returns_with_the_very_same_port() {
    let Some(moto) = Moto::start().await else { return };
    let fake = FakeAws::start(&[], Reply::Hang).await;
    let (mine, other) = (moto.instance(REGION).await, moto.instance(REGION).await);
    let group = moto.group(REGION, "llm", "instance").await;
    moto.register(REGION, &group, &other, "8000").await;
    moto.register(REGION, &group, &mine, "8001").await;
    let (leave, here) = (action(&moto.url, &[&group]), place(&mine, &[], &fake.url));

    warm_up(&leave, &here).await;
    let preparation = leave.preparation();
    assert_eq!(preparation["groups"][0]["registered"], serde_json::json!([format!("{mine}:8001")]));
    assert!(
        preparation["credentials-good-until"].is_string() && !preparation.to_string().contains("AKID"),
        "{preparation}"
    );

    let (ending, _) = act(&leave, &here, SOON).await;
    assert_eq!(
        (ending.outcome, ending.detail),
        (Outcome::Done, format!("deregistered {mine}:8001 from llm (1 group)"))
    );
    assert_eq!(moto.registered(REGION, &group).await, format!("{other}:8000"));

    // An action that remembers nothing, as after a restart, puts back what the journaled ending tells.
    let mut undo = context(Work::Undo, SOON, &here);
    undo.undo_with = vec![ending.undo_with.unwrap()];
    let back = action(&moto.url, &[&group]).undo(&undo).await;
    assert_eq!((back.outcome, back.detail), (Outcome::Done, format!("registered {mine}:8001 in llm again (1 group)")));
    assert_eq!(moto.registered(REGION, &group).await, format!("{other}:8000 {mine}:8001"));

    let back = leave.undo(&context(Work::Undo, SOON, &here)).await;
    assert_eq!(back.outcome, Outcome::Done, "{}", back.detail);
    let again = leave.undo(&context(Work::Undo, SOON, &here)).await;
    assert_eq!(again.detail, "nothing to put back: nothing was removed");
}

#[tokio::test]
async fn addresses_several_groups_and_regions_are_left_cold_and_each_is_told() {
    let Some(moto) = Moto::start().await else { return };
    let fake = FakeAws::start(&[], Reply::Hang).await;
    let mine = moto.instance(REGION).await;
    let by_address = moto.group(REGION, "pods", "ip").await;
    let elsewhere = moto.group("eu-west-1", "far", "ip").await;
    let empty = moto.group(REGION, "empty", "instance").await;
    moto.register(REGION, &by_address, "10.0.0.7", "8000").await;
    moto.register("eu-west-1", &elsewhere, "10.0.0.7", "9000").await;
    let leave = action(&moto.url, &[&by_address, &elsewhere, &empty, LLM]);
    let (ending, _) = act(&leave, &place(&mine, &["10.0.0.7"], &fake.url), SOON).await;
    assert_eq!(ending.outcome, Outcome::Failed);
    assert_eq!(
        ending.detail,
        "still in the load balancer: llm: there is no such target group in this account (TargetGroupNotFound); \
         deregistered 10.0.0.7:8000 from pods; deregistered 10.0.0.7:9000 from far; was not registered in empty (4 groups)"
    );
    assert_eq!(moto.registered(REGION, &by_address).await, "");
    assert_eq!(moto.registered("eu-west-1", &elsewhere).await, "");

    let findings = leave.check(&place(&mine, &["10.0.0.7"], &fake.url)).await;
    let told = |weight, part: &str| findings.iter().any(|one| one.weight == weight && one.sentence.contains(part));
    assert!(told(FindingLevel::Error, "there is no such target group"), "{findings:?}");
    assert!(told(FindingLevel::Warning, "this machine is not registered"), "{findings:?}");
    let mut here = place(&mine, &["10.0.0.7"], &fake.url);
    "eu-west-1".clone_into(&mut here.machine.region);
    let findings = leave.check(&here).await;
    let elsewhere = "the group is in us-east-1, and this machine in eu-west-1";
    assert!(findings.iter().any(|one| one.sentence.contains(elsewhere)), "{findings:?}");
    assert!(told(FindingLevel::Warning, "deregistration delay is 5m"), "{findings:?}");
}

#[tokio::test]
async fn a_target_that_another_took_out_meanwhile_was_not_registered() {
    let Some(moto) = Moto::start().await else { return };
    let fake = FakeAws::start(&[], Reply::Hang).await;
    let mine = moto.instance(REGION).await;
    let group = moto.group(REGION, "llm", "instance").await;
    moto.register(REGION, &group, &mine, "8000").await;
    let (leave, here) = (action(&moto.url, &[&group]), place(&mine, &[], &fake.url));
    warm_up(&leave, &here).await;
    let parameters = [("TargetGroupArn", group.as_str()), ("Targets.member.1.Id", mine.as_str())];
    moto.call("elasticloadbalancing", REGION, "DeregisterTargets", &parameters).await;
    let (ending, _) = act(&leave, &here, SOON).await;
    assert_eq!((ending.outcome, ending.detail.as_str()), (Outcome::Done, "was not registered in llm (1 group)"));
}

#[tokio::test]
async fn a_warm_action_sends_one_request_for_each_group_and_nothing_else() {
    let fake = FakeAws::start(&[], Reply::Well(BOTH_PORTS.to_vec())).await;
    let (leave, here) = (action(&fake.url, &[LLM, WEB]), place("i-0abc", &[], &fake.url));
    warm_up(&leave, &here).await;
    assert!(fake.requests().iter().all(|request| request.contains("Action=DescribeTargetHealth&")));
    let (ending, took) = act(&leave, &here, SOON).await;
    eprintln!("two groups left {took:?} after the order");
    assert_eq!(
        (ending.outcome, ending.detail.as_str()),
        (
            Outcome::Done,
            "deregistered i-0abc:8000 and i-0abc:8001 from llm; deregistered i-0abc:8000 and i-0abc:8001 from web (2 groups)"
        )
    );
    let mut requests = fake.requests();
    requests.sort();
    let request = |arn: &str| {
        let arn = arn.replace(':', "%3A").replace('/', "%2F");
        format!(
            "AKIDTEST1 Action=DeregisterTargets&Version=2015-12-01&TargetGroupArn={arn}&Targets.member.1.Id=i-0abc\
             &Targets.member.1.Port=8000&Targets.member.2.Id=i-0abc&Targets.member.2.Port=8001"
        )
    };
    assert_eq!(requests, [request(WEB), request(LLM)]);
    assert_eq!(fake.keys_given(), 1);
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn undo_names_every_port_that_was_removed() {
    let fake = FakeAws::start(&[], Reply::Well(BOTH_PORTS.to_vec())).await;
    let (leave, here) = (action(&fake.url, &[LLM]), place("i-0abc", &[], &fake.url));
    act(&leave, &here, SOON).await;
    fake.requests();
    let back = leave.undo(&context(Work::Undo, SOON, &here)).await;
    assert_eq!(back.detail, "registered i-0abc:8000 and i-0abc:8001 in llm again (1 group)");
    let requests = fake.requests();
    assert_eq!(requests.len(), 1);
    assert!(requests[0].contains("Action=RegisterTargets&"), "{requests:?}");
    assert!(
        requests[0].ends_with(
            "Targets.member.1.Id=i-0abc&Targets.member.1.Port=8000&Targets.member.2.Id=i-0abc&Targets.member.2.Port=8001"
        ),
        "{requests:?}"
    );
}

#[tokio::test]
async fn what_a_run_took_away_whose_end_nobody_saw_is_found_by_its_draining_and_put_back() {
    for (targets, outcome, words, asked) in [
        (
            vec![("i-0abc", 8000, "draining"), ("i-0abc", 8001, "draining"), ("i-other", 8000, "draining")],
            Outcome::Done,
            "registered i-0abc:8000 and i-0abc:8001 in llm again (1 group)",
            1,
        ),
        (vec![("i-0abc", 8000, "healthy")], Outcome::Done, "i-0abc:8000 is registered in llm (1 group)", 0),
        (
            vec![("i-other", 8000, "healthy")],
            Outcome::Failed,
            "not known whether this machine was in llm before a run whose end was not recorded: nothing of this machine is \
             registered or drains there now; register it again by hand if it belongs there (1 group)",
            0,
        ),
    ] {
        let fake = FakeAws::start(&[], Reply::Well(targets)).await;
        let mut undo = context(Work::Undo, SOON, &place("i-0abc", &["10.0.0.7"], &fake.url));
        undo.undo_with = vec![serde_json::Value::Null];
        let back = action(&fake.url, &[LLM]).undo(&undo).await;
        assert_eq!((back.outcome, back.detail.as_str()), (outcome, words));
        let requests = fake.requests();
        let registered = requests.iter().filter(|it| it.contains("Action=RegisterTargets&")).count();
        assert_eq!(registered, asked, "{requests:?}");
    }

    // What another run told is put back without a look.
    let fake = FakeAws::start(&[], Reply::Well(BOTH_PORTS.to_vec())).await;
    let here = place("i-0abc", &["10.0.0.7"], &fake.url);
    let (ending, _) = act(&action(&fake.url, &[LLM]), &here, SOON).await;
    fake.requests();
    let mut undo = context(Work::Undo, SOON, &here);
    undo.undo_with = vec![serde_json::Value::Null, ending.undo_with.unwrap()];
    let back = action(&fake.url, &[LLM]).undo(&undo).await;
    assert_eq!(back.detail, "registered i-0abc:8000 and i-0abc:8001 in llm again (1 group)");
    assert_eq!(fake.requests().len(), 1);

    // A look that fails does not pass for a good end.
    let fake = FakeAws::start(&[], Reply::Error(403, "AccessDenied")).await;
    let mut undo = context(Work::Undo, SOON, &place("i-0abc", &["10.0.0.7"], &fake.url));
    undo.undo_with = vec![serde_json::Value::Null];
    let back = action(&fake.url, &[LLM]).undo(&undo).await;
    assert_eq!(back.outcome, Outcome::Failed);
    assert!(
        back.detail.starts_with("not known whether this machine") && back.detail.contains("permission"),
        "{back:?}"
    );
}

#[tokio::test]
async fn a_drain_that_goes_on_is_not_asked_for_again() {
    let fake = FakeAws::start(&[], Reply::Well(vec![("i-0abc", 8000, "draining")])).await;
    let (ending, _) = act(&action(&fake.url, &[LLM]), &place("i-0abc", &[], &fake.url), SOON).await;
    assert_eq!(
        (ending.outcome, ending.detail.as_str()),
        (Outcome::Done, "i-0abc:8000 had been deregistered from llm already (1 group)")
    );
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test]
async fn throttling_is_waited_out_and_the_machine_leaves() {
    // Longer in tests/slow/leave.
    let lasts = std::env::var("SPOT_THROTTLED").map_or(3, |seconds| seconds.parse().unwrap());
    let lasts = Duration::from_secs(lasts);
    let fake = FakeAws::start(&[], Reply::Well(BOTH_PORTS.to_vec())).await;
    let (leave, here) = (action(&fake.url, &[LLM]), place("i-0abc", &[], &fake.url));
    warm_up(&leave, &here).await;
    fake.answer(&[], Reply::Error(400, "Throttling"));
    let later = fake.clone();
    tokio::spawn(async move {
        tokio::time::sleep(lasts).await;
        later.answer(&[Reply::Error(503, "ServiceUnavailable")], Reply::Well(Vec::new()));
    });
    let (ending, took) = act(&leave, &here, lasts + SOON).await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
    assert!(took > lasts, "{took:?}");
    let asked = fake.requests().iter().filter(|request| request.contains("DeregisterTargets")).count();
    assert!((3..20 + lasts.as_secs() as usize).contains(&asked), "{asked} requests");
}

/// What a warm action says when the API answers a notice so, with `left` to go.
async fn said(reply: Reply, left: Duration) -> (Outcome, String, usize) {
    let fake = FakeAws::start(&[], Reply::Well(BOTH_PORTS.to_vec())).await;
    let (leave, here) = (action(&fake.url, &[LLM]), place("i-0abc", &[], &fake.url));
    warm_up(&leave, &here).await;
    fake.answer(&[], reply);
    fake.requests();
    let (ending, _) = act(&leave, &here, left).await;
    (ending.outcome, ending.detail, fake.requests().len())
}

#[tokio::test]
async fn every_trouble_has_its_own_sentence_and_ends_before_the_stop_by() {
    let brief = Duration::from_millis(1_200);
    let cases = [
        (Reply::Error(400, "Throttling"), Outcome::TimedOut, "the AWS API throttles this account (Throttling)"),
        (Reply::Error(500, "InternalFailure"), Outcome::TimedOut, "the AWS API failed on its side (InternalFailure)"),
        (Reply::Html(200), Outcome::TimedOut, "something other than the AWS API answered (status 200, text/html)"),
        (Reply::Html(403), Outcome::TimedOut, "something other than the AWS API answered (status 403, text/html)"),
        (Reply::Hang, Outcome::TimedOut, "the AWS API had not answered when time ran out"),
        (Reply::Error(403, "ExpiredToken"), Outcome::Failed, "the credentials have expired (ExpiredToken)"),
        (Reply::Error(403, "RequestTimeTooSkewed"), Outcome::Failed, "as it is when this machine's clock is wrong"),
        (
            Reply::Error(403, "SignatureDoesNotMatch"),
            Outcome::Failed,
            "the signature was refused (SignatureDoesNotMatch)",
        ),
        (
            Reply::Error(403, "AccessDenied"),
            Outcome::Failed,
            "refused (AccessDenied): the role needs the permission elasticloadbalancing:DeregisterTargets; \
             AWS says: said by AWS",
        ),
        (Reply::Error(400, "TargetGroupNotFound"), Outcome::Failed, "there is no such target group in this account"),
        (Reply::Error(400, "ValidationError"), Outcome::Failed, "does not accept the call (ValidationError)"),
        (
            Reply::Said(
                403,
                "SignatureDoesNotMatch",
                "Signature not yet current: 20260101T000500Z is still later than",
            ),
            Outcome::Failed,
            "this machine's clock is ahead of AWS's",
        ),
        (
            Reply::Said(403, "SignatureDoesNotMatch", "Signature expired: 20260101T000000Z is now earlier than"),
            Outcome::Failed,
            "this machine's clock is behind AWS's",
        ),
        (
            Reply::Said(
                403,
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided.",
            ),
            Outcome::Failed,
            "the secret key is not the one that belongs to the key id",
        ),
        (Reply::Error(403, "InvalidClientTokenId"), Outcome::Failed, "not valid yet"),
    ];
    let all = cases.map(|(reply, outcome, part)| async move {
        let (ended, detail, asked) = said(reply.clone(), brief).await;
        assert_eq!(ended, outcome, "{reply:?}: {detail}");
        assert!(detail.starts_with("still in the load balancer") && detail.contains(part), "{reply:?}: {detail}");
        asked
    });
    let asked = futures_util::future::join_all(all).await;
    // Refusals are final; new credentials and a new clock are tried once.
    assert_eq!(asked[5..], [2, 2, 2, 1, 1, 1, 2, 2, 2, 2]);
    assert!(asked[0] > 1);
}

#[tokio::test]
async fn an_endless_reply_is_cut_off() {
    let (outcome, detail, asked) = said(Reply::Flood, Duration::from_secs(2)).await;
    assert_eq!(outcome, Outcome::TimedOut, "{detail}");
    assert!(detail.contains("something other than the AWS API answered (status 200, text/xml)"), "{detail}");
    assert!(asked > 1, "the first reply was read until the end of time");
}

#[tokio::test]
async fn an_api_that_refuses_connections_is_named_so() {
    let fake = FakeAws::start(&[], Reply::Hang).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let leave = action(&format!("http://{closed}"), &[LLM]);
    let (ending, _) = act(&leave, &place("i-0abc", &[], &fake.url), Duration::from_secs(2)).await;
    assert_eq!(ending.outcome, Outcome::TimedOut, "{}", ending.detail);
    assert!(ending.detail.contains("could not be reached (Connection refused"), "{}", ending.detail);
}

#[tokio::test]
async fn refused_credentials_are_read_anew_once() {
    let fake = FakeAws::start(&[], Reply::Well(BOTH_PORTS.to_vec())).await;
    let (leave, here) = (action(&fake.url, &[LLM]), place("i-0abc", &[], &fake.url));
    warm_up(&leave, &here).await;
    fake.requests();
    fake.answer(&[Reply::Error(403, "ExpiredToken")], Reply::Well(Vec::new()));
    let (ending, _) = act(&leave, &here, SOON).await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
    let keys: Vec<String> = fake.requests().iter().map(|request| request[..9].to_owned()).collect();
    assert_eq!(keys, ["AKIDTEST1", "AKIDTEST2"]);
}

#[tokio::test]
async fn a_wrong_clock_is_corrected_by_the_refusal_that_tells_it() {
    let fake = FakeAws::start(&[], Reply::Well(BOTH_PORTS.to_vec())).await;
    let (leave, here) = (action(&fake.url, &[LLM]), place("i-0abc", &[], &fake.url));
    warm_up(&leave, &here).await;
    let before = fake.signed_at().len();
    fake.answer(&[Reply::Later("RequestTimeTooSkewed")], Reply::Well(Vec::new()));
    let (ending, _) = act(&leave, &here, SOON).await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
    let signed: Vec<jiff::Timestamp> = fake.signed_at()[before..]
        .iter()
        .map(|at| jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", at).unwrap())
        .map(|at| jiff::tz::TimeZone::UTC.to_timestamp(at).unwrap())
        .collect();
    let apart = signed[1].as_second() - signed[0].as_second();
    assert!((3590..3610).contains(&apart), "{signed:?}");
}

#[tokio::test]
async fn ports_that_cannot_be_read_leave_it_unsure_and_it_says_so() {
    let denied = Reply::Error(403, "AccessDenied");
    let fake = FakeAws::start(&[denied], Reply::Well(Vec::new())).await;
    let leave = action(&fake.url, &[LLM]);
    let (ending, _) = act(&leave, &place("i-0abc", &[], &fake.url), SOON).await;
    assert_eq!(ending.outcome, Outcome::Failed);
    assert!(ending.detail.starts_with("it is not certain that i-0abc is deregistered from llm"), "{}", ending.detail);
    assert!(ending.detail.contains("elasticloadbalancing:DescribeTargetHealth"), "{}", ending.detail);
    let requests = fake.requests();
    assert!(requests[1].ends_with("&Targets.member.1.Id=i-0abc"), "{requests:?}");
    assert_eq!(ending.undo_with, None);
}

#[tokio::test]
async fn a_machine_that_nobody_named_is_not_guessed_at() {
    let fake = FakeAws::start(&[], Reply::Hang).await;
    let leave = action(&fake.url, &[LLM]);
    let (ending, _) = act(&leave, &place("", &[], &fake.url), Duration::from_secs(1)).await;
    assert_eq!(ending.outcome, Outcome::Failed);
    assert!(
        ending.detail.contains("neither this machine's instance id nor its addresses are known"),
        "{}",
        ending.detail
    );
    assert_eq!(fake.requests().len(), 0);
}

#[tokio::test]
async fn a_notice_that_comes_before_the_machine_is_known_waits_for_its_name_and_its_addresses() {
    let fake = FakeAws::start(&[], Reply::Well(vec![("10.0.0.7", 8000, "healthy")])).await;
    let leave = action(&fake.url, &[LLM]);
    let context = context(Work::Act, SOON, &place("", &[], &fake.url));
    let naming = async {
        for addresses in [&[][..], &["10.0.0.7"][..]] {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(fake.requests().len(), 0);
            context.shared.host.set(place("i-0abc", addresses, &fake.url));
        }
    };
    let (ending, ()) = tokio::join!(leave.act(&context), naming);
    assert_eq!(
        (ending.outcome, ending.detail.as_str()),
        (Outcome::Done, "deregistered 10.0.0.7:8000 from llm (1 group)")
    );
}

#[tokio::test]
async fn the_warm_up_waits_for_the_machine_to_be_known() {
    let fake = FakeAws::start(&[], Reply::Well(BOTH_PORTS.to_vec())).await;
    let leave = action(&fake.url, &[LLM]);
    let shared = ActionContext::default();
    let (step, live) = (StepName::new("leave"), &shared.host);
    let warming = leave.keep_warm(&step, &shared);
    let naming = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!((fake.requests().len(), fake.keys_given()), (0, 0));
        live.set(place("i-0abc", &[], &fake.url));
        while leave.preparation()["groups"][0]["read-at"].is_null() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! { () = warming => panic!("ended"), named = tokio::time::timeout(SOON, naming) => named.unwrap() }
}

#[tokio::test]
async fn credentials_near_their_end_are_renewed_ahead_of_it() {
    let fake = FakeAws::start(&[], Reply::Well(BOTH_PORTS.to_vec())).await;
    fake.credentials_last(Duration::from_secs(16 * 60));
    let (leave, here) = (action(&fake.url, &[LLM]), place("i-0abc", &[], &fake.url));
    warm_up(&leave, &here).await;
    assert_eq!(fake.keys_given(), 1);
    // What a look ahead finds too short, a call in need still uses: it is good for minutes.
    act(&leave, &here, SOON).await;
    assert_eq!(fake.keys_given(), 1);
    leave.check(&here).await;
    assert_eq!(fake.keys_given(), 2);
}
