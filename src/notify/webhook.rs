//! One receiver's address, and how a message gets there: one POST over a connection of its own, without proxy and
//! redirects, judged by its status.
//!
//! All of the address but scheme, host and port may be secret, and is never shown: not in a log, not in `/status`, not in
//! what the other side said where that repeats it.

use super::body::Body;
use super::message::Message;
use crate::actions::Task;
use crate::transport::exchange::{ExchangeError, HttpReply, TlsSettings, agree, connect, exchange};
use crate::transport::{address, is_loopback};
use crate::view::error_text;
use crate::view::{Finding, FindingLevel};
use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::Url;
use std::fmt;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The header that names a message: the same over all tries, so that who gets it twice can tell.
const NOTIFICATION_ID: HeaderName = HeaderName::from_static("notification-id");

/// The most bytes of a file that holds an address.
const LARGEST: u64 = 4 * 1024;

/// How long reading that file may take.
const READING: Duration = Duration::from_secs(1);

/// The most characters of an answer that are shown.
const WORDS: usize = 80;

/// The subject of findings; who asks knows the receiver's name, and puts it there.
const SUBJECT: &str = "webhook";

/// Where messages go.
pub(super) enum WebhookUrl {
    /// It stands in the configuration.
    Here(Box<Url>),
    /// It stands in this file, which is read anew for each notification: what rotates secrets replaces it.
    File(PathBuf),
    /// It stands in this variable of ours, which was read when we began.
    Variable(String, Option<String>),
}

/// What became of a try.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum DeliveryResult {
    /// It was taken; with a remark where that is odd.
    Accepted(Option<String>),
    /// It will not be taken, for this reason.
    Rejected(String),
    /// It was not taken, or may not have been; another try can help.
    Failed {
        /// Why.
        why: String,
        /// How long the receiver asks us to wait before that.
        retry_after: Option<Duration>,
    },
}

/// How a message gets to its receiver.
pub(super) trait Deliver: Send + Sync + 'static {
    /// One try. It has no limit of its own.
    fn deliver<'a>(&'a self, message: &'a Message) -> Task<'a, DeliveryResult>;

    /// Makes ready what the first message would have to wait for; the error says why it will not arrive as things are.
    fn make_ready(&self) -> Task<'_, Result<(), String>>;

    /// Where it goes, as far as that may be shown.
    fn shown(&self) -> String;
}

/// A webhook.
pub(super) struct Webhook {
    address: WebhookUrl,
    headers: HeaderMap,
    body: Body,
    roots: TlsSettings,
    /// The address that was last read, where it is read anew each time.
    read: Mutex<Option<Url>>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "POST to {}", self.shown())
    }
}

