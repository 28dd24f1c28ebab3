//! What the emulated service serves, as plain data: what stands from when to when, and what is spoiled.

use super::EmulatorOptions;
use axum::http::Method;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// Everything the service says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Script {
    /// Items below `/latest/meta-data/` that never change, by path: what the machine is.
    pub items: Vec<(&'static str, String)>,
    /// `spot/instance-action` and, for a termination, `spot/termination-time`.
    pub interruption: Option<Interruption>,
    /// When `events/recommendations/rebalance` stands.
    pub rebalance: Option<ActiveSpan>,
    /// `autoscaling/target-lifecycle-state`; a 404 without it.
    pub lifecycle_state: Option<String>,
    /// `events/maintenance/scheduled`.
    pub maintenance: Vec<MaintenanceEvent>,
    /// Whether questions without a session are answered.
    pub protocol: Protocol,
    /// Whether a connection serves one request or many.
    pub connections: ConnectionReuse,
    /// The longest life that a session gets; the cloud's own limit is 21600 s.
    pub longest_session: Duration,
    /// How far its clock is ahead of ours.
    pub ahead: SignedDuration,
    /// Whether its answers tell its time.
    pub date: DateHeader,
    /// What is spoiled; the first that matches counts.
    pub troubles: Vec<Trouble>,
}

/// A span of the emulator's own time in which something stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActiveSpan {
    /// From when.
    pub from: Duration,
    /// Until when; for good without it.
    pub until: Option<Duration>,
}

impl From<Duration> for ActiveSpan {
    fn from(from: Duration) -> Self {
        Self { from, until: None }
    }
}

impl ActiveSpan {
    /// Whether it stands at this time.
    pub fn at(self, elapsed: Duration) -> bool {
        self.from <= elapsed && self.until.is_none_or(|until| elapsed < until)
    }
}

/// An interruption notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interruption {
    /// When it stands.
    pub stands: ActiveSpan,
    /// What it announces.
    pub action: EmulatedAction,
    /// Which time it states.
    pub time: StatedTime,
}

/// What an interruption notice announces.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub enum EmulatedAction {
    /// The machine is terminated.
    Terminate,
    /// The machine is stopped.
    Stop,
    /// The machine is hibernated.
    Hibernate,
}

impl EmulatedAction {
    /// The word that EC2 uses.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Terminate => "terminate",
            Self::Stop => "stop",
            Self::Hibernate => "hibernate",
        }
    }
}

/// The time that an interruption notice states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StatedTime {
    /// So long after the notice appears; EC2 gives two minutes.
    After(Duration),
    /// This very time.
    At(Timestamp),
    /// None.
    Unsaid,
}

impl Default for StatedTime {
    fn default() -> Self {
        Self::After(Duration::from_secs(120))
    }
}

/// A maintenance event, in the cloud's own words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MaintenanceEvent {
    /// `instance-event-…`.
    pub event_id: String,
    /// `system-reboot`, `instance-stop` and so on.
    pub code: String,
    /// `active`, `completed`, `canceled`.
    pub state: String,
    /// When it begins at the earliest.
    pub not_before: Timestamp,
}

/// Whether questions without a session are answered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub enum Protocol {
    /// A session is needed (IMDSv2): without one the answer is 401
    #[value(name = "required")]
    Version2,
    /// Questions without a session are answered too (IMDSv1)
    #[value(name = "optional")]
    Version1Too,
}

/// Whether a connection serves one request or many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectionReuse {
    /// Many.
    KeptOpen,
    /// One, as captures of the real service show.
    ClosedEachTime,
}

/// Whether answers tell the service's time. The real service does; a proxy in between may not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DateHeader {
    /// Yes.
    Sent,
    /// No.
    LeftOut,
}

/// A request that is answered badly.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trouble {
    /// The method; any without it.
    pub method: Option<Method>,
    /// The whole path, without doubled slashes and without one at its end; questions are met however they write these.
    pub path: String,
    /// What happens instead.
    pub behaviour: Behaviour,
}

