//! The action: sends its request on a notice, insists where that can do no harm, and sends its undo.

use super::certificates::CertificateFiles;
use super::exchange::{Answer, Roots, Trouble, agree_and_listen, connect, exchange};
use super::{Request, address, template};
use crate::actions::{Action, ActionContext, HostInfo, RunContext, Task};
use crate::engine::{Effect, Outcome, Process, RunResult, StepName, Undo};
use crate::view::in_one_line;
use crate::view::{Finding, Weight};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long before its stop-by a run says what became of it, rather than be cut off without a word.
const LAST_WORD: Duration = Duration::from_millis(150);

/// The rest between two tries.
const REST: Duration = Duration::from_millis(250);

/// How long it is tried again: what restarts is back by then, and what comes after us needs its time too.
const INSISTING: Duration = Duration::from_secs(10);

/// The most characters of an answer's body that are shown.
const WORDS: usize = 120;

/// The subject of findings; who asks knows the step's name, and puts it there.
const SUBJECT: &str = "http";

/// The action.
#[derive(Debug)]
pub(super) struct Http {
    there: Request,
    back: Option<Request>,
    roots: Roots,
}

/// What an undo needs to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sent {
    /// Whether the request may have done something.
    may_have_worked: bool,
}

/// How far it came, for the sentence that ends it whenever that is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Way {
    /// Whether a request is out, and unanswered.
    waiting: bool,
    /// Whether one may have done something.
    may_have_worked: bool,
    /// What went wrong last.
    last: Option<Miss>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Miss {
    Trouble(Trouble),
    Answer(Answer),
}

impl Http {
    pub(super) fn new(there: Request, back: Option<Request>, files: CertificateFiles) -> Self {
        Self { there, back, roots: Roots::of(files) }
    }

    /// The request, until it worked, cannot work, or time is up.
    async fn send(&self, request: &Request, context: &RunContext) -> (Outcome, String, Way) {
        let way = Mutex::new(Way::default());
        let ended = tokio::select! {
            biased;
            ended = self.insist(request, context, &way) => Some(ended),
            () = context.stop_by.reached(LAST_WORD) => None,
        };
        let way = way.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (outcome, detail) = match (ended, &way.last) {
            (Some(Ok(status)), _) => (Outcome::Done, format!("{request}: {status}")),
            (Some(Err(())), last) => (Outcome::Failed, said(request, last.as_ref())),
            (None, _) if way.waiting => {
                (Outcome::TimedOut, format!("{request}: it had not answered when time ran out"))
            }
            (None, last) => (Outcome::TimedOut, said(request, last.as_ref())),
        };
        (outcome, detail, way)
    }

    async fn insist(&self, request: &Request, context: &RunContext, way: &Mutex<Way>) -> Result<u16, ()> {
        let until = Instant::now() + INSISTING;
        loop {
            let miss = match self.send_once(request, context, way).await {
                Ok(answer) if request.expects(answer.status) => {
                    note(way, |way| way.may_have_worked = true);
                    return Ok(answer.status);
                }
                Ok(answer) => {
                    // What the other side found wrong with it was not done (RFC 9110, 15.5); all else is not known.
                    let refused = (400..500).contains(&answer.status);
                    note(way, |way| way.may_have_worked |= !refused);
                    Miss::Answer(answer)
                }
                Err(trouble) => {
                    note(way, |way| way.may_have_worked |= trouble.was_sent());
                    Miss::Trouble(trouble)
                }
            };
            let again = match &miss {
                Miss::Trouble(trouble) => trouble.may_pass() && (!trouble.was_sent() || request.may_be_repeated()),
                Miss::Answer(answer) => {
                    request.may_be_repeated() && (answer.status == 429 || (500..600).contains(&answer.status))
                }
            };
            let asked = if let Miss::Answer(answer) = &miss { answer.retry_after.unwrap_or_default() } else { REST };
            note(way, |way| (way.last, way.waiting) = (Some(miss), false));
            if !again || Instant::now() + REST >= until {
                return Err(());
            }
            // None before the other side wants one, but one more in any case.
            let last = until.min(context.stop_by.now()).checked_sub(LAST_WORD + REST).unwrap_or(until);
            sleep(asked.min(last.saturating_duration_since(Instant::now())).max(REST)).await;
        }
    }

