//! `target-groups = ["auto"]` and the `auto-scaling` action, against moto and against an API that says what AWS says.

use crate::context::{SOON, act, context, place};
use crate::fake_aws::{FakeAws, Fleet, Reply};
use crate::moto::Moto;
use spot_watchdog::actions::{Action, ActionContext, EpisodeSignal, Going, HostInfo, ROWS, Rehearsal};
use spot_watchdog::engine::{NoticeKind, Outcome, RunResult, StepName, Work};
use spot_watchdog::view::{Finding, FindingLevel};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

const REGION: &str = "us-east-1";
const LLM: &str = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/llm/73e2d6bc24d8a067";
const WEB: &str = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/web/73e2d6bc24d8a068";
const HOOKS: [(&str, &str, u32); 3] =
    [("drain", "TERMINATING", 300), ("setup", "LAUNCHING", 60), ("audit", "TERMINATING", 900)];

fn action(kind: &str, endpoint: &str, keys: &str) -> Arc<dyn Action> {
    let row = ROWS.iter().find(|row| row.kind == kind).unwrap();
    let mut keys: toml::Table = keys.parse().unwrap();
    keys.insert("endpoint-url".into(), endpoint.into());
    if kind == "target-group" {
        keys.insert("auto-scaling-endpoint-url".into(), endpoint.into());
    }
    (row.build)(keys).unwrap()
}

fn leave(endpoint: &str, more: &str) -> Arc<dyn Action> {
    action("target-group", endpoint, &format!("target-groups = ['auto']\n{more}"))
}

fn here(instance: &str, addresses: &[&str], metadata: &str) -> HostInfo {
    let mut host = place(instance, addresses, metadata);
    REGION.clone_into(&mut host.machine.region);
    host
}

fn surrounded(place: &HostInfo) -> ActionContext {
    let shared = ActionContext::default();
    shared.host.set(place.clone());
    shared
}

