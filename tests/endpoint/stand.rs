//! A daemon without its world: a real engine, a real publisher, a real endpoint on loopback, and a client that says exactly
//! the bytes it is told to.

use crate::schema;
use spot_watchdog::engine::Engine;
use spot_watchdog::engine::{
    AskedSource, Assume, BootId, Event, Fault, Importance, Input, MachineId, Moment, Notice, NoticeAction, NoticeKey,
    NoticeKind, NoticeOrigin, Now, Policy, ProbeName, Removal, Rerun, SourceName, Stated, Step, StepName, Undo,
};
use spot_watchdog::server::http::{HttpServer, Serving};
use spot_watchdog::server::{Durability, JournalHealth, Status, StatusInputs, StatusPublisher};
use spot_watchdog::view::{Context, EpisodeView, Lifecycle, Machine, StepContext};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// No answer that is due takes longer, on however busy a machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// So many seconds after the daemon began.
pub(crate) fn at(second: u64) -> Now {
    let start: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    Now { moment: Moment::from_millis(1_000_000).plus(secs(second)), wall: start + secs(second) }
}

/// A notice of this kind and action for this time.
pub(crate) fn notice(kind: NoticeKind, action: NoticeAction, second: u64) -> Notice {
    Notice {
        key: NoticeKey {
            source: SourceName::new("aws"),
            kind,
            machine: MachineId::new("i-0abc"),
            event: String::new(),
        },
        action,
        stated: Stated::At(at(second).wall),
        usual_window: (kind == NoticeKind::Interruption).then_some(secs(120)),
        origin: NoticeOrigin::Reported,
        detail: String::new(),
    }
}

pub(crate) fn interruption(second: u64) -> Notice {
    notice(NoticeKind::Interruption, NoticeAction::Terminate, second)
}

/// The engine, its publisher, and what was journaled.
pub(crate) struct Daemon {
    pub(crate) watchdog: Engine,
    pub(crate) publisher: StatusPublisher,
    pub(crate) context: Context,
    pub(crate) inputs: StatusInputs,
    pub(crate) journal: Vec<(Now, Event)>,
}

impl Daemon {
    /// One that has just begun, with the facts that an earlier one journaled; not yet told that it was started.
    pub(crate) fn recovered(journal: Vec<(Now, Event)>, now: Now) -> Self {
        let mut watchdog = Engine::new(policy());
        for (at, event) in &journal {
            watchdog.recover(event, *at).unwrap();
        }
        let (context, inputs) = (context(), inputs());
        let open = EpisodeView::open(&watchdog, &context, now);
        let publisher = StatusPublisher::new(Status::of(&watchdog, open.as_ref(), &context, &inputs, now), now);
        Self { watchdog, publisher, context, inputs, journal }
    }

    pub(crate) fn started() -> Self {
        let mut daemon = Self::recovered(Vec::new(), at(0));
        daemon.hear(Input::Restarted { boot: BootId::new("boot") }, at(0));
        daemon
    }

    /// What the loop does: decide, journal, post.
    pub(crate) fn hear(&mut self, input: Input, now: Now) {
        let turn = self.watchdog.handle(input, now);
        self.journal.extend(turn.events.iter().filter(|event| event.is_journaled()).map(|event| (now, event.clone())));
        let open = EpisodeView::open(&self.watchdog, &self.context, now);
        let status = Status::of(&self.watchdog, open.as_ref(), &self.context, &self.inputs, now);
        self.publisher.publish(status, &turn.events, None, open.as_ref(), now);
        assert_eq!(schema::fault(&serde_json::to_value(self.publisher.read()).unwrap()), None, "whatever is posted");
    }

    /// The vital probe was answered with these notices.
    pub(crate) fn answer(&mut self, notices: &[Notice], second: u64) {
        let (source, probe) = (SourceName::new("aws"), ProbeName::new("spot/instance-action"));
        let input = Input::Answered {
            source,
            probe,
            rank: Importance::Vital,
            notices: notices.to_vec(),
            withdrawn: Vec::new(),
            skew: None,
        };
        self.hear(input, at(second));
    }

    /// The vital probe was not answered.
    pub(crate) fn miss(&mut self, second: u64) {
        let fault = Fault {
            word: "hop-limit".to_owned(),
            sentence: "the metadata service does not answer from inside a container".to_owned(),
        };
        let (source, probe) = (SourceName::new("aws"), ProbeName::new("spot/instance-action"));
        self.hear(Input::Unanswered { source, probe, rank: Importance::Vital, fault }, at(second));
    }
}

