//! A service of the operator's that answers over HTTP or HTTPS: an event relay, an API of a cluster or of a private cloud.
//! One question, asked again and again; its status, or a value in its JSON, says whether there is a notice.
//!
//! What needs more than that is a program's: `kind = "command"`.

mod read;

use super::notice_json::{NoticeDefaults, interruption};
use super::transports::web::WebService;
use super::transports::{Failure, Response, Service};
use super::{
    Environment, Memory, Probe, Question, Reading, Source, SourceBuildError, SourceConfig, SourceRow, settings,
};
use crate::engine::{Fault, NoticeAction, NoticeKind, ProbeName, SourceName};
use crate::transport::certificates::CertificateFiles;
use crate::transport::{address, is_loopback, told};
use crate::view::{Machine, Span};
use hyper::header::AUTHORIZATION;
use read::{Meaning, Scalar, pointer};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Its row in the table.
pub(super) const ROW: SourceRow = SourceRow {
    kind: "http",
    summary: "a service that answers over HTTP or HTTPS",
    poll_interval: Some(Duration::from_secs(5)),
    build: |SourceConfig { keys, poll_interval, environment }| {
        Ok(Arc::new(HttpSource::new(settings(keys)?, poll_interval, environment)?))
    },
    schema: || schemars::schema_for!(HttpSettings),
    paths: &["token-file", "ca-file"],
    aliases: None,
    detection: None,
};

/// The keys of a `[[source]]` of kind `http` that are its own.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HttpSettings {
    /// What the source is called, where there are several of its kind; its kind where it is left out.
    pub name: Option<String>,
    /// What is asked, by GET: `http://` or `https://`. Nothing but scheme, host and port of it is ever shown.
    #[schemars(length(min = 1))]
    pub url: Option<String>,
    /// The variable of the environment that holds what is asked, where it is set. Programs do not inherit it.
    pub url_variable: Option<String>,
    /// Sent along. Values are never shown.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// A file with a token that is sent along as `Authorization: Bearer`. It is read for each question anew.
    pub token_file: Option<PathBuf>,
    /// A file with the certificates of the authority that the service is judged by, in PEM form; the machine's authorities
    /// where none is named.
    pub ca_file: Option<PathBuf>,
    /// The statuses of an answer that is a notice, or that `pointer` is looked for in.
    #[serde(default = "ok")]
    pub notice_status: Vec<u16>,
    /// The statuses of an answer that is no notice. Any other status is an error.
    #[serde(default)]
    pub nothing_status: Vec<u16>,
    /// The place in the JSON of the answer (RFC 6901) where something stands while there is a notice.
    pub pointer: Option<String>,
    /// What has to stand there; anything but null where it is left out.
    pub equals: Option<Scalar>,
    /// The place in the JSON of the answer where the time stands at which the machine goes: a text as RFC 3339 and RFC 1123
    /// have it, or seconds or milliseconds since 1970.
    pub deadline: Option<String>,
    /// What a notice announces.
    #[serde(default = "interruption")]
    pub announces: NoticeKind,
    /// What will be done with the machine.
    pub action: Option<NoticeAction>,
    /// How long after a notice appeared the machine goes, where no time is read. Without it, what `[assume]` has.
    pub window: Option<Span>,
}

fn ok() -> Vec<u16> {
    vec![200]
}

/// How long a whole answer may take: such a service may be far away.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// What its only probe is called.
const ANSWER: &str = "answer";

#[derive(Clone, Debug)]
struct HttpSource {
    service: WebService,
    url_variable: Option<String>,
    meaning: Meaning,
    probes: [Probe; 1],
}