/// Runs the warm-up until `seen` says so.
async fn warm_until(action: &Arc<dyn Action>, shared: &ActionContext, what: &str, mut seen: impl FnMut() -> bool) {
    let step = StepName::new("step");
    let until = Instant::now() + SOON;
    tokio::select! {
        () = action.keep_warm(&step, shared) => panic!("the warm-up ended"),
        () = async {
            while !seen() {
                assert!(Instant::now() < until, "waited in vain for {what}: {}", action.preparation());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        } => {}
    }
}

/// Runs the warm-up until all has been read.
async fn warm_up(action: &Arc<dyn Action>, place: &HostInfo) {
    let shared = surrounded(place);
    warm_until(action, &shared, "all to be read", || {
        let preparation = action.preparation();
        let groups = preparation["groups"].as_array();
        match groups {
            Some(groups) => preparation["found"].is_string() && groups.iter().all(|group| !group["read-at"].is_null()),
            None => !preparation["read-at"].is_null(),
        }
    })
    .await;
}

fn told(findings: &[Finding], weight: FindingLevel, part: &str) {
    let is_there = findings.iter().any(|one| one.weight == weight && one.sentence.contains(part));
    assert!(is_there, "no {weight:?} with {part:?} in {findings:#?}");
}

async fn undo(action: &Arc<dyn Action>, ending: &RunResult, place: &HostInfo) -> RunResult {
    let mut undo = context(Work::Undo, SOON, place);
    undo.undo_with = ending.undo_with.iter().cloned().collect();
    action.undo(&undo).await
}

#[tokio::test]
async fn groups_are_found_through_the_auto_scaling_group_and_left_and_joined_again() {
    let Some(moto) = Moto::start().await else { return };
    let fake = FakeAws::start(&[], Reply::Hang).await;
    let (llm, web) = (moto.group(REGION, "llm", "instance").await, moto.group(REGION, "web", "instance").await);
    moto.group(REGION, "foreign", "instance").await;
    let mine = moto.fleet(REGION, "fleet", &[&llm, &web]).await;
    moto.register(REGION, &llm, &mine, "8001").await;
    let before = moto.registered(REGION, &llm).await;
    let (leave, here) = (leave(&moto.url, "until = 'unused'"), here(&mine, &[], &fake.url));

    let findings = leave.check(&here).await;
    told(&findings, FindingLevel::Good, "2 target groups have this machine, found through Auto Scaling group fleet");
    told(&findings, FindingLevel::Warning, "fleet uses ELB health checks");
    told(&findings, FindingLevel::Warning, "deregistration delay is 5m");
    warm_up(&leave, &here).await;
    let preparation = leave.preparation();
    assert_eq!(preparation["found"], "through Auto Scaling group fleet", "{preparation}");
    assert_eq!(preparation["groups"].as_array().unwrap().len(), 2, "{preparation}");

    let (ending, _) = act(&leave, &here, SOON).await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
    assert!(ending.detail.contains("from llm, which has nothing of it under way"), "{}", ending.detail);
    assert_eq!(
        (moto.registered(REGION, &llm).await, moto.registered(REGION, &web).await),
        (String::new(), String::new())
    );
    let back = undo(&leave, &ending, &here).await;
    assert_eq!(back.outcome, Outcome::Done, "{}", back.detail);
    let sorted = |text: String| text.split(' ').map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(sorted(moto.registered(REGION, &llm).await), sorted(before));
}

#[tokio::test]
async fn without_an_auto_scaling_group_all_groups_are_looked_through() {
    let Some(moto) = Moto::start().await else { return };
    let fake = FakeAws::start(&[], Reply::Hang).await;
    let (mine, other) = (moto.instance(REGION).await, moto.instance(REGION).await);
    let by_name = moto.group(REGION, "by-name", "instance").await;
    let by_address = moto.group(REGION, "by-address", "ip").await;
    let foreign = moto.group(REGION, "foreign", "instance").await;
    moto.group(REGION, "empty", "instance").await;
    moto.register(REGION, &by_name, &mine, "8001").await;
    moto.register(REGION, &by_address, "10.0.0.7", "9000").await;
    moto.register(REGION, &foreign, &other, "8000").await;
    let (leave, here) = (leave(&moto.url, ""), here(&mine, &["10.0.0.7"], &fake.url));
    warm_up(&leave, &here).await;
    assert_eq!(leave.preparation()["found"], "by a look at all 4 target groups");
    let (ending, _) = act(&leave, &here, SOON).await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
    assert!(ending.detail.contains(&format!("deregistered {mine}:8001 from by-name")), "{}", ending.detail);
    assert!(ending.detail.contains("deregistered 10.0.0.7:9000 from by-address"), "{}", ending.detail);
    assert_eq!(moto.registered(REGION, &foreign).await, format!("{other}:8000"));
}

#[tokio::test]
async fn two_hundred_groups_are_left_together() {
    let Some(moto) = Moto::start().await else { return };
    let fake = FakeAws::start(&[], Reply::Hang).await;
    let mine = moto.instance(REGION).await;
    for at in 0..200 {
        let group = moto.group(REGION, &format!("g{at}"), "instance").await;
        moto.register(REGION, &group, &mine, "8000").await;
    }
    // Cold: a notice that comes before the first search has ended finds them too.
    let (leave, here) = (leave(&moto.url, ""), here(&mine, &[], &fake.url));
    let left = Duration::from_secs(60);
    let (ending, took) = act(&leave, &here, left).await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
    assert!(ending.detail.ends_with("(200 groups)"), "{}", ending.detail);
    eprintln!("200 groups found and left {took:?} after the order");
    let began = Instant::now();
    let back = undo(&leave, &ending, &here).await;
    assert_eq!(back.outcome, Outcome::Done, "{}", back.detail);
    eprintln!("200 groups joined again in {:?}", began.elapsed());
    let (ending, took) = act(&leave, &here, left).await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
    eprintln!("200 known groups left {took:?} after the order");
    // The machine may be busy; on a quiet one it is 3 s.
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[tokio::test]
async fn nothing_is_searched_inside_the_notice_once_it_was_found() {
    let fake = FakeAws::start(&[], Reply::Well(vec![("i-0abc", 8000, "healthy")])).await;
    fake.fleet(Fleet { name: Some("fleet"), target_groups: vec![LLM, WEB], health_check: "EC2", ..Fleet::default() });
    let (leave, here) = (leave(&fake.url, ""), here("i-0abc", &[], &fake.url));
    warm_up(&leave, &here).await;
    fake.requests();
    let (ending, _) = act(&leave, &here, SOON).await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
    let requests = fake.requests();
    assert_eq!(requests.len(), 2, "{requests:?}");
    assert!(requests.iter().all(|request| request.contains("Action=DeregisterTargets&")), "{requests:?}");
}

#[tokio::test]
async fn an_auto_scaling_group_that_may_not_be_asked_is_told_and_got_around() {
    let fake = FakeAws::start(&[], Reply::Well(vec![("i-0abc", 8000, "healthy")])).await;
    fake.lists(&[LLM, WEB]);
    fake.refuse("DescribeAutoScalingInstances");
    fake.refuse("DescribeTargetGroupAttributes");
    let (leave, place) = (leave(&fake.url, ""), here("i-0abc", &[], &fake.url));
    let findings = leave.check(&place).await;
    told(&findings, FindingLevel::Warning, "the role needs the permission autoscaling:DescribeAutoScalingInstances");
    told(&findings, FindingLevel::Good, "2 target groups have this machine, found by a look at all 2 target groups");
    told(
        &findings,
        FindingLevel::Note,
        "the role needs the permission elasticloadbalancing:DescribeTargetGroupAttributes",
    );
    fake.refuse("DescribeTargetGroups");
    let findings = self::leave(&fake.url, "").check(&place).await;
    told(&findings, FindingLevel::Error, "the role needs the permission elasticloadbalancing:DescribeTargetGroups");
    let (ending, _) = act(&self::leave(&fake.url, ""), &place, SOON).await;
    assert_eq!(ending.outcome, Outcome::Failed);
    assert!(ending.detail.starts_with("still in the load balancer as far as we know"), "{}", ending.detail);
}

#[tokio::test]
async fn a_drain_is_waited_for_until_it_is_seen_or_time_is_over() {
    let fake = FakeAws::start(&[], Reply::Well(vec![("i-0abc", 8000, "healthy")])).await;
    fake.fleet(Fleet { name: Some("fleet"), target_groups: vec![LLM], health_check: "EC2", ..Fleet::default() });
    let place = here("i-0abc", &[], &fake.url);
    for (goal, left, outcome, part) in [
        ("draining", SOON, Outcome::Done, "deregistered i-0abc:8000 from llm, which sends nothing new (1 group)"),
        (
            "unused",
            Duration::from_secs(3),
            Outcome::TimedOut,
            "deregistered i-0abc:8000 from llm, but it was still draining when time ran out (1 group)",
        ),
    ] {
        fake.answer(&[], Reply::Well(vec![("i-0abc", 8000, "healthy")]));
        let leave = leave(&fake.url, &format!("until = '{goal}'"));
        warm_up(&leave, &place).await;
        // The first look after the request comes too early to see it.
        let healthy = Reply::Well(vec![("i-0abc", 8000, "healthy")]);
        fake.answer(&[healthy.clone(), healthy], Reply::Well(vec![("i-0abc", 8000, "draining")]));
        let (ending, took) = act(&leave, &place, left).await;
        assert_eq!((ending.outcome, ending.detail.as_str()), (outcome, part));
        assert!(took >= Duration::from_secs(1) && ending.undo_with.is_some(), "{took:?}");
    }
}

#[tokio::test]
async fn a_warning_warms_the_connections_at_once() {
    let fake = FakeAws::start(&[], Reply::Well(vec![("i-0abc", 8000, "healthy")])).await;
    fake.fleet(Fleet { name: Some("fleet"), target_groups: vec![LLM], health_check: "EC2", ..Fleet::default() });
    let (leave, shared) = (leave(&fake.url, ""), surrounded(&here("i-0abc", &[], &fake.url)));
    let (mut warned, mut quiet) = (false, 0);
    warm_until(&leave, &shared, "another look after the warning", || {
        if warned {
            return fake.requests().iter().any(|request| request.contains("Action=DescribeTargetHealth&"));
        }
        // Nothing more comes by itself for minutes.
        quiet = if fake.requests().is_empty() { quiet + 1 } else { 0 };
        if quiet > 20 && leave.preparation()["found"].is_string() {
            warned = true;
            shared.episode.set(EpisodeSignal { kinds: [NoticeKind::Rebalance].into(), going: Going::Over });
        }
        false
    })
    .await;
}

fn scaled(fake: &FakeAws, keys: &str) -> (Arc<dyn Action>, HostInfo) {
    fake.fleet(Fleet { name: Some("fleet"), health_check: "EC2", hooks: HOOKS.to_vec(), ..Fleet::default() });
    (action("auto-scaling", &fake.url, keys), here("i-0abc", &[], &fake.url))
}

#[tokio::test]
async fn the_lifecycle_action_of_every_termination_hook_is_completed() {
    let fake = FakeAws::start(&[], Reply::Well(Vec::new())).await;
    let (done, place) = scaled(&fake, "");
    warm_up(&done, &place).await;
    let shown = ["drain holds a scale-in for 5m", "audit holds a scale-in for 15m"];
    assert_eq!(done.preparation()["hooks"], serde_json::json!(shown));
    fake.requests();
    let (ending, _) = act(&done, &place, SOON).await;
    assert_eq!(
        (ending.outcome, ending.detail.as_str(), ending.undo_with),
        (Outcome::Done, "completed drain of fleet; completed audit of fleet", None)
    );
    let form = |hook: &str| {
        format!(
            "AKIDTEST1 Action=CompleteLifecycleAction&Version=2011-01-01&LifecycleHookName={hook}\
             &AutoScalingGroupName=fleet&LifecycleActionResult=CONTINUE&InstanceId=i-0abc"
        )
    };
    let requests: BTreeSet<String> = fake.requests().into_iter().collect();
    assert_eq!(requests, [form("drain"), form("audit")].into());
}

#[tokio::test]
async fn a_group_and_a_hook_by_name_need_no_reading() {
    let fake = FakeAws::start(&[], Reply::Well(Vec::new())).await;
    let (done, place) = scaled(&fake, "group = 'mine'\nlifecycle-hook = 'drain'\nresult = 'abandon'");
    fake.refuse("DescribeAutoScalingInstances");
    fake.refuse("DescribeLifecycleHooks");
    let (ending, _) = act(&done, &place, SOON).await;
    assert_eq!((ending.outcome, ending.detail.as_str()), (Outcome::Done, "completed drain of mine"));
    assert!(fake.requests().iter().any(|request| request.contains("LifecycleActionResult=ABANDON")));
    // Any hook would need to be read.
    let (any, place) = scaled(&fake, "group = 'mine'");
    let (ending, _) = act(&any, &place, SOON).await;
    assert_eq!(ending.outcome, Outcome::Failed);
    assert!(
        ending.detail.contains("the role needs the permission autoscaling:DescribeLifecycleHooks"),
        "{}",
        ending.detail
    );
    told(
        &any.check(&place).await,
        FindingLevel::Error,
        "the role needs the permission autoscaling:DescribeLifecycleHooks",
    );
}

#[tokio::test]
async fn no_active_lifecycle_action_is_success_and_other_refusals_are_not() {
    let fake = FakeAws::start(&[], Reply::Well(Vec::new())).await;
    let (done, place) = scaled(&fake, "lifecycle-hook = 'drain'");
    warm_up(&done, &place).await;
    let cases = [
        ("No active Lifecycle Action found with instance ID i-0abc", Outcome::Done, "has no active lifecycle action"),
        ("The instance i-0abc is not part of Auto Scaling group fleet.", Outcome::Done, "is not in fleet any more"),
        ("AutoScalingGroup name not found - fleet", Outcome::Failed, "this machine is held by drain (fleet): "),
    ];
    for (message, outcome, part) in cases {
        fake.answer(&[], Reply::Said(400, "ValidationError", message));
        let (ending, _) = act(&done, &place, SOON).await;
        assert_eq!(ending.outcome, outcome, "{message}: {}", ending.detail);
        assert!(ending.detail.contains(part), "{message}: {}", ending.detail);
    }
}

#[tokio::test]
async fn every_trouble_has_its_own_sentence_and_ends_before_the_stop_by() {
    let brief = Duration::from_millis(1_200);
    let cases = [
        (Reply::Error(400, "Throttling"), Outcome::TimedOut, "the AWS API throttles this account (Throttling)"),
        (Reply::Error(400, "ResourceContention"), Outcome::TimedOut, "something else is being done"),
        (Reply::Error(500, "InternalFailure"), Outcome::TimedOut, "the AWS API failed on its side (InternalFailure)"),
        (Reply::Html(200), Outcome::TimedOut, "something other than the AWS API answered (status 200, text/html)"),
        (Reply::Html(403), Outcome::TimedOut, "something other than the AWS API answered (status 403, text/html)"),
        (Reply::Hang, Outcome::TimedOut, "the AWS API had not answered when time ran out"),
        (Reply::Flood, Outcome::TimedOut, "the AWS API had not answered when time ran out"),
        (Reply::Error(403, "ExpiredToken"), Outcome::Failed, "the credentials have expired (ExpiredToken)"),
        (Reply::Later("SignatureDoesNotMatch"), Outcome::Failed, "as it is when this machine's clock is wrong"),
        (
            Reply::Error(403, "AccessDenied"),
            Outcome::Failed,
            "needs the permission autoscaling:CompleteLifecycleAction",
        ),
    ];
    let all = cases.map(|(reply, outcome, part)| async move {
        let fake = FakeAws::start(&[], Reply::Well(Vec::new())).await;
        let (done, place) = scaled(&fake, "lifecycle-hook = 'drain'");
        warm_up(&done, &place).await;
        fake.answer(&[], reply.clone());
        let left = if matches!(reply, Reply::Flood) { brief * 2 } else { brief };
        let (ending, _) = act(&done, &place, left).await;
        assert_eq!(ending.outcome, outcome, "{reply:?}: {}", ending.detail);
        let is_flood = matches!(reply, Reply::Flood) && ending.detail.contains("something other than the AWS API");
        assert!(is_flood || ending.detail.contains(part), "{reply:?}: {}", ending.detail);
        assert!(ending.detail.starts_with("this machine is held by drain (fleet): "), "{reply:?}: {}", ending.detail);
    });
    futures_util::future::join_all(all).await;
}

#[tokio::test]
async fn a_wrong_clock_is_learned_from_the_refusal() {
    let fake = FakeAws::start(&[], Reply::Well(Vec::new())).await;
    let (done, place) = scaled(&fake, "lifecycle-hook = 'drain'");
    warm_up(&done, &place).await;
    fake.answer(&[Reply::Later("RequestTimeTooSkewed")], Reply::Well(Vec::new()));
    let (ending, _) = act(&done, &place, SOON).await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
    let hour = |at: &str| at[9..11].parse::<u32>().unwrap();
    let signed = fake.signed_at();
    let [.., first, second] = signed.as_slice() else { panic!("{signed:?}") };
    assert_eq!((hour(first) + 1) % 24, hour(second), "{signed:?}");
}

#[tokio::test]
async fn heartbeats_hold_the_machine_while_steps_run_and_no_longer() {
    let fake = FakeAws::start(&[], Reply::Well(Vec::new())).await;
    let (done, place) = scaled(&fake, "");
    let shared = surrounded(&place);
    let beats = || {
        let requests = fake.requests();
        requests.into_iter().filter(|request| request.contains("RecordLifecycleActionHeartbeat")).collect::<Vec<_>>()
    };
    warm_until(&done, &shared, "the hooks", || done.preparation()["read-at"].is_string()).await;
    assert_eq!(shared.scale_in_window.get(), Some(Duration::from_secs(300)));
    assert!(beats().is_empty());
    let going = |kind, going| shared.episode.set(EpisodeSignal { kinds: [kind].into(), going });

    // An interruption is held up by no hook.
    going(NoticeKind::Interruption, Going::On);
    let from = Instant::now();
    warm_until(&done, &shared, "time to pass", || from.elapsed() > Duration::from_millis(300)).await;
    assert!(beats().is_empty());

    going(NoticeKind::ScaleIn, Going::On);
    let mut seen = Vec::new();
    warm_until(&done, &shared, "heartbeats", || {
        seen.extend(beats());
        seen.len() >= 2
    })
    .await;
    let seen: BTreeSet<String> = seen.into_iter().collect();
    let form = |hook: &str| {
        format!(
            "AKIDTEST1 Action=RecordLifecycleActionHeartbeat&Version=2011-01-01&LifecycleHookName={hook}\
             &AutoScalingGroupName=fleet&InstanceId=i-0abc"
        )
    };
    assert_eq!(seen, [form("drain"), form("audit")].into());

    // Neither once it was completed, nor once no step runs any more, nor in a rehearsal that only checks.
    act(&done, &place, SOON).await;
    beats();
    let quiet = |shared: ActionContext, action: Arc<dyn Action>| async move {
        let from = Instant::now();
        warm_until(&action, &shared, "time to pass", || from.elapsed() > Duration::from_millis(300)).await;
    };
    quiet(shared.clone(), Arc::clone(&done)).await;
    assert!(beats().is_empty(), "after the completion");
    let (fresh, _) = scaled(&fake, "");
    going(NoticeKind::ScaleIn, Going::Over);
    quiet(shared.clone(), Arc::clone(&fresh)).await;
    assert!(beats().is_empty(), "after the last step");
    going(NoticeKind::ScaleIn, Going::On);
    quiet(ActionContext { rehearsal: Rehearsal::CheckOutside, ..shared.clone() }, fresh).await;
    assert!(beats().is_empty(), "in a rehearsal");
}

#[tokio::test]
async fn detaching_and_calling_unhealthy_are_done_by_the_group_and_what_can_be_is_undone() {
    let Some(moto) = Moto::start().await else { return };
    let fake = FakeAws::start(&[], Reply::Hang).await;
    let group = moto.group(REGION, "llm", "instance").await;
    let mine = moto.fleet(REGION, "fleet", &[&group]).await;
    let place = here(&mine, &[], &fake.url);

    let ill = action("auto-scaling", &moto.url, "complete-lifecycle-action = false\nset-unhealthy = true");
    told(&ill.check(&place).await, FindingLevel::Warning, "`set-unhealthy` lets the group end this machine");
    let (ending, _) = act(&ill, &place, SOON).await;
    assert_eq!(ending.detail, "told fleet that this machine is unhealthy");
    assert_eq!(moto.health(REGION, "fleet").await, [format!("{mine} Unhealthy")]);
    let back = undo(&ill, &ending, &place).await;
    assert_eq!((back.outcome, back.detail), (Outcome::Done, format!("told fleet that {mine} is healthy")));
    assert_eq!(moto.health(REGION, "fleet").await, [format!("{mine} Healthy")]);

    let off = action("auto-scaling", &moto.url, "complete-lifecycle-action = false\ndetach = true");
    told(&off.check(&place).await, FindingLevel::Warning, "`detach` starts a replacement at once");
    let (ending, _) = act(&off, &place, SOON).await;
    assert_eq!((ending.outcome, ending.detail.as_str()), (Outcome::Done, "detached from fleet, which starts another"));
    let members = moto.members(REGION, "fleet").await;
    assert!(members.len() == 1 && members[0] != mine, "{members:?} after {mine} left");
    let back = undo(&off, &ending, &place).await;
    assert_eq!(back.outcome, Outcome::Failed);
    assert!(back.detail.contains("attach it again") && back.detail.contains("end it yourself"), "{}", back.detail);
    let again = undo(&off, &RunResult { undo_with: None, ..ending }, &place).await;
    assert_eq!((again.outcome, again.detail.as_str()), (Outcome::Done, "nothing to put back"));
    told(&off.check(&place).await, FindingLevel::Warning, "this machine is in no group");
}

/// `config/aws-iam-policy.json` allows what is called, and nothing else.
#[tokio::test]
async fn the_policy_that_is_shipped_allows_exactly_the_calls_that_are_made() {
    let fake = FakeAws::start(&[], Reply::Well(vec![("i-0abc", 8000, "healthy")])).await;
    let place = here("i-0abc", &[], &fake.url);
    fake.lists(&[LLM, WEB]);
    let found = leave(&fake.url, "until = 'draining'");
    found.check(&place).await;
    let (ending, _) = act(&found, &place, Duration::from_secs(2)).await;
    undo(&found, &ending, &place).await;
    fake.fleet(Fleet { name: Some("fleet"), target_groups: vec![LLM], health_check: "ELB", hooks: HOOKS.to_vec() });
    leave(&fake.url, "").check(&place).await;
    let all = action("auto-scaling", &fake.url, "detach = true\nset-unhealthy = true");
    all.check(&place).await;
    let shared = surrounded(&place);
    shared.episode.set(EpisodeSignal { kinds: [NoticeKind::ScaleIn].into(), going: Going::On });
    warm_until(&all, &shared, "a heartbeat", || all.preparation()["heartbeat-at"].is_string()).await;
    let (ending, _) = act(&all, &place, SOON).await;
    undo(&all, &ending, &place).await;

    let policy = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/aws-iam-policy.json")).unwrap();
    let policy: serde_json::Value = serde_json::from_str(&policy).unwrap();
    let statements = policy["Statement"].as_array().unwrap().iter();
    let allowed: BTreeSet<String> = statements
        .flat_map(|statement| statement["Action"].as_array().unwrap())
        .map(|action| action.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(fake.calls(), allowed);
}
