//! The poller with the real client against the emulator on loopback: what reaches the engine, when, and in which order.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use spot_watchdog::emulators::aws::SERVICE;
use spot_watchdog::emulators::azure;
use spot_watchdog::emulators::service::{
    Behaviour, EmulatedAction, Emulator, Script, ScriptedNotice, StatedTime, Trouble, serve,
};
use spot_watchdog::engine::{
    Fault, FinishedNotices, Importance, Input, Notice, NoticeAction, NoticeKind, ProbeName, SourceName,
};
use spot_watchdog::runtime::poller::{MemoryStore, NoMemoryStore, Poller, SourceCheck, check_source};
use spot_watchdog::server::AnswerTimes;
use spot_watchdog::sources::aws::{Aws, AwsSettings};
use spot_watchdog::sources::azure::{Azure, AzureSettings};
use spot_watchdog::sources::transports::{Client, Failure, Response, Service};
use spot_watchdog::sources::{HttpQuestion, Memory, Probe, ProbePace, Question, Reading, Source};
use spot_watchdog::view::{FindingLevel, Lifecycle, Machine};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// As fast as a poller may be.
const POLL: Duration = Duration::from_millis(50);

const ACTION: &str = "spot/instance-action";
const ACTION_PATH: &str = "/latest/meta-data/spot/instance-action";

/// A poller at work against an emulator.
struct Rig {
    emulator: Emulator,
    inputs: mpsc::Receiver<Input>,
    machine: watch::Receiver<Machine>,
    task: JoinHandle<()>,
}

async fn emulate(script: Script, interval: Duration) -> (Emulator, Arc<Aws>, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let emulator = Emulator::new(&SERVICE, script);
    tokio::spawn(serve(listener, emulator.clone()));
    let settings = AwsSettings { metadata_endpoint: Some(endpoint), ..AwsSettings::default() };
    let source = Aws::new(&settings, interval, &|_| None).unwrap();
    let client = Client::of(&source).unwrap();
    (emulator, Arc::new(source), client)
}

async fn start(script: Script, interval: Duration, memory: Box<dyn MemoryStore>) -> Rig {
    let (emulator, source, client) = emulate(script, interval).await;
    start_with(emulator, source, client, memory)
}

fn start_with(emulator: Emulator, source: Arc<dyn Source>, client: Client, memory: Box<dyn MemoryStore>) -> Rig {
    let (sender, inputs) = mpsc::channel(16);
    let (told, machine) = watch::channel(Machine::default());
    let (_, finished) = watch::channel(FinishedNotices::default());
    let answers = AnswerTimes::default();
    let poller = Poller { source, client, inputs: sender, machine: told, memory, answers, finished };
    Rig { emulator, inputs, machine, task: tokio::spawn(poller.run()) }
}

async fn fast(script: Script) -> Rig {
    start(script, POLL, Box::new(NoMemoryStore)).await
}

impl Rig {
    async fn next(&mut self) -> Input {
        timeout(Duration::from_secs(5), self.inputs.recv()).await.unwrap().unwrap()
    }

    /// The next reading with a notice in it, and its probe.
    async fn notice(&mut self) -> (String, Notice) {
        loop {
            if let Input::Answered { probe, mut notices, .. } = self.next().await
                && !notices.is_empty()
            {
                return (probe.as_str().to_owned(), notices.remove(0));
            }
        }
    }
}

fn troubled(path: &str, behaviour: Behaviour) -> Script {
    Script { troubles: vec![Trouble::at(path, behaviour)], ..Script::default() }
}

#[tokio::test]
async fn the_vital_probe_is_answered_first_and_every_probe_follows() {
    let mut rig = fast(Script::default()).await;
    let mut seen = Vec::new();
    while seen.len() < 5 {
        let Input::Answered { probe, notices, rank, skew, .. } = rig.next().await else { unreachable!() };
        assert_eq!(notices, []);
        assert_eq!(rank == Importance::Vital, probe.as_str() == ACTION);
        assert!(skew.unwrap().abs().as_secs() <= 1);
        if !seen.contains(&probe.as_str().to_owned()) {
            seen.push(probe.as_str().to_owned());
        }
    }
    assert_eq!(seen[0], ACTION);
    timeout(Duration::from_secs(5), rig.machine.wait_for(|machine| !machine.addresses.is_empty()))
        .await
        .unwrap()
        .unwrap();
    let machine = rig.machine.borrow().clone();
    assert_eq!((machine.id.as_str(), machine.lifecycle), ("i-0123456789abcdef0", Lifecycle::Spot));
    assert_eq!(rig.emulator.requests("PUT /latest/api/token"), 1);
    assert_eq!(rig.emulator.requests("GET /latest/meta-data/events/maintenance/scheduled"), 1, "once a minute");
}