/// How a request is answered badly.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Behaviour {
    /// With this status and an error page.
    Status(u16),
    /// With status 200 and this body.
    Body(Vec<u8>),
    /// Well, after this span.
    Late(Duration),
    /// Not at all: the connection stays open and nothing comes.
    Silent,
    /// With a body that never ends.
    Endless,
    /// With a redirect to there.
    Redirect(String),
    /// Well, but without saying how long the session lasts.
    WithoutTtl,
    /// With the right body, byte by byte, and so much time between two of them.
    Drip(Duration),
    /// With a body that ends so many bytes before the length that was announced; all of it is missing where it is shorter.
    Truncated(usize),
    /// With a body of so many bytes.
    Oversized(usize),
    /// By ending the connection with RST.
    Reset,
    /// By ending the connection with RST after so many bytes of the right body.
    ResetAfter(usize),
    /// By closing the connection.
    Closed,
    /// With bytes that are not HTTP.
    NotHttp,
    /// Well, but under this content type.
    ContentType(String),
    /// Well, but with this `Date`.
    Date(DateSaid),
    /// Well, in packets that are dropped after so many hops: their IP time-to-live, as `HttpPutResponseHopLimit` sets it.
    HopLimit(u8),
}

/// What stands in the `Date` header instead of the service's clock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DateSaid {
    /// This text; no such header where it is empty.
    Text(String),
    /// The service's clock and so much more.
    Ahead(SignedDuration),
}

impl Script {
    /// The service's clock, when ours shows `ours`.
    pub(super) fn clock(&self, ours: Timestamp) -> Timestamp {
        ours.saturating_add(self.ahead).unwrap_or(ours)
    }

    /// Replaces an item of [`Script::items`], or adds it.
    pub fn set_item(&mut self, path: &'static str, value: impl Into<String>) {
        self.items.retain(|(known, _)| *known != path);
        self.items.push((path, value.into()));
    }

    /// An item of [`Script::items`]; empty where there is none.
    pub(super) fn item(&self, path: &str) -> &str {
        self.items.iter().find(|(known, _)| *known == path).map_or("", |(_, value)| value)
    }
}

impl Default for Script {
    fn default() -> Self {
        let items = [
            ("ami-id", "ami-0emulated0000000"),
            ("ami-launch-index", "0"),
            ("ami-manifest-path", "(unknown)"),
            ("block-device-mapping/ami", "/dev/xvda"),
            ("block-device-mapping/root", "/dev/xvda"),
            ("hostname", "ip-10-0-0-7.ec2.internal"),
            // Unrelated to Spot in spite of its name; clients that confuse the two are found out by it.
            ("instance-action", "none"),
            ("instance-id", "i-0123456789abcdef0"),
            ("instance-life-cycle", "spot"),
            ("instance-type", "g5.xlarge"),
            ("local-hostname", "ip-10-0-0-7.ec2.internal"),
            ("local-ipv4", "10.0.0.7"),
            ("mac", "02:00:00:00:00:07"),
            ("placement/availability-zone", "us-east-1a"),
            ("placement/availability-zone-id", "use1-az1"),
            ("placement/group-name", "emulated"),
            ("placement/host-id", "h-0123456789abcdef0"),
            ("placement/partition-number", "1"),
            ("placement/region", "us-east-1"),
            ("profile", "default-hvm"),
            ("reservation-id", "r-0123456789abcdef0"),
            ("security-groups", "default"),
            ("services/domain", "amazonaws.com"),
            ("services/partition", "aws"),
            ("tags/instance/Name", "emulated"),
        ];
        Self {
            items: items.into_iter().map(|(path, value)| (path, value.to_owned())).collect(),
            interruption: None,
            rebalance: None,
            lifecycle_state: None,
            maintenance: Vec::new(),
            protocol: Protocol::Version2,
            connections: ConnectionReuse::KeptOpen,
            longest_session: Duration::from_secs(21_600),
            ahead: SignedDuration::ZERO,
            date: DateHeader::Sent,
            troubles: Vec::new(),
        }
    }
}

impl From<EmulatorOptions> for Script {
    fn from(options: EmulatorOptions) -> Self {
        let EmulatorOptions { notice_after, action, time, rebalance_after, connections, protocol } = options;
        Self {
            interruption: notice_after.map(|after| Interruption { stands: ActiveSpan::from(after), action, time }),
            rebalance: rebalance_after.map(ActiveSpan::from),
            connections,
            protocol,
            ..Self::default()
        }
    }
}
