//! The action: sends its request on a notice, insists where that can do no harm, and sends its undo.

use super::{RequestTemplate, template};
use crate::actions::{Action, ActionContext, HostInfo, RunContext, StopBy, Task};
use crate::engine::{Effect, Outcome, Process, RunResult, StepName, Undo};
use crate::transport::certificates::CertificateFiles;
use crate::transport::exchange::{ExchangeError, HttpReply, TlsSettings, agree_and_listen, connect, exchange};
use crate::transport::{address, is_loopback};
use crate::view::{Finding, FindingLevel};
use backon::{ConstantBuilder, Retryable};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The rest between two tries.
const REST: Duration = Duration::from_millis(250);

/// How long it is tried again: what restarts is back by then, and what comes after us needs its time too.
const TRYING: Duration = Duration::from_secs(10);

/// The most characters of an answer's body that are shown.
const WORDS: usize = 120;

/// The subject of findings; who asks knows the step's name, and puts it there.
const SUBJECT: &str = "http";

/// The action.
#[derive(Debug)]
pub(super) struct HttpAction {
    request: RequestTemplate,
    undo: Option<RequestTemplate>,
    tls: TlsSettings,
}

/// What an undo needs to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SentRequest {
    /// Whether the request may have done something.
    may_have_worked: bool,
}

/// How far it came, for the sentence that ends it whenever that is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct SendProgress {
    /// Whether a request is out, and unanswered.
    waiting: bool,
    /// Whether one may have done something.
    may_have_worked: bool,
    /// What went wrong last.
    last: Option<SendError>,
}

/// Why a request did not work.
#[derive(Clone, PartialEq, Eq, Debug)]
enum SendError {
    Exchange(ExchangeError),
    Reply(HttpReply),
}

impl SendError {
    /// Whether the same request may be sent again, and can work then.
    fn may_pass(&self, request: &RequestTemplate) -> bool {
        match self {
            Self::Exchange(error) => error.may_pass() && (!error.was_sent() || request.may_be_repeated()),
            Self::Reply(reply) => request.may_be_repeated() && matches!(reply.status, 429 | 500..=599),
        }
    }

    /// The rest that the other side asks for before that.
    fn rest(&self) -> Duration {
        match self {
            Self::Exchange(_) => REST,
            Self::Reply(reply) => reply.retry_after.unwrap_or_default(),
        }
    }
}

impl HttpAction {
    pub(super) fn new(request: RequestTemplate, undo: Option<RequestTemplate>, files: CertificateFiles) -> Self {
        Self { request, undo, tls: TlsSettings::of(files) }
    }

    /// The request, until it worked, cannot work, or time is up.
    async fn send(&self, request: &RequestTemplate, context: &RunContext) -> (Outcome, String, SendProgress) {
        let progress = Mutex::new(SendProgress::default());
        let ended = context.stop_by.in_time(self.send_until_it_works(request, context, &progress)).await;
        let progress = progress.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (outcome, detail) = match ended {
            Some(Ok(status)) => (Outcome::Done, format!("{request}: {status}")),
            Some(Err(error)) => (Outcome::Failed, said(request, Some(&error))),
            None if progress.waiting => {
                (Outcome::TimedOut, format!("{request}: it had not answered when time ran out"))
            }
            None => (Outcome::TimedOut, said(request, progress.last.as_ref())),
        };
        (outcome, detail, progress)
    }

    async fn send_until_it_works(
        &self,
        request: &RequestTemplate,
        context: &RunContext,
        progress: &Mutex<SendProgress>,
    ) -> Result<u16, SendError> {
        let end = Instant::now() + TRYING;
        let send = || self.send_once(request, context, progress);
        send.retry(ConstantBuilder::new().with_delay(REST).without_max_times())
            .when(|error| error.may_pass(request) && Instant::now() + REST < end)
            .adjust(|error, _| {
                // None before the other side wants one, but one more in any case.
                let last = end.min(context.stop_by.now()).checked_sub(StopBy::LAST_WORD + REST).unwrap_or(end);
                Some(error.rest().min(last.saturating_duration_since(Instant::now())).max(REST))
            })
            .await
    }

    async fn send_once(
        &self,
        request: &RequestTemplate,
        context: &RunContext,
        progress: &Mutex<SendProgress>,
    ) -> Result<u16, SendError> {
        let before = change(progress, |progress| progress.may_have_worked);
        let (worked, result) = match self.exchange(request, context, progress).await {
            Ok(reply) if request.expects(reply.status) => (true, Ok(reply.status)),
            // What the other side found wrong with it was not done (RFC 9110, 15.5); all else is not known.
            Ok(reply) => (!(400..500).contains(&reply.status), Err(SendError::Reply(reply))),
            Err(error) => (error.was_sent(), Err(SendError::Exchange(error))),
        };
        let last = result.as_ref().err().cloned();
        change(progress, |progress| {
            *progress = SendProgress { waiting: false, may_have_worked: before || worked, last };
        });
        result
    }

    async fn exchange(
        &self,
        request: &RequestTemplate,
        context: &RunContext,
        progress: &Mutex<SendProgress>,
    ) -> Result<HttpReply, ExchangeError> {
        let fields = fields(context);
        let filled = request.url.filled(&fields);
        let url = filled.and_then(|url| address(&url).map_err(str::to_owned));
        let url = url.map_err(|why| ExchangeError::Impossible(format!("its URL {why}")))?;
        let body = request.body.as_ref().map(|body| body.filled(&fields)).transpose();
        let body = body.map_err(|why| ExchangeError::Impossible(format!("its body {why}")))?.unwrap_or_default();
        let tls = self.tls.config_for(&url).await?;
        let sending = || change(progress, |progress| (progress.waiting, progress.may_have_worked) = (true, true));
        exchange((&request.method, &url), &request.headers, body, tls, sending).await
    }