    async fn send_once(&self, request: &Request, context: &RunContext, way: &Mutex<Way>) -> Result<Answer, Trouble> {
        let fields = fields(context);
        let filled = request.url.filled(&fields);
        let url = filled.and_then(|url| address(&url).map_err(str::to_owned));
        let url = url.map_err(|why| Trouble::Impossible(format!("its URL {why}")))?;
        let body = request.body.as_ref().map(|body| body.filled(&fields)).transpose();
        let body = body.map_err(|why| Trouble::Impossible(format!("its body {why}")))?.unwrap_or_default();
        let tls = self.roots.tls_for(&url).await?;
        let sending = || note(way, |way| (way.waiting, way.may_have_worked) = (true, true));
        let before = note(way, |way| way.may_have_worked);
        let answer = exchange((&request.method, &url), &request.headers, body, tls, sending).await;
        // Whether it worked is known better now.
        note(way, |way| (way.waiting, way.may_have_worked) = (false, before));
        answer
    }

    async fn go(&self, context: &RunContext) -> RunResult {
        let (outcome, detail, way) = self.send(&self.there, context).await;
        let sent = Sent { may_have_worked: way.may_have_worked };
        let undo_with = self.back.as_ref().and_then(|_| serde_json::to_value(sent).ok());
        let effect = if way.may_have_worked { Effect::Possible } else { Effect::None };
        RunResult { undo_with, effect, ..RunResult::new(outcome, detail) }
    }

    async fn come_back(&self, context: &RunContext) -> RunResult {
        let Some(back) = &self.back else {
            return ending(Outcome::Failed, "its configuration names no `undo` (any more)".to_owned());
        };
        let notes = context.notes::<Sent>();
        // A run of which we lost sight told nothing, and may have done it.
        let unknown = notes.lost_sight || notes.told.is_empty();
        if !unknown && notes.told.iter().all(|sent| !sent.may_have_worked) {
            return ending(Outcome::Done, format!("nothing to put back: no {} was taken", self.there));
        }
        let (outcome, detail, _) = self.send(back, context).await;
        let detail = if outcome == Outcome::Done { detail } else { format!("not put back: {detail}") };
        ending(outcome, detail)
    }

    /// Connects for a request, and agrees on TLS where that is its way, but sends nothing.
    async fn reach(&self, request: &Request) -> Result<Url, Trouble> {
        let url = address(&request.shown).map_err(|why| Trouble::Impossible(format!("its URL {why}")))?;
        // First, since what is wrong with a file is wrong whether or not anybody listens.
        let tls = if url.scheme() == "https" { Some(self.roots.load().await?) } else { None };
        let stream = connect(&url).await?;
        if let Some(tls) = tls {
            agree_and_listen(&url, stream, tls).await?;
        }
        Ok(url)
    }

    async fn look(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut say = |weight, sentence: String| found.push(Finding::new(weight, SUBJECT, sentence));
        let mut seen: Vec<&str> = Vec::new();
        for request in std::iter::once(&self.there).chain(&self.back) {
            if seen.contains(&request.shown.as_str()) {
                continue;
            }
            seen.push(&request.shown);
            // Nothing is sent: any request may change something.
            match self.reach(request).await {
                Ok(url) => {
                    say(Weight::Good, format!("{} takes connections; the request itself is not tried", request.shown));
                    if url.scheme() == "http" && !is_near(&url) && request.headers.values().any(|it| it.is_sensitive())
                    {
                        let sentence = "its headers go over the network in clear text (https:// would hide them)";
                        say(Weight::Warning, format!("{}: {sentence}", request.shown));
                    }
                }
                Err(trouble) => say(Weight::Error, trouble.at(&request.shown).to_string()),
            }
        }
        let is_by_tls = std::iter::once(&self.there).chain(&self.back).any(|it| it.shown.starts_with("https:"));
        if let Some(sentence) = self.roots.wrong_with_files(is_by_tls).await {
            say(Weight::Warning, sentence);
        }
        if self.back.is_none() {
            let sentence = "it has no `undo`, so what it does stays when a notice is withdrawn or the machine survives";
            say(Weight::Note, sentence.to_owned());
        }
        found
    }
}