#[tokio::test]
async fn a_notice_placed_just_after_a_poll_is_heard_at_the_next_with_the_machines_name() {
    let mut rig = start(Script::default(), Duration::from_millis(300), Box::new(NoMemoryStore)).await;
    rig.emulator.answered(&format!("GET {ACTION_PATH}")).await;
    // It asks for the other item of an interruption in the same poll.
    let other = rig.emulator.answered("GET /latest/meta-data/spot/termination-time");
    let _ = tokio::time::timeout(Duration::from_millis(250), other).await;
    rig.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    let placed = Instant::now();
    let (probe, first) = rig.notice().await;
    assert_eq!(probe, ACTION);
    let waited = placed.elapsed();
    assert!((200..600).contains(&waited.as_millis()), "the worst case is one interval, and this was {waited:?}");
    let (_, second) = rig.notice().await;
    assert_eq!(first.key, second.key, "both probes report one notice");
    assert_eq!((first.kind(), first.action), (NoticeKind::Interruption, NoticeAction::Terminate));
    assert_eq!(first.key.machine.as_str(), "i-0123456789abcdef0");
}

#[tokio::test]
async fn a_notice_that_stands_at_the_start_has_its_name_at_once_and_keeps_its_key() {
    let mut script = troubled("/latest/meta-data/instance-id", Behaviour::Status(500));
    let (named, _, _) = emulate(Script::default(), POLL).await;
    named.interrupt(EmulatedAction::Stop, StatedTime::default());
    named.change(|now| script.notices.clone_from(&now.notices));
    let mut rig = fast(script.clone()).await;
    let (_, nameless) = rig.notice().await;
    assert_eq!(nameless.key.machine.as_str(), "");
    rig.emulator.change(|script| script.troubles.clear());
    timeout(Duration::from_secs(5), rig.machine.wait_for(|machine| !machine.id.is_empty())).await.unwrap().unwrap();
    assert_eq!(rig.notice().await.1.key, nameless.key);

    script.troubles.clear();
    let mut rig = fast(script).await;
    let Input::Answered { probe, notices, .. } = rig.next().await else { unreachable!() };
    assert_eq!((probe.as_str(), notices[0].key.machine.as_str()), (ACTION, "i-0123456789abcdef0"));
}

#[tokio::test]
async fn slow_side_probes_do_not_delay_the_vital_one() {
    let mut rig =
        fast(troubled("/latest/meta-data/spot/termination-time", Behaviour::Late(Duration::from_millis(700)))).await;
    let began = Instant::now();
    let mut vital = 0;
    while vital < 20 {
        let Input::Answered { rank, .. } = rig.next().await else { unreachable!("slow is no fault") };
        vital += usize::from(rank == Importance::Vital);
    }
    assert!(began.elapsed() < Duration::from_millis(1_800), "20 polls of 50 ms took {:?}", began.elapsed());
}

#[tokio::test]
async fn polls_neither_bunch_up_nor_drift_after_a_delay() {
    let slow = Behaviour::Late(Duration::from_millis(420));
    let mut rig = start(troubled(ACTION_PATH, slow), Duration::from_millis(100), Box::new(NoMemoryStore)).await;
    while rig.emulator.requests(&format!("GET {ACTION_PATH}")) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    rig.emulator.change(|script| script.troubles.clear());
    let mut times = Vec::new();
    while times.len() < 4 {
        if let Input::Answered { rank: Importance::Vital, .. } = rig.next().await {
            times.push(Instant::now());
        }
    }
    // One answer comes late and one right behind it, then every 100 ms again: the three that were missed are not made up.
    assert!(times[3] - times[1] > Duration::from_millis(60), "{times:?}");
}

#[tokio::test]
async fn a_fault_is_told_as_such_and_the_fallback_still_hears_the_notice() {
    let mut script = troubled(ACTION_PATH, Behaviour::Body(b"<html>".to_vec()));
    script.notices = vec![ScriptedNotice::new(NoticeKind::Rebalance, Duration::ZERO)];
    let mut rig = fast(script).await;
    rig.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    let Input::Unanswered { probe, rank, fault, .. } = rig.next().await else { unreachable!() };
    assert_eq!((probe.as_str(), rank, fault.word.as_str()), (ACTION, Importance::Vital, "unreadable"));
    assert_eq!(rig.notice().await.0, "spot/termination-time");
    assert_eq!(rig.notice().await.1.kind(), NoticeKind::Rebalance);
}

