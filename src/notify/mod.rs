//! What people are told: messages to webhooks, beside everything else.
//!
//! A notification is no step. It takes no time from the plan and nothing waits for it: it goes out while steps run, is tried
//! again off the critical path, and has its last try in the reserve, after the last moment that steps may use. The first
//! one says by when the last one must have come, so that its absence is an alarm.
//!
//! Which messages are owed follows from the view of an episode, and they render it; a [`Sink`] is one receiver, as
//! configured; the [`Notifier`] keeps a queue and a worker for each. Nothing here decides anything, and nothing but the
//! receivers and one small file each in the state directory is touched.

mod body;
#[cfg(test)]
mod fixture;
mod message;
mod nth;
mod queue;
mod webhook;
mod words;
mod worker;

pub use body::Preset;
pub use message::Occasion;
pub use queue::ReceiverState;
pub use worker::PlanEnd;

use crate::actions::{BuildError, PathKey, read_keys};
use crate::engine::NoticeKind;
use crate::transport::{address, told};
use crate::view::{Context, EpisodeView, Finding};
use body::Body;
use futures_util::FutureExt;
use jiff::Timestamp;
use message::Subscription;
use queue::DeliveryQueue;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;
use webhook::{Deliver, Webhook, WebhookUrl};
use worker::{DeliveryLimits, DeliveryWorker};

/// The one kind of message that there is.
pub const KIND: &str = "webhook";

/// Which keys of a `[[notification]]` hold paths.
pub const PATHS: &[PathKey] = &[PathKey::File("url-file")];

/// The most receivers.
pub const MOST: usize = 16;

/// The keys of a `[[notification]]` that are a webhook's own.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// Where it goes.
    pub url: Option<String>,
    /// The file that holds where it goes.
    pub url_file: Option<PathBuf>,
    /// The variable that holds where it goes.
    pub url_variable: Option<String>,
    /// What is sent.
    #[serde(default)]
    pub preset: Preset,
    /// What is sent instead: a text with fields.
    pub body: Option<String>,
    /// Sent along.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("preset", &self.preset).finish_non_exhaustive()
    }
}

/// One receiver, as configured.
#[derive(Clone, Debug)]
pub struct Sink {
    name: String,
    subscription: Subscription,
    webhook: Arc<Webhook>,
}

