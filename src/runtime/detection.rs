//! Finds out which cloud this is, where no source was named: what the machine's signs say at once, then those asked who may
//! be there, again and again with growing rests until one is heard. From then on the same task polls that source, with the
//! client that it was found with; nothing is kept of the others.
//!
//! What is decided from signs and answers is [`detection`](crate::sources::detection)'s.

use super::assembly::PollerSetup;
use super::signs;
use crate::config::Settings;
use crate::engine::{Fault, Importance, Input};
use crate::sources::Source;
use crate::sources::detection::{Asked, Conclusion, FirstLook, Search, first_look};
use crate::sources::transports::http::{HttpFailure, HttpResponse, MetadataClient, RequestFailure};
use crate::sources::transports::{Client, DEFAULT_TIME_LIMIT, Failure, TimedResponse};
use crate::view::{CloudFinding, CloudState, Finding, FindingLevel};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

/// How long all answers together may take: a metadata service answers in milliseconds, and a start waits for it.
const LIMIT: Duration = Duration::from_millis(1_200);

/// The same where it is known whom to ask, and only the answer is waited for.
const PATIENT_LIMIT: Duration = Duration::from_secs(3);

/// From one time that nobody was heard to the next, at first; then twice as long each time. It is longer than [`LIMIT`].
const FIRST_REST: Duration = Duration::from_secs(2);

/// The longest rest.
const LONGEST_REST: Duration = Duration::from_secs(240);

/// What is known of the cloud, and its source once that is asked.
#[derive(Clone, Debug, Default)]
pub struct Detected {
    /// What is told of it; nothing where sources are named.
    pub finding: Option<CloudFinding>,
    /// Its source.
    pub source: Option<Arc<dyn Source>>,
}

/// Looks at this machine's signs. A source that they are certain of is asked from the beginning. What has to be asked to
/// know more is given back.
pub(super) fn begin(settings: &mut Settings) -> (Detected, Option<Search>) {
    let candidates = std::mem::take(&mut settings.candidates);
    if candidates.is_empty() {
        return (Detected::default(), None);
    }
    match first_look(&signs::here(), candidates, settings.metadata_endpoint.as_deref()) {
        FirstLook::Decided(finding) => (Detected { finding: Some(finding), source: None }, None),
        FirstLook::Open(mut search) => {
            if settings.metadata_endpoint.is_none() {
                search.asked.retain(|asked| signs::may_ask(&asked.endpoint()));
            }
            let source = search.certain().map(|candidate| Arc::clone(&candidate.source));
            if let Some(source) = &source {
                settings.ask(Arc::clone(source));
            }
            (Detected { finding: Some(search.beginning()), source }, Some(search))
        }
    }
}

/// Finds out once, for `check` and rehearsals: these settings ask what is found. Says what that is.
pub async fn settle(settings: &mut Settings) -> Option<Finding> {
    let (detected, search) = begin(settings);
    let mut finding = detected.finding?;
    if let Some(search) = search {
        let (conclusion, _) = ask(&search, LIMIT).await;
        finding = conclusion.finding;
        if let (None, Some(Asked::Source(candidate))) =
            (detected.source, conclusion.source.and_then(|at| search.asked.get(at)))
        {
            settings.ask(Arc::clone(&candidate.source));
            sleep(search.rest(candidate)).await;
        }
    }
    let weight = match finding.state {
        CloudState::Looking | CloudState::Found => FindingLevel::Good,
        // This may be another machine than the one that it is meant for.
        CloudState::OnlySignals | CloudState::None | CloudState::Silent => FindingLevel::Warning,
        CloudState::Ambiguous => FindingLevel::Error,
    };
    Some(Finding::new(weight, "cloud", finding.sentence))
}

/// Goes on looking, and then polls what was found.
pub(super) struct Detector {
    pub(super) search: Search,
    pub(super) told: watch::Sender<Detected>,
    pub(super) pollers: PollerSetup,
}

impl Detector {
    /// Runs until nobody takes what is read any more. It may be dropped at any time.
    pub(super) async fn run(self) {
        let Self { search, told, pollers } = self;
        // On the heap, so that what looking takes is given back.
        let Some((source, client)) = Box::pin(look(search, told, &pollers.inputs)).await else { return };
        let poller = pollers.of(source, client);
        drop(pollers);
        poller.run().await;
    }
}