#[tokio::test]
async fn without_a_session_only_the_vital_probe_is_asked_for() {
    let mut rig = fast(troubled("/latest/api/token", Behaviour::Status(403))).await;
    for _ in 0..3 {
        let Input::Unanswered { rank, fault, .. } = rig.next().await else { unreachable!() };
        assert_eq!((rank, fault.word.as_str()), (Importance::Vital, "disabled"));
    }
    rig.emulator.change(|script| script.troubles.clear());
    rig.emulator.interrupt(EmulatedAction::Stop, StatedTime::default());
    assert_eq!(rig.notice().await.0, ACTION, "heard at the first poll that is answered");
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Memory>>>);

impl MemoryStore for Kept {
    fn load(&self) -> Memory {
        self.0.lock().unwrap().last().cloned().unwrap_or_default()
    }

    fn save(&self, memory: &Memory) {
        self.0.lock().unwrap().push(memory.clone());
    }
}

#[tokio::test]
async fn having_been_in_service_is_kept_over_a_restart_and_saved_once() {
    let kept = Kept::default();
    let target = |state: &str| Script {
        settings: [("autoscaling/target-lifecycle-state".to_owned(), state.to_owned())].into(),
        ..Script::default()
    };
    let warmed = target("Warmed:Stopped");
    let state = "autoscaling/target-lifecycle-state";
    let mut rig = start(target("InService"), Duration::from_millis(50), Box::new(kept.clone())).await;
    let mut reads = 0;
    while reads < 3 {
        if let Input::Answered { probe, .. } = rig.next().await
            && probe.as_str() == state
        {
            reads += 1;
        }
    }
    assert_eq!(kept.0.lock().unwrap().len(), 1);
    let mut rig = start(warmed.clone(), Duration::from_millis(50), Box::new(kept)).await;
    let (probe, notice) = rig.notice().await;
    assert_eq!((probe.as_str(), notice.action), (state, NoticeAction::Leave));

    let mut rig = fast(warmed).await;
    loop {
        if let Input::Answered { probe, notices, .. } = rig.next().await
            && probe.as_str() == state
        {
            assert_eq!(notices, [], "a machine that boots into the pool has nothing to leave");
            break;
        }
    }
}

#[tokio::test]
async fn it_ends_when_nobody_listens() {
    let Rig { inputs, task, .. } = fast(Script::default()).await;
    drop(inputs);
    timeout(Duration::from_secs(5), task).await.unwrap().unwrap();
}

async fn look_at(script: Script) -> SourceCheck {
    let (_emulator, source, client) = emulate(script, POLL).await;
    check_source(source.as_ref(), &client, &Memory::new()).await
}

#[tokio::test]
async fn one_look_tells_what_this_machine_is_and_whether_a_notice_can_come() {
    let seen = look_at(Script::default()).await;
    assert!(seen.findings.iter().all(|finding| finding.weight == FindingLevel::Good), "{:?}", seen.findings);
    assert_eq!(seen.findings[0].sentence, "this machine is i-0123456789abcdef0 (g5.xlarge, spot, us-east-1a)");
    assert_eq!((seen.findings.len(), seen.findings[0].subject.as_str()), (6, "source aws"));

    let mut script = Script::default();
    script.set("instance-life-cycle", "on-demand");
    script.ahead = jiff::SignedDuration::from_secs(-180);
    let seen = look_at(script).await;
    let of = |weight| seen.findings.iter().filter(|finding| finding.weight == weight).collect::<Vec<_>>();
    assert!(of(FindingLevel::Warning)[0].sentence.contains("no Spot notice will ever come"));
    assert!(of(FindingLevel::Note)[0].sentence.contains("behind ours"), "{:?}", seen.findings);

    let seen = look_at(troubled("/latest/api/token", Behaviour::Status(403))).await;
    assert_eq!((seen.findings.len(), seen.findings[0].weight), (1, FindingLevel::Error));
}

/// A source that tells whose a notice is by the name of the machine.
async fn named(troubles: Vec<Trouble>) -> (Emulator, Arc<dyn Source>, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let metadata_endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
    let mut script = Script { troubles, ..Script::default() };
    script.set("requests-a-second", "1000");
    let emulator = Emulator::new(&azure::SERVICE, script);
    tokio::spawn(serve(listener, emulator.clone()));
    let source = Azure::new(&AzureSettings { metadata_endpoint, ..AzureSettings::default() }, POLL).unwrap();
    let client = Client::of(&source).unwrap();
    (emulator, Arc::new(source), client)
}