/// What each probe alone tells of.
fn kinds() -> BTreeMap<NoticeKind, ProbeName> {
    [("spot/instance-action", NoticeKind::Interruption), ("autoscaling/target-lifecycle-state", NoticeKind::ScaleIn)]
        .map(|(probe, kind)| (kind, ProbeName::new(probe)))
        .into()
}

fn policy() -> Policy {
    let step = |name: &str, on: &[NoticeKind]| Step {
        name: StepName::new(name),
        on: on.iter().copied().collect::<BTreeSet<_>>(),
        after: Vec::new(),
        timeout: Some(secs(90)),
        needs: secs(45),
        optional: false,
        hold_until_left: None,
        retries: 0,
        repeat: true,
        rerun: Rerun::IfLost,
        undo: Undo::Stay,
    };
    Policy {
        steps: vec![step(
            "checkpoint",
            &[NoticeKind::Interruption, NoticeKind::ScaleIn, NoticeKind::Rebalance, NoticeKind::Shutdown],
        )],
        sources: vec![AskedSource {
            source: SourceName::new("aws"),
            interval: secs(5),
            long_poll: false,
            blind_after: secs(21),
            first_answer: secs(0),
            usual_window: Some(secs(120)),
            removal: Removal::Counted,
            kinds: kinds(),
        }],
        assume: Assume {
            interruption: secs(120),
            hibernate: secs(60),
            scale_in: secs(60),
            shutdown: secs(25),
            rebalance: secs(600),
            maintenance: secs(120),
        },
        reserve: secs(5),
        least_window: secs(10),
        maintenance_lead: secs(600),
        survived_after: secs(600),
        undo_on_survival: Undo::PutBack,
    }
}

fn context() -> Context {
    let name = StepName::new("checkpoint");
    let step = StepContext {
        name: name.clone(),
        kind: "hook".to_owned(),
        describe: "runs /opt/job/save_checkpoint.sh".to_owned(),
        needs: secs(45),
        optional: false,
    };
    Context {
        version: "0.1.0".to_owned(),
        machine: Machine {
            id: "i-0abc".to_owned(),
            machine_type: "g5.xlarge".to_owned(),
            lifecycle: Lifecycle::Spot,
            ..Machine::default()
        },
        steps: vec![step],
        printed: BTreeMap::from([(name, vec!["saving\u{1b}[2J <b>step 4200</b>".to_owned()])]),
        ..Context::default()
    }
}

fn inputs() -> StatusInputs {
    StatusInputs {
        started: at(0),
        steps: BTreeMap::new(),
        timings: std::sync::Arc::default(),
        journal: JournalHealth { durability: Durability::Kept, sentence: String::new() },
        messages: Vec::new(),
        trouble: Vec::new(),
    }
}

/// A served endpoint; it ends with this.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) served: JoinHandle<()>,
}

impl Endpoint {
    /// Serves a publisher as told; the first address is where it can be asked, on loopback.
    pub(crate) async fn serve(publisher: &StatusPublisher, mut serving: Serving) -> Self {
        if serving.listen.is_empty() {
            serving.listen.push("127.0.0.1:0".parse().unwrap());
        }
        let server = HttpServer::new(serving, publisher.clone());
        let mut bound = server.bound();
        let stop = CancellationToken::new();
        let served = tokio::spawn(server.serve(stop.clone()));
        let address = bound.wait_for(|bound| bound[0].is_some()).await.unwrap()[0].unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], address.port()));
        Self { address, stop, served }
    }

    pub(crate) async fn usual(publisher: &StatusPublisher) -> Self {
        Self::serve(publisher, Serving::default()).await
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Asks with these very bytes, and reads to the end of the connection.
    pub(crate) async fn say(&self, request: &[u8]) -> Reply {
        let mut stream = self.connect().await;
        // Whoever is turned away in the middle of what he says may not be able to say the rest.
        drop(stream.write_all(request).await);
        let mut bytes = Vec::new();
        let mut part = [0; 4096];
        while let Ok(Ok(length @ 1..)) = tokio::time::timeout(PATIENCE, stream.read(&mut part)).await {
            bytes.extend_from_slice(&part[..length]);
        }
        Reply::read(&bytes)
    }

    pub(crate) async fn ask(&self, method: &str, target: &str) -> Reply {
        let host = self.address;
        let request = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let reply = self.say(request.as_bytes()).await;
        if method == "GET" {
            schema::hold(target, reply.status, &reply.body);
        }
        reply
    }

    pub(crate) async fn get(&self, target: &str) -> Reply {
        self.ask("GET", target).await
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.stop.cancel();
        self.served.abort();
    }
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    fn read(bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}
