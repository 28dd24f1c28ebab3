//! Asks a service of the operator's by HTTP or HTTPS: one address, over a connection of its own each time.
//!
//! It follows no redirect, uses no proxy, keeps no cookie, reads at most 64 KiB, and waits no longer for all of it than the
//! probe allows. Only scheme, host and port are ever shown: the rest of an address may be as good as a password.

use super::file::{FileClient, WatchedFile};
use super::http::{HttpResponse, RequestFailure, skew, whole};
use super::{Response, TimedResponse};
use crate::transport::certificates::CertificateFiles;
use crate::transport::exchange::{ExchangeError, TlsSettings, send};
use crate::view::Spoken;
use hyper::Method;
use hyper::header::{AUTHORIZATION, DATE, HeaderMap, HeaderValue};
use jiff::Timestamp;
use reqwest::Url;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// A service, and what it wants to be asked with.
#[derive(Clone, PartialEq, Eq)]
pub struct WebService {
    /// What is asked, with a GET.
    pub(crate) url: Url,
    /// What is sent along.
    pub(crate) headers: HeaderMap,
    /// The file that holds the token which is sent along.
    pub(crate) token_file: Option<PathBuf>,
    /// What the service is judged by.
    pub(crate) certificates: CertificateFiles,
}

impl WebService {
    /// Whom we ask, as far as that may be shown.
    pub(crate) fn shown(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

impl fmt::Debug for WebService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WebService").field(&self.shown()).finish()
    }
}

/// Asks one service.
#[derive(Debug)]
pub struct WebClient {
    service: WebService,
    tls: TlsSettings,
    token: Option<FileClient>,
}

impl WebClient {
    /// A client for this service; nothing is asked yet.
    pub(super) fn new(service: WebService) -> Self {
        let tls = TlsSettings::of(service.certificates.clone());
        let token = service.token_file.clone().map(|path| FileClient::new(WatchedFile { path, owner: None }));
        Self { service, tls, token }
    }

    /// Asks, and waits so long for the whole answer.
    ///
    /// # Errors
    /// A sentence that says why there is none. An answer of any status is an answer.
    pub(super) async fn ask(&self, time_limit: Duration) -> Result<TimedResponse, String> {
        let answer = timeout(time_limit, self.exchange(time_limit)).await;
        let late = || format!("{} gave no whole answer within {}", self.service.shown(), Spoken(time_limit));
        answer.unwrap_or_else(|_| Err(late()))
    }

    async fn exchange(&self, time_limit: Duration) -> Result<TimedResponse, String> {
        let WebService { url, headers, .. } = &self.service;
        let shown = self.service.shown();
        let trouble = |error: ExchangeError| error.at(&shown).to_string();
        let mut headers = headers.clone();
        if let Some(token) = &self.token {
            headers.insert(AUTHORIZATION, bearer(&token.content(time_limit).await?)?);
        }
        let tls = self.tls.config_for(url).await.map_err(trouble)?;
        let mut began = (Instant::now(), Timestamp::now());
        let sending = || began = (Instant::now(), Timestamp::now());
        let answer = send((&Method::GET, url), &headers, String::new(), tls, sending).await;
        let (_connection, mut response) = answer.map_err(trouble)?;
        let date = response.headers().get(DATE);
        let skew = date.and_then(|date| skew(date, began.1, began.0.elapsed()));
        let (status, headers) = (response.status().as_u16(), std::mem::take(response.headers_mut()));
        let body = whole(response).await.map_err(|failure| match failure {
            RequestFailure::TooLarge => format!("{shown} answers with more than 64 KiB, which are not read"),
            RequestFailure::Broken(words) => format!("{shown} broke off in its answer: {words}"),
            RequestFailure::TimedOut
            | RequestFailure::Refused
            | RequestFailure::Unreachable(_)
            | RequestFailure::Endless => format!("{shown} gave no whole answer"),
        })?;
        Ok(TimedResponse { response: Response::Http(HttpResponse { status, headers, body }), skew })
    }
}

/// The header that shows this token. Nothing of the token is in the sentence.
fn bearer(token: &[u8]) -> Result<HeaderValue, String> {
    let wrong = || "`token-file` holds no token: one line of visible ASCII".to_owned();
    let token = token.trim_ascii();
    if token.is_empty() || !token.iter().all(u8::is_ascii_graphic) {
        return Err(wrong());
    }
    let mut value = HeaderValue::from_bytes(&[b"Bearer ", token].concat()).map_err(|_| wrong())?;
    value.set_sensitive(true);
    Ok(value)
}