#[tokio::test]
async fn whose_a_notice_is_is_learned_before_it_is_read_and_where_it_cannot_be_that_is_no_nothing() {
    let (emulator, source, client) = named(Vec::new()).await;
    emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    let mut rig = start_with(emulator, source, client, Box::new(NoMemoryStore));
    let Input::Answered { notices, .. } = rig.next().await else { unreachable!("the very first answer is read") };
    assert_eq!(notices[0].key.machine.as_str(), "02aab8a4-74ef-476e-8182-f6d2ba4166a6");

    let unnamed = Trouble::at("/metadata/instance/compute", Behaviour::Status(500));
    let (emulator, source, client) = named(vec![unnamed]).await;
    emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    let mut rig = start_with(emulator, source, client, Box::new(NoMemoryStore));
    let Input::Unanswered { fault, .. } = rig.next().await else { unreachable!("whose it is is not known") };
    assert_eq!(fault.word, "unknown-machine");
    rig.emulator.change(|script| script.troubles.clear());
    rig.notice().await;
}

#[tokio::test]
async fn one_look_tells_what_an_operator_should_know() {
    let (_emulator, source, client) = named(Vec::new()).await;
    let seen = check_source(source.as_ref(), &client, &Memory::new()).await;
    let said: Vec<_> = seen.findings.iter().map(|finding| (finding.weight, finding.sentence.as_str())).collect();
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said[0].1.contains("(Standard_NC24ads_A100_v4, spot, westus2-1)"), "{said:?}");
    assert_eq!(said[1].1, "scheduledevents can be read and reports no notice");
    assert!(said[2].0 == FindingLevel::Note && said[2].1.contains("switches Scheduled Events on"), "{said:?}");
}

/// A source of another cloud, on the service of the one that we can play.
#[derive(Debug)]
struct Foreign {
    service: Service,
    probes: Vec<Probe>,
}

impl Source for Foreign {
    fn name(&self) -> SourceName {
        SourceName::new("foreign")
    }

    fn service(&self) -> Service {
        self.service.clone()
    }

    fn probes(&self) -> &[Probe] {
        &self.probes
    }

    /// A long poll goes on from the mark that came with the newest answer.
    fn next_question(&self, probe: &Probe, newest: Option<&Response>) -> Question {
        let (ProbePace::LongPoll { .. }, Question::Http(question)) = (probe.pace, &probe.question) else {
            return probe.question.clone();
        };
        let mark = newest.and_then(|newest| newest.http().ok()?.headers.get("etag")?.to_str().ok()).unwrap_or("0");
        Question::Http(HttpQuestion { path: format!("{}?last_etag={mark}", question.path), ..question.clone() })
    }

    fn read(&self, _: &ProbeName, response: &Response, _: &Machine, _: &Memory) -> Result<Reading, Fault> {
        response.http().map(|_| Reading::default())
    }

    fn diagnose(&self, failure: &Failure) -> Fault {
        Fault { word: "silent".to_owned(), sentence: format!("{failure:?}") }
    }
}

#[tokio::test]
async fn a_vital_probe_that_hangs_delays_no_other_and_one_session_is_opened_for_all() {
    const HANGS: &str = "/latest/meta-data/instance-type";
    let (emulator, source, _) = emulate(troubled(HANGS, Behaviour::Silent), POLL).await;
    let hanging = Probe { time_limit: Duration::from_secs(60), ..Probe::vital("hangs", Question::get(HANGS), POLL) };
    let others =
        [ACTION_PATH, "/latest/meta-data/instance-id"].map(|path| Probe::vital(path, Question::get(path), POLL));
    let probes = [hanging].into_iter().chain(others).collect();
    let source: Arc<dyn Source> = Arc::new(Foreign { service: source.service(), probes });
    let client = Client::of(source.as_ref()).unwrap();
    let mut rig = start_with(emulator, source, client, Box::new(NoMemoryStore));
    let began = Instant::now();
    for _ in 0..20 {
        let Input::Answered { probe, .. } = rig.next().await else { unreachable!("what hangs says nothing") };
        assert_ne!(probe.as_str(), "hangs");
    }
    assert!(began.elapsed() < Duration::from_millis(1_500), "10 polls of 50 ms took {:?}", began.elapsed());
    assert_eq!(rig.emulator.requests("PUT /latest/api/token"), 1);
    assert_eq!(rig.emulator.requests(&format!("GET {HANGS}")), 1);
}