impl HttpSource {
    fn new(
        settings: HttpSettings,
        poll_interval: Duration,
        environment: Environment<'_>,
    ) -> Result<Self, SourceBuildError> {
        let HttpSettings { name, url, url_variable, headers, token_file, ca_file, announces, window, .. } = settings;
        let wrong = |key: &str, message: &str| SourceBuildError { key: key.to_owned(), message: message.to_owned() };
        let of_variable = url_variable.as_deref().and_then(environment);
        let url = match (of_variable, url) {
            (Some(url), _) => address(url.trim())
                .map_err(|message| wrong("url-variable", &format!("names a variable that {message}")))?,
            (None, Some(url)) => address(&url).map_err(|message| wrong("url", message))?,
            (None, None) if url_variable.is_some() => {
                return Err(wrong("url-variable", "names a variable that is not set"));
            }
            (None, None) => return Err(wrong("", "says nowhere whom it asks: give it a url or a url-variable")),
        };
        let headers = told(&headers)?;
        if token_file.as_ref().is_some_and(|path| !path.is_absolute()) {
            return Err(wrong("token-file", "is no absolute path of a file"));
        }
        if token_file.is_some() && headers.contains_key(AUTHORIZATION) {
            return Err(wrong("token-file", "is sent as the header Authorization, which stands in `headers` too"));
        }
        let certificates = CertificateFiles::new(ca_file.as_deref(), None, None)?;
        for (key, place) in [("pointer", &settings.pointer), ("deadline", &settings.deadline)] {
            pointer(place.as_deref().unwrap_or_default()).map_err(|message| wrong(key, message))?;
        }
        if settings.equals.is_some() && settings.pointer.is_none() {
            return Err(wrong("equals", "needs `pointer`, which says what has to equal it"));
        }
        if settings.pointer.is_none() && settings.nothing_status.is_empty() {
            let either = "how an answer without a notice looks: name its status in `nothing-status`, or what stands in one \
                          with a notice in `pointer`";
            return Err(wrong("", either));
        }
        let (notice_status, nothing_status) = (settings.notice_status, settings.nothing_status);
        for (key, statuses) in [("notice-status", &notice_status), ("nothing-status", &nothing_status)] {
            // A redirect is not followed, and so never an answer.
            if let Some(status) = statuses.iter().find(|status| !matches!(status, 200..=299 | 400..=599)) {
                return Err(wrong(key, &format!("{status} is no status of an answer")));
            }
        }
        if let Some(both) = nothing_status.iter().find(|status| notice_status.contains(status)) {
            return Err(wrong("nothing-status", &format!("{both} stands in `notice-status` too")));
        }
        let source = SourceName::new(name.as_deref().unwrap_or(ROW.kind));
        let service = WebService { url, headers, token_file, certificates };
        let probe = Probe::vital(ANSWER, Question::Content, poll_interval).telling(announces);
        Ok(Self {
            meaning: Meaning {
                defaults: NoticeDefaults { source, announces, window: window.map(|Span(window)| window) },
                service: service.shown(),
                action: settings.action.unwrap_or(NoticeAction::Unstated),
                notice_status,
                nothing_status,
                pointer: settings.pointer,
                equals: settings.equals,
                deadline: settings.deadline,
            },
            service,
            url_variable,
            probes: [Probe { time_limit: TIME_LIMIT, ..probe }],
        })
    }
}

impl Source for HttpSource {
    fn name(&self) -> SourceName {
        self.meaning.defaults.source.clone()
    }

    fn kind(&self) -> SourceName {
        SourceName::new(ROW.kind)
    }

    fn service(&self) -> Service {
        Service::Web(self.service.clone())
    }

    fn probes(&self) -> &[Probe] {
        &self.probes
    }

    fn read(&self, _: &ProbeName, response: &Response, _: &Machine, _: &Memory) -> Result<Reading, Fault> {
        self.meaning.read(response.http()?)
    }

    fn diagnose(&self, failure: &Failure) -> Fault {
        let sentence = match failure {
            Failure::Other(sentence) => sentence.clone(),
            Failure::Http(_) => format!("{} is no metadata service", self.service.shown()),
        };
        Fault { word: "silent".to_owned(), sentence }
    }

    fn usual_window(&self) -> Option<Duration> {
        self.meaning.defaults.usual_window()
    }

    fn secret_variable(&self) -> Option<&str> {
        self.url_variable.as_deref()
    }

