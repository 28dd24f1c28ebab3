//! What a source wants asked, and how: plain data that the poller and `check` carry out.

use super::transports::DEFAULT_TIME_LIMIT;
use crate::engine::{Importance, NoticeKind, ProbeName};
use hyper::header::HeaderMap;
use std::time::Duration;

/// One question, asked again and again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probe {
    /// Its name.
    pub name: ProbeName,
    /// What is asked, and over which transport.
    pub question: Question,
    /// Whether blindness of this probe blinds the source. Vital probes are asked side by side: one that hangs delays no
    /// other.
    pub rank: Importance,
    /// When it is asked again.
    pub pace: ProbePace,
    /// How long a whole answer may take.
    pub time_limit: Duration,
    /// How long the first answer may take, where a service takes its time with that. Until then the source is warming up,
    /// and not blind.
    pub first_time_limit: Option<Duration>,
    /// The kinds of notice that it alone tells of; none where another probe tells the same.
    pub kinds: Vec<NoticeKind>,
}

impl Probe {
    /// A vital probe that is asked in this interval and answers as quickly as most services do.
    pub fn vital(name: &str, question: Question, interval: Duration) -> Self {
        Self {
            name: ProbeName::new(name),
            question,
            rank: Importance::Vital,
            pace: ProbePace::Every(interval),
            time_limit: DEFAULT_TIME_LIMIT,
            first_time_limit: None,
            kinds: Vec::new(),
        }
    }

    /// The same, without which the source goes on.
    pub fn side(name: &str, question: Question, interval: Duration) -> Self {
        Self { rank: Importance::Side, ..Self::vital(name, question, interval) }
    }

    /// How long its first answer may take.
    pub fn first_answer(&self) -> Duration {
        self.first_time_limit.unwrap_or(self.time_limit)
    }

    /// The same, which alone tells of notices of this kind.
    #[must_use]
    pub fn telling(mut self, kind: NoticeKind) -> Self {
        self.kinds.push(kind);
        self
    }
}

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Question {
    /// A request to the source's service.
    Http(HttpQuestion),
    /// What the source's file holds, its URL answers or its program says: there is nothing to choose.
    Content,
}

/// What a service is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpQuestion {
    /// The path from the root of the endpoint, with its leading slash and maybe a query.
    pub path: String,
    /// What is sent along, beside the token of a session.
    pub headers: HeaderMap,
    /// What is posted. Without it, it is a GET.
    pub body: Option<String>,
}

impl Question {
    /// A GET of this path without headers of its own.
    pub fn get(path: impl Into<String>) -> Self {
        Self::Http(HttpQuestion { path: path.into(), headers: HeaderMap::new(), body: None })
    }
}

/// When a probe is asked again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProbePace {
    /// So long after it was asked before.
    Every(Duration),
    /// At once after an answer, since the service answers when something changes; yet never sooner than this after it was
    /// asked before.
    LongPoll {
        /// That rest.
        rest: Duration,
    },
}

impl ProbePace {
    /// The shortest time from one question to the next.
    pub const fn interval(self) -> Duration {
        match self {
            Self::Every(interval) => interval,
            Self::LongPoll { rest } => rest,
        }
    }
}