    async fn go(&self, context: &RunContext) -> RunResult {
        let (outcome, detail, progress) = self.send(&self.request, context).await;
        let sent = SentRequest { may_have_worked: progress.may_have_worked };
        let undo_with = self.undo.as_ref().and_then(|_| serde_json::to_value(sent).ok());
        let effect = if progress.may_have_worked { Effect::Possible } else { Effect::None };
        RunResult { undo_with, effect, ..RunResult::new(outcome, detail) }
    }

    async fn come_back(&self, context: &RunContext) -> RunResult {
        let Some(undo) = &self.undo else {
            return RunResult::new(Outcome::Failed, "its configuration names no `undo` (any more)".to_owned());
        };
        let notes = context.notes::<SentRequest>();
        // A run of which we lost sight told nothing, and may have done it.
        let unknown = notes.lost_sight || notes.told.is_empty();
        if !unknown && notes.told.iter().all(|sent| !sent.may_have_worked) {
            return RunResult::new(Outcome::Done, format!("nothing to put back: no {} was taken", self.request));
        }
        let (outcome, detail, _) = self.send(undo, context).await;
        let detail = if outcome == Outcome::Done { detail } else { format!("not put back: {detail}") };
        RunResult::new(outcome, detail)
    }

    /// Connects for a request, and agrees on TLS where that is its way, but sends nothing.
    async fn reach(&self, request: &RequestTemplate) -> Result<Url, ExchangeError> {
        let url = address(&request.shown).map_err(|why| ExchangeError::Impossible(format!("its URL {why}")))?;
        // First, since what is wrong with a file is wrong whether or not anybody listens.
        let tls = if url.scheme() == "https" { Some(self.tls.load().await?) } else { None };
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
        for request in std::iter::once(&self.request).chain(&self.undo) {
            if seen.contains(&request.shown.as_str()) {
                continue;
            }
            seen.push(&request.shown);
            // Nothing is sent: any request may change something.
            match self.reach(request).await {
                Ok(url) => {
                    say(
                        FindingLevel::Good,
                        format!("{} takes connections; the request itself is not tried", request.shown),
                    );
                    if url.scheme() == "http"
                        && !is_loopback(&url)
                        && request.headers.values().any(|it| it.is_sensitive())
                    {
                        let sentence = "its headers go over the network in clear text (https:// would hide them)";
                        say(FindingLevel::Warning, format!("{}: {sentence}", request.shown));
                    }
                }
                Err(error) => say(FindingLevel::Error, error.at(&request.shown).to_string()),
            }
        }
        let is_by_tls = std::iter::once(&self.request).chain(&self.undo).any(|it| it.shown.starts_with("https:"));
        if let Some(sentence) = self.tls.wrong_with_files(is_by_tls).await {
            say(FindingLevel::Warning, sentence);
        }
        if self.undo.is_none() {
            let sentence = "it has no `undo`, so what it does stays when a notice is withdrawn or the machine survives";
            say(FindingLevel::Note, sentence.to_owned());
        }
        found
    }
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

fn said(request: &RequestTemplate, last: Option<&SendError>) -> String {
    match last {
        Some(SendError::Exchange(error)) => format!("{request}: {}", error.at(&request.shown)),
        Some(SendError::Reply(reply)) => {
            let status = reply.status;
            let why = match status {
                300..=399 => " (a redirect, which is not followed: name the address itself)",
                401 | 403 => " (it wants other credentials: see `headers`)",
                404 => " (nothing is there by this path)",
                405 => " (it wants another `method`)",
                429 => " (it is asked too often)",
                _ => "",
            };
            let words = reply.words(WORDS, &request.headers, std::iter::empty());
            let words = if words.is_empty() { words } else { format!(": {words}") };
            format!("{request}: it answered {status}{why}{words}")
        }
        None => format!("{request}: nothing was sent when time ran out"),
    }
}

fn change<T>(progress: &Mutex<SendProgress>, change: impl FnOnce(&mut SendProgress) -> T) -> T {
    change(&mut progress.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Action for HttpAction {
    fn describe(&self) -> String {
        format!("sends {}", self.request)
    }

    fn puts_back(&self) -> Undo {
        if self.undo.is_some() { Undo::PutBack } else { Undo::Stay }
    }

    fn act<'a>(&'a self, context: &'a RunContext) -> Task<'a, RunResult> {
        Box::pin(self.go(context))
    }

    fn undo<'a>(&'a self, context: &'a RunContext) -> Task<'a, RunResult> {
        Box::pin(self.come_back(context))
    }

    fn adopt<'a>(&'a self, _: &'a RunContext, _: Option<Process>) -> Task<'a, RunResult> {
        let detail = "we ended while it ran, and cannot know whether the request was taken".to_owned();
        Box::pin(std::future::ready(RunResult::new(Outcome::Lost, detail)))
    }

    fn keep_warm<'a>(&'a self, _: &'a StepName, _: &'a ActionContext) -> Task<'a, ()> {
        Box::pin(async {
            // Root certificates are read now, and not in the notice.
            for request in std::iter::once(&self.request).chain(&self.undo) {
                if let Ok(url) = address(&request.shown)
                    && let Err(error) = self.tls.config_for(&url).await
                {
                    tracing::warn!("{}", error.at(&request.shown));
                }
            }
        })
    }

    fn check<'a>(&'a self, _: &'a HostInfo) -> Task<'a, Vec<Finding>> {
        Box::pin(self.look())
    }
}