    fn advice(&self) -> Vec<String> {
        let WebService { url, headers, token_file, .. } = &self.service;
        let is_open = url.scheme() == "http" && !is_loopback(url) && (token_file.is_some() || !headers.is_empty());
        let sentence =
            "what it sends in `headers` and from `token-file` can be read on the way: use https://".to_owned();
        is_open.then_some(sentence).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
    use super::*;

    fn built(keys: &str) -> Result<Arc<dyn Source>, SourceBuildError> {
        let poll_interval = Duration::from_secs(5);
        let environment = &|name: &str| match name {
            "NODE_URL" => Some("https://h/hunter2\n".to_owned()),
            "ODD_URL" => Some("hunter2".to_owned()),
            _ => None,
        };
        (ROW.build)(SourceConfig { keys: keys.parse().unwrap(), poll_interval, environment })
    }

    #[test]
    fn a_wrong_key_is_named() {
        for (keys, key) in [
            ("url = 'nowhere'\npointer = '/a'", "url"),
            ("url = 'http://user:hunter2@h/'\npointer = '/a'", "url"),
            ("url = 'http://h/'", ""),
            ("pointer = '/a'", ""),
            ("url-variable = 'NOT_SET'\npointer = '/a'", "url-variable"),
            ("url = 'http://h/'\nurl-variable = 'ODD_URL'\npointer = '/a'", "url-variable"),
            ("url = 'http://h/'\nequals = 'x'\nnothing-status = [404]", "equals"),
            ("url = 'http://h/'\npointer = 'a'", "pointer"),
            ("url = 'http://h/'\npointer = '/a~2'", "pointer"),
            ("url = 'http://h/'\npointer = '/a'\ndeadline = 'b'", "deadline"),
            ("url = 'http://h/'\npointer = '/a'\nequals = ['x']", "equals"),
            ("url = 'http://h/'\nnothing-status = [302]", "nothing-status"),
            ("url = 'http://h/'\nnothing-status = [200]", "nothing-status"),
            ("url = 'http://h/'\npointer = '/a'\nnotice-status = [99]", "notice-status"),
            ("url = 'http://h/'\npointer = '/a'\nheaders = { 'a b' = 'hunter2' }", "headers.a b"),
            ("url = 'http://h/'\npointer = '/a'\ntoken-file = 'token'", "token-file"),
            ("url = 'https://h/'\npointer = '/a'\nca-file = 'ca.pem'", "ca-file"),
            (
                "url = 'http://h/'\npointer = '/a'\ntoken-file = '/t'\nheaders = { authorization = 'hunter2' }",
                "token-file",
            ),
        ] {
            let error = built(keys).unwrap_err();
            assert_eq!(error.key, key, "{keys}");
            assert!(!error.message.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn nothing_secret_is_in_its_debug_output() {
        let named = "url = 'https://h/hunter2?key=hunter2'\nheaders = { x-key = 'hunter2' }\npointer = '/a'";
        let (named, variable) = (built(named).unwrap(), built("url-variable = 'NODE_URL'\npointer = '/a'").unwrap());
        for source in [&named, &variable] {
            let shown = format!("{source:?} {:?}", source.service());
            assert!(shown.contains("https://h") && !shown.contains("hunter2"), "{shown}");
        }
        assert_eq!((named.secret_variable(), variable.secret_variable()), (None, Some("NODE_URL")));
    }

    #[test]
    fn secrets_that_can_be_read_on_the_way_are_warned_of() {
        let advice =
            |url: &str, more: &str| built(&format!("url = '{url}'\npointer = '/a'\n{more}")).unwrap().advice().len();
        assert_eq!(advice("http://h/", "token-file = '/t'"), 1);
        assert_eq!(advice("http://h/", "headers = { a = 'b' }"), 1);
        assert_eq!(advice("http://h/", "") + advice("https://h/", "token-file = '/t'"), 0);
        assert_eq!(advice("http://127.0.0.1:8001/", "token-file = '/t'"), 0);
    }

    #[test]
    fn what_the_operator_says_is_what_the_engine_is_told() {
        let source = built("name = 'relay'\nurl = 'http://h/'\npointer = '/a'\nwindow = '2m'").unwrap();
        let asked = source.asked().unwrap();
        assert_eq!((source.name().as_str(), source.kind().as_str()), ("relay", "http"));
        assert_eq!((asked.blind_after.as_secs(), asked.usual_window), (25, Some(Duration::from_secs(120))));
    }
}
