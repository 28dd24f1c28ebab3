//! Whom a notice is from and about: what the reader of a metadata service puts into each of them.

use crate::engine::{MachineId, Notice, NoticeAction, NoticeKey, NoticeKind, NoticeOrigin, SourceName, Stated};
use crate::view::{Machine, clip};

/// The most characters of a notice's detail.
pub(super) const MOST_DETAIL: usize = 200;

/// Whom a notice is from and about.
#[derive(Clone, Copy)]
pub(super) struct NoticeSubject<'a> {
    pub(super) source: &'a SourceName,
    pub(super) machine: &'a Machine,
}

impl NoticeSubject<'_> {
    /// A notice that was read now, without a bound on its time. `event` is the cloud's own id of it; empty where it has none.
    pub(super) fn notice(
        self,
        kind: NoticeKind,
        event: &str,
        action: NoticeAction,
        stated: Stated,
        detail: &str,
    ) -> Notice {
        Notice {
            key: NoticeKey {
                source: self.source.clone(),
                kind,
                machine: MachineId::new(&self.machine.id),
                event: event.to_owned(),
            },
            action,
            stated,
            usual_window: None,
            origin: NoticeOrigin::Reported,
            detail: clip(detail, MOST_DETAIL),
        }
    }
}