/// Whether an address is on this machine.
fn is_near(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What can be filled into the request of a step.
fn fields(context: &RunContext) -> Value {
    let briefing = &context.briefing;
    json!({
        "notice": briefing,
        "episode": briefing.episode,
        "source": briefing.source,
        "notice_kind": briefing.notice_kind,
        "action": briefing.action,
        "instance_id": briefing.instance_id,
        "deadline": briefing.deadline,
        "seconds_left": context.stop_by.now().saturating_duration_since(Instant::now()).as_secs(),
        "detail": briefing.detail,
        "step": context.run.step,
        "attempt": context.run.attempt,
    })
}

/// The same with any values, for who reads a configuration.
pub(super) fn example() -> Value {
    let texts = ["episode", "source", "notice_kind", "action", "instance_id", "deadline", "detail", "step"];
    template::example(&texts, json!({ "notice": {}, "seconds_left": 1, "attempt": 1 }))
}

fn said(request: &Request, last: Option<&Miss>) -> String {
    match last {
        Some(Miss::Trouble(trouble)) => format!("{request}: {}", trouble.at(&request.shown)),
        Some(Miss::Answer(answer)) => {
            let status = answer.status;
            let why = match status {
                300..=399 => " (a redirect, which is not followed: name the address itself)",
                401 | 403 => " (it wants other credentials: see `headers`)",
                404 => " (nothing is there by this path)",
                405 => " (it wants another `method`)",
                429 => " (it is asked too often)",
                _ => "",
            };
            let words = words(request, &answer.body);
            let words = if words.is_empty() { words } else { format!(": {words}") };
            format!("{request}: it answered {status}{why}{words}")
        }
        None => format!("{request}: nothing was sent when time ran out"),
    }
}

/// The first words of an answer, without what we sent in confidence: some servers repeat it.
fn words(request: &Request, body: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(body).into_owned();
    for value in request.headers.values().filter(|value| value.is_sensitive()) {
        if let Ok(secret) = value.to_str() {
            for part in secret.split_whitespace().filter(|part| part.len() > 3) {
                text = text.replace(part, "…");
            }
        }
    }
    in_one_line(&text, WORDS)
}

fn note<T>(way: &Mutex<Way>, write: impl FnOnce(&mut Way) -> T) -> T {
    write(&mut way.lock().unwrap_or_else(PoisonError::into_inner))
}

fn ending(outcome: Outcome, detail: String) -> RunResult {
    RunResult::new(outcome, detail)
}

impl Action for Http {
    fn describe(&self) -> String {
        format!("sends {}", self.there)
    }

    fn puts_back(&self) -> Undo {
        if self.back.is_some() { Undo::PutBack } else { Undo::Stay }
    }

    fn act<'a>(&'a self, context: &'a RunContext) -> Task<'a, RunResult> {
        Box::pin(self.go(context))
    }

    fn undo<'a>(&'a self, context: &'a RunContext) -> Task<'a, RunResult> {
        Box::pin(self.come_back(context))
    }

    fn adopt<'a>(&'a self, _: &'a RunContext, _: Option<Process>) -> Task<'a, RunResult> {
        let detail = "we ended while it ran, and cannot know whether the request was taken".to_owned();
        Box::pin(std::future::ready(ending(Outcome::Lost, detail)))
    }

    fn keep_warm<'a>(&'a self, _: &'a StepName, _: &'a ActionContext) -> Task<'a, ()> {
        Box::pin(async {
            // Root certificates are read now, and not in the notice.
            for request in std::iter::once(&self.there).chain(&self.back) {
                if let Ok(url) = address(&request.shown)
                    && let Err(trouble) = self.roots.tls_for(&url).await
                {
                    tracing::warn!("{}", trouble.at(&request.shown));
                }
            }
        })
    }

    fn check<'a>(&'a self, _: &'a HostInfo) -> Task<'a, Vec<Finding>> {
        Box::pin(self.look())
    }
}