impl Sink {
    /// Builds it from its own keys. `variable` knows our environment.
    ///
    /// # Errors
    /// Which key cannot be used, and why.
    pub fn build(
        name: &str,
        send: BTreeSet<Occasion>,
        on: BTreeSet<NoticeKind>,
        keys: toml::Table,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, BuildError> {
        let settings: Settings = read_keys(keys)?;
        let wrong = |key: &str, message: String| BuildError { key: key.to_owned(), message };
        let address = match (settings.url, settings.url_file, settings.url_variable) {
            (Some(url), None, None) => {
                let url = address(&url).map_err(|why| wrong("url", why.to_owned()))?;
                WebhookUrl::Here(Box::new(url))
            }
            (None, Some(file), None) if file.is_absolute() => WebhookUrl::File(file),
            (None, Some(_), None) => return Err(wrong("url-file", "is not absolute; write the whole path".to_owned())),
            (None, None, Some(name)) => {
                let value = variable(&name);
                WebhookUrl::Variable(name, value)
            }
            (None, None, None) => {
                let message = "says nowhere where it goes: give it a url, a url-file or a url-variable";
                return Err(wrong("", message.to_owned()));
            }
            _ => return Err(wrong("", "may have one of url, url-file and url-variable".to_owned())),
        };
        let headers = told(&settings.headers)?;
        let body = Body::of(settings.preset, settings.body.as_deref()).map_err(|message| wrong("body", message))?;
        let webhook = Arc::new(Webhook::new(address, headers, body));
        Ok(Self { name: name.to_owned(), subscription: Subscription { send, on }, webhook })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The variable of our environment that holds where it is, which is as good as a password.
    pub fn secret_variable(&self) -> Option<&str> {
        self.webhook.variable()
    }

    /// Where it is, as far as that may be shown, in a few words.
    pub fn describe(&self) -> String {
        format!("posts to {}", self.webhook.shown())
    }

    /// What it is owed as this episode stands: each message as it would be sent.
    pub fn bodies(&self, episode: &EpisodeView, context: &Context, at: Timestamp) -> Vec<String> {
        let messages = self.subscription.messages(&Arc::new(episode.clone()), &Arc::new(context.clone()), at);
        messages.iter().map(|message| self.webhook.body(message)).collect()
    }

    /// Looks whether it would work here, without sending anything.
    pub async fn check(&self) -> Vec<Finding> {
        self.webhook.look().await
    }
}

/// Every receiver's queue, and the worker that empties it.
#[derive(Debug)]
pub struct Notifier {
    receivers: Vec<(Sink, Arc<DeliveryQueue>)>,
    limits: watch::Sender<DeliveryLimits>,
    context: watch::Sender<Arc<Context>>,
}

impl Notifier {
    /// Starts a worker for each of these receivers; within a runtime. `facts_may_come` says whether more may become known of
    /// the machine, so that a message waits for it a moment.
    pub fn start(
        sinks: &[Sink],
        state_directory: Option<&Path>,
        context: &Context,
        facts_may_come: bool,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let (limits, _) = watch::channel(DeliveryLimits::default());
        let (context, _) = watch::channel(Arc::new(context.clone()));
        let receivers = sinks.iter().map(|sink| {
            let queue = Arc::new(DeliveryQueue::default());
            let worker = DeliveryWorker {
                name: sink.name.clone(),
                queue: Arc::clone(&queue),
                receiver: Arc::clone(&sink.webhook),
                limits: limits.subscribe(),
                context: context.subscribe(),
                facts_may_come,
                state_directory: state_directory.map(Path::to_owned),
            };
            tasks.spawn(worker.run());
            (sink.clone(), queue)
        });
        Self { receivers: receivers.collect(), limits, context }
    }

    /// Whether there is nobody to tell.
    pub fn is_empty(&self) -> bool {
        self.receivers.is_empty()
    }

    /// Queues what is owed as this episode stands, unless it was queued before; workers send it. It never waits.
    pub fn notify(&self, episode: &EpisodeView, at: Timestamp) {
        let (episode, context) = (Arc::new(episode.clone()), Arc::clone(&self.context.borrow()));
        for (sink, queue) in &self.receivers {
            for message in sink.subscription.messages(&episode, &context, at) {
                queue.push(&sink.name, message);
            }
        }
    }

    /// Takes in what is known of the machine; messages that wait are sent with it.
    pub fn learn(&self, now: &Context) {
        self.context.send_if_modified(|context| {
            let is_news = context.machine != now.machine || context.names != now.names;
            if is_news {
                *context = Arc::new(now.clone());
            }
            is_news
        });
    }

    /// Takes in by when messages must have gone; nothing where no episode is open.
    pub fn plan_until(&self, plan: Option<PlanEnd>) {
        self.limits.send_if_modified(|limits| std::mem::replace(&mut limits.plan, plan) != plan);
    }

    /// Tries what waits once more, as we exit at this moment at the latest.
    pub fn exit_by(&self, until: tokio::time::Instant) {
        self.limits.send_modify(|limits| limits.exit = Some(until));
    }

    /// Whether nothing waits, or nothing more can be done for what does.
    pub fn is_settled(&self) -> bool {
        self.receivers.iter().all(|(_, queue)| queue.settled().now_or_never().is_some())
    }

    /// How it goes with each receiver.
    pub fn receivers(&self) -> Vec<ReceiverState> {
        self.receivers.iter().map(|(sink, queue)| queue.state(&sink.name, sink.webhook.shown())).collect()
    }
}

/// Holds a body against the one that is written down.
#[cfg(test)]
fn golden(name: &str, body: &serde_json::Value) {
    let text = serde_json::to_string_pretty(body).unwrap_or_default();
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, text);
    });
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn build(keys: &str) -> Result<Sink, BuildError> {
        let variable = |name: &str| (name == "URL").then(|| "https://hooks.example/hunter2".to_owned());
        let all = (Occasion::ALL.into(), NoticeKind::ALL.into());
        Sink::build("ops", all.0, all.1, toml::from_str(keys).unwrap(), &variable)
    }

    #[test]
    fn what_cannot_be_used_is_named_and_nothing_secret_with_it() {
        let url = "url = 'https://hooks.example/hunter2'\n";
        for (keys, key, words) in [
            ("", "", "says nowhere"),
            (&format!("{url}url-variable = 'URL'") as &str, "", "one of"),
            ("url = 'hunter2'", "url", "is not a URL"),
            ("url = 'https://u:hunter2@h/'", "url", "user or a password"),
            ("url-file = 'hunter2'", "url-file", "whole path"),
            (&format!("{url}preset = 'slakc'"), "preset", "slack"),
            (&format!("{url}body = '{{\"a\": \"{{{{txt}}}}\"}}'"), "body", "did you mean {{ text }}?"),
            (&format!("{url}preset = 'nth'\nbody = '{{{{ .EventId }}}}'"), "body", "did you mean {{ EventID }}?"),
            (&format!("{url}headers = {{ 'Host' = 'hunter2' }}"), "headers.Host", "by the watchdog itself"),
            (&format!("{url}retry = 3"), "", "unknown field"),
        ] {
            let BuildError { key: wrong, message } = build(keys).unwrap_err();
            assert!(message.contains(words) && (wrong == key || key.is_empty()), "{keys}: {wrong}: {message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn nothing_secret_is_in_its_debug_output() {
        for keys in ["url = 'https://hooks.example/hunter2'\nheaders = { a = 'hunter2' }", "url-variable = 'URL'"] {
            let sink = build(keys).unwrap();
            let shown = format!("{sink:?} {}", sink.describe());
            assert!(shown.contains("https://hooks.example") && !shown.contains("hunter2"), "{shown}");
        }
        let shown = format!("{:?}", build("url-variable = 'NOT_SET'").unwrap());
        assert!(shown.contains("the variable NOT_SET"), "{shown}");
    }
}