/// Asks until somebody is heard; nothing where nobody is interested any more.
async fn look(
    mut search: Search,
    told: watch::Sender<Detected>,
    inputs: &mpsc::Sender<Input>,
) -> Option<(Arc<dyn Source>, Client)> {
    let mut rest = FIRST_REST;
    loop {
        let began = Instant::now();
        let is_certain = told.borrow().source.is_some();
        let (Conclusion { finding, source, is_heard }, answers) =
            ask(&search, if is_certain { PATIENT_LIMIT } else { LIMIT }).await;
        let source = source.and_then(|at| Some((at, source_of(&search, at)?)));
        let detected =
            Detected { finding: Some(finding), source: source.as_ref().map(|(_, source)| Arc::clone(source)) };
        told.send_if_modified(|old| {
            let is_new =
                old.finding != detected.finding || old.source.is_some() != detected.source.is_some() || is_heard;
            *old = detected;
            is_new
        });
        let Some((at, source)) = source else {
            tokio::select! {
                () = sleep_until(began + search.interval().unwrap_or(rest)) => {}
                () = inputs.closed() => return None,
            }
            rest = (rest * 2).min(LONGEST_REST);
            continue;
        };
        let answer = answers.into_iter().nth(at).flatten();
        if is_heard {
            if let Some(Asked::Source(candidate)) = search.asked.get(at) {
                sleep(search.rest(candidate)).await;
            }
            return Some((source, answer?.1));
        }
        search.narrow(&source.name());
        let fault = unheard(source.as_ref(), answer.map(|(answer, _)| answer));
        for probe in source.probes().iter().filter(|probe| probe.rank == Importance::Vital) {
            let (source, probe, rank, fault) = (source.name(), probe.name.clone(), probe.rank, fault.clone());
            inputs.send(Input::Unanswered { source, probe, rank, fault }).await.ok()?;
        }
        sleep_until(began + source.interval()).await;
    }
}

fn source_of(search: &Search, at: usize) -> Option<Arc<dyn Source>> {
    match search.asked.get(at)? {
        Asked::Source(candidate) => Some(Arc::clone(&candidate.source)),
        Asked::Platform(..) => None,
    }
}

/// Why a source that is known to be the right one is not heard.
fn unheard(source: &dyn Source, answer: Option<Result<HttpResponse, HttpFailure>>) -> Fault {
    match answer {
        Some(Ok(response)) => Fault {
            word: "unexpected-status".to_owned(),
            sentence: format!("what answers with {} is not the metadata service of {}", response.status, source.name()),
        },
        Some(Err(failure)) => source.diagnose(&Failure::Http(failure)),
        None => source.diagnose(&Failure::Http(HttpFailure::NoAnswer(RequestFailure::TimedOut))),
    }
}

/// An answer, and the client that it came by.
type Heard = (Result<HttpResponse, HttpFailure>, Client);

/// Asks all at once, until this limit.
async fn ask(search: &Search, limit: Duration) -> (Conclusion, Vec<Option<Heard>>) {
    let until = Instant::now() + limit;
    let mut asked: FuturesUnordered<_> =
        search.asked.iter().enumerate().map(|(at, asked)| ask_one(at, asked)).collect();
    let mut heard: Vec<Option<Heard>> = search.asked.iter().map(|_| None).collect();
    loop {
        let answers: Vec<_> = heard.iter().map(|heard| heard.as_ref().map(|(answer, _)| answer.clone())).collect();
        let conclusion = search.conclude(&answers);
        if conclusion.is_heard && search.is_settled_by_first() {
            return (conclusion, heard);
        }
        tokio::select! {
            answer = asked.next() => match answer {
                Some((at, answer)) => heard[at] = answer,
                None => return (conclusion, heard),
            },
            () = sleep_until(until) => return (conclusion, heard),
        }
    }
}

async fn ask_one(at: usize, asked: &Asked) -> (usize, Option<Heard>) {
    let client = match asked {
        Asked::Source(candidate) => Client::of(candidate.source.as_ref()),
        Asked::Platform(_, _, endpoint) => MetadataClient::new(endpoint.clone(), None, jiff::Timestamp::now)
            .map(|client| Client::Http(Box::new(client))),
    };
    // One whose address HTTP cannot say is never there.
    let Ok(client) = client else { return (at, None) };
    let answer = match client.ask(&(asked.handshake().request)(), DEFAULT_TIME_LIMIT).await {
        Ok(TimedResponse { response, .. }) => response.http().cloned().map_err(|_| ()),
        Err(Failure::Http(failure)) => return (at, Some((Err(failure), client))),
        Err(Failure::Other(_)) => Err(()),
    };
    (at, answer.ok().map(|answer| (Ok(answer), client)))
}