#[tokio::test]
async fn one_that_refuses_sessions_is_asked_for_one_once_a_round_for_all_that_wait() {
    let (emulator, source, _) = emulate(troubled("/latest/api/token", Behaviour::Silent), POLL).await;
    let probes = ["/a", "/b", "/c"].map(|path| Probe::vital(path, Question::get(path), Duration::from_secs(60))).into();
    let source: Arc<dyn Source> = Arc::new(Foreign { service: source.service(), probes });
    let client = Client::of(source.as_ref()).unwrap();
    let mut rig = start_with(emulator, source, client, Box::new(NoMemoryStore));
    for _ in 0..3 {
        assert!(matches!(rig.next().await, Input::Unanswered { .. }));
    }
    assert_eq!(rig.emulator.requests("PUT /latest/api/token"), 1);
}

#[tokio::test]
async fn side_probes_are_asked_beside_a_long_poll_that_is_held_and_at_their_own_pace() {
    const HELD: &str = "/latest/meta-data/instance-type";
    let (emulator, source, _) = emulate(troubled(HELD, Behaviour::Silent), POLL).await;
    let pace = ProbePace::LongPoll { rest: POLL };
    let held = Probe { pace, time_limit: Duration::from_secs(60), ..Probe::vital("held", Question::get(HELD), POLL) };
    let side = |path: &str| Probe::side(path, Question::get(path), Duration::from_millis(200));
    let probes = vec![held, side(ACTION_PATH), side("/latest/meta-data/instance-id")];
    let source: Arc<dyn Source> = Arc::new(Foreign { service: source.service(), probes });
    let client = Client::of(source.as_ref()).unwrap();
    let mut rig = start_with(emulator, source, client, Box::new(NoMemoryStore));
    let began = Instant::now();
    for _ in 0..4 {
        for path in [ACTION_PATH, "/latest/meta-data/instance-id"] {
            let Input::Answered { probe, .. } = rig.next().await else { unreachable!("what is held says nothing") };
            assert_eq!(probe.as_str(), path);
        }
    }
    let took = began.elapsed().as_millis();
    assert!((500..1_500).contains(&took), "four rounds of 200 ms, the first at once: {took} ms");
    assert_eq!(rig.emulator.requests(&format!("GET {HELD}")), 1);
}

#[tokio::test]
async fn a_long_poll_is_asked_again_at_once_and_goes_on_from_the_newest_answer() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let asked = Arc::clone(&heads);
    tokio::spawn(async move {
        for mark in 1.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 2048];
            let length = stream.read(&mut head).await.unwrap();
            asked.lock().unwrap().push(String::from_utf8_lossy(&head[..length]).into_owned());
            // The first answer comes at once, the others when something has changed.
            tokio::time::sleep(Duration::from_millis(if mark == 1 { 0 } else { 400 })).await;
            let answer =
                format!("HTTP/1.1 200 OK\r\netag: mark{mark}\r\nconnection: close\r\ncontent-length: 5\r\n\r\nFALSE");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let endpoint = spot_watchdog::sources::transports::Endpoint::parse(&endpoint).unwrap();
    let probe = Probe {
        pace: ProbePace::LongPoll { rest: Duration::from_millis(100) },
        time_limit: Duration::from_secs(70),
        ..Probe::vital("preempted", Question::get("/preempted"), POLL)
    };
    let service = Service::Http { endpoint, session: None };
    let source: Arc<dyn Source> = Arc::new(Foreign { service, probes: vec![probe] });
    let client = Client::of(source.as_ref()).unwrap();
    let (idle, _, _) = emulate(Script::default(), POLL).await;
    let mut rig = start_with(idle, source, client, Box::new(NoMemoryStore));
    let began = Instant::now();
    for _ in 0..3 {
        assert!(matches!(rig.next().await, Input::Answered { .. }));
    }
    let took = began.elapsed().as_millis();
    assert!((850..1_600).contains(&took), "at once, after a rest and 400 ms, and after 400 ms more: {took} ms");
    let heads = heads.lock().unwrap();
    for (head, mark) in heads.iter().zip(["0", "mark1", "mark2"]) {
        assert!(head.starts_with(&format!("GET /preempted?last_etag={mark} ")), "{head}");
    }
}