impl Webhook {
    pub(super) fn new(address: WebhookUrl, mut headers: HeaderMap, body: Body) -> Self {
        let kind = if body.is_json() { "application/json" } else { "text/plain; charset=utf-8" };
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(kind));
        Self { address, headers, body, roots: TlsSettings::default(), read: Mutex::default() }
    }

    /// What is sent as this message.
    pub(super) fn body(&self, message: &Message) -> String {
        self.body.of_message(message)
    }

    /// The variable that holds the address, where one does.
    pub(super) fn variable(&self) -> Option<&str> {
        match &self.address {
            WebhookUrl::Variable(name, _) => Some(name),
            WebhookUrl::Here(_) | WebhookUrl::File(_) => None,
        }
    }

    /// The address as it is now; the error says what is wrong with it, and not what it is.
    async fn url(&self) -> Result<Url, String> {
        match &self.address {
            WebhookUrl::Here(url) => Ok(url.as_ref().clone()),
            WebhookUrl::Variable(name, None) => Err(format!("the variable {name}, which holds its URL, is not set")),
            WebhookUrl::Variable(name, Some(text)) => {
                address(text.trim()).map_err(|why| format!("the URL in the variable {name} {why}"))
            }
            WebhookUrl::File(path) => {
                let read = read(path).await;
                let mut kept = self.read.lock().unwrap_or_else(PoisonError::into_inner);
                match read {
                    Ok(url) => {
                        *kept = Some(url.clone());
                        Ok(url)
                    }
                    // A disk that fails now must not keep a message back that we know the way of.
                    Err(why) => kept.clone().ok_or(why),
                }
            }
        }
    }

    async fn send(&self, message: &Message) -> DeliveryResult {
        let url = match self.url().await {
            Ok(url) => url,
            Err(why) => return DeliveryResult::Failed { why, retry_after: None },
        };
        let mut headers = self.headers.clone();
        if let Ok(id) = HeaderValue::from_str(&message.owed.id) {
            headers.insert(NOTIFICATION_ID, id);
        }
        let body = self.body(message);
        let answer = match self.roots.config_for(&url).await {
            Ok(tls) => exchange((&Method::POST, &url), &headers, body, tls, || {}).await,
            Err(trouble) => Err(trouble),
        };
        let shown = url.origin().ascii_serialization();
        match answer {
            Ok(answer) => self.judged(&answer, &url, &shown),
            Err(trouble) if trouble.may_pass() => {
                DeliveryResult::Failed { why: trouble.at(&shown).to_string(), retry_after: None }
            }
            Err(trouble) => DeliveryResult::Rejected(trouble.at(&shown).to_string()),
        }
    }

    fn judged(&self, answer: &HttpReply, url: &Url, shown: &str) -> DeliveryResult {
        let status = answer.status;
        let why = match status {
            300..=399 => " (a redirect, which is not followed: name the address itself)",
            401 | 403 => " (it wants other credentials: see `headers` and the secret part of the URL)",
            404 | 410 => " (nothing is there: was the webhook removed?)",
            405 => " (it takes no POST: is this the webhook?)",
            413 => " (the notification is too large for it)",
            429 => " (it is asked too often)",
            _ => "",
        };
        let said = format!("{shown} answered {status}{why}{}", self.words(answer, url));
        match status {
            200..=299 if is_page(&answer.body) => DeliveryResult::Accepted(Some(format!(
                "{shown} answered {status} with a web page: is that the webhook, or the login of a proxy?"
            ))),
            200..=299 => DeliveryResult::Accepted(None),
            408 | 425 | 429 | 500..=599 => DeliveryResult::Failed { why: said, retry_after: answer.retry_after },
            _ => DeliveryResult::Rejected(said),
        }
    }

    /// A short answer in its own words; nothing of one that repeats what is secret.
    fn words(&self, answer: &HttpReply, url: &Url) -> String {
        if is_page(&answer.body) {
            return String::new();
        }
        let in_url = url.as_str().split(['/', '?', '&', '=', '#', '.']);
        let words = answer.words(WORDS, &self.headers, in_url);
        if words.is_empty() { words } else { format!(": {words}") }
    }

    /// Looks whether it would work, without sending anything.
    pub(super) async fn look(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut say = |weight, sentence: String| found.push(Finding::new(weight, SUBJECT, sentence));
        let url = match self.url().await {
            Ok(url) => url,
            Err(why) => {
                say(FindingLevel::Error, why);
                return found;
            }
        };
        if let WebhookUrl::File(path) = &self.address
            && anybody_reads(path).await
        {
            let sentence = format!("{} can be read by everybody here; chmod 600 would keep it secret", path.display());
            say(FindingLevel::Warning, sentence);
        }
        let shown = url.origin().ascii_serialization();
        match self.reach(&url).await {
            Ok(()) => say(FindingLevel::Good, format!("{shown} takes connections; nothing was sent")),
            Err(trouble) => say(FindingLevel::Error, trouble.at(&shown).to_string()),
        }
        if url.scheme() == "http" && !is_loopback(&url) {
            let sentence = "what is sent, and the secret part of its URL, goes over the network in clear text (https:// \
                            would hide it)";
            say(FindingLevel::Warning, format!("{shown}: {sentence}"));
        }
        found
    }

    async fn reach(&self, url: &Url) -> Result<(), ExchangeError> {
        let stream = connect(url).await?;
        match self.roots.config_for(url).await? {
            Some(tls) => agree(url, stream, tls).await.map(drop),
            None => Ok(()),
        }
    }
}

impl Deliver for Webhook {
    fn deliver<'a>(&'a self, message: &'a Message) -> Task<'a, DeliveryResult> {
        Box::pin(self.send(message))
    }

    fn make_ready(&self) -> Task<'_, Result<(), String>> {
        Box::pin(async {
            let url = self.url().await?;
            self.roots.config_for(&url).await.map(drop).map_err(|trouble| trouble.at(&self.shown()).to_string())
        })
    }

    fn shown(&self) -> String {
        let read = match &self.address {
            WebhookUrl::Here(url) => return url.origin().ascii_serialization(),
            WebhookUrl::Variable(_, text) => text.as_ref().and_then(|text| address(text.trim()).ok()),
            WebhookUrl::File(_) => self.read.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        match (read, &self.address) {
            (Some(url), _) => url.origin().ascii_serialization(),
            (None, WebhookUrl::File(path)) => format!("the URL in {}", path.display()),
            (None, WebhookUrl::Variable(name, _)) => format!("the URL in the variable {name}"),
            (None, WebhookUrl::Here(url)) => url.origin().ascii_serialization(),
        }
    }
}

/// Whether an answer is a web page. Its type does not tell: Slack sends its `ok` as HTML.
fn is_page(body: &[u8]) -> bool {
    let begin: Vec<u8> = body
        .iter()
        .copied()
        .skip_while(u8::is_ascii_whitespace)
        .take(14)
        .map(|byte| byte.to_ascii_lowercase())
        .collect();
    begin.starts_with(b"<!doctype html") || begin.starts_with(b"<html")
}

/// Whether everybody on this machine may read a file.
async fn anybody_reads(path: &Path) -> bool {
    let place = path.to_owned();
    let looking = tokio::task::spawn_blocking(move || std::fs::metadata(place).map(|it| it.permissions().mode()));
    matches!(tokio::time::timeout(READING, looking).await, Ok(Ok(Ok(mode))) if mode & 0o004 != 0)
}

async fn read(path: &Path) -> Result<Url, String> {
    let place = path.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        std::fs::File::open(place).and_then(|file| file.take(LARGEST).read_to_string(&mut text)).map(|_| text)
    });
    let shown = path.display();
    match tokio::time::timeout(READING, reading).await {
        Ok(Ok(Ok(text))) => address(text.trim()).map_err(|why| format!("the URL in {shown} {why}")),
        Ok(Ok(Err(error))) => Err(format!("{shown}, which holds its URL, cannot be read: {}", error_text(&error))),
        Ok(Err(_)) | Err(_) => Err(format!("{shown}, which holds its URL, could not be read in time")),
    }
}
