//! Event → orders: what has to be done because something became fact.

use super::{Episode, Watchdog};
use crate::model::{Briefing, Event, Footing, Now, Order, Work};

impl Watchdog {
    /// Derives the orders of an event that has just been applied.
    pub(super) fn orders(&self, event: &Event, now: Now, orders: &mut Vec<Order>) {
        let episode = self.episode();
        match event {
            Event::DeadlineSet { .. } | Event::EpisodeRecovered { .. } => {
                if let Some(episode) = episode.filter(|it| it.closing().is_none())
                    && let Some(briefing) = brief(episode, now)
                {
                    let since = episode.asked.unwrap_or(episode.opened_wall);
                    orders.push(Order::PostNotice { briefing, since });
                }
            }
            Event::StepStarted { run, stop_by } => {
                if let Some(briefing) = episode.and_then(|it| brief(it, now)) {
                    let undo_with = match run.work {
                        Work::Act => Vec::new(),
                        Work::Undo => {
                            episode.and_then(|it| it.step(&run.step)).map(|it| it.undo_with.clone()).unwrap_or_default()
                        }
                    };
                    orders.push(Order::Start { run: run.clone(), briefing, stop_by: *stop_by, undo_with });
                }
            }
            Event::StepAdopted { run } => {
                if let (Some(episode), Some(running)) = (episode, self.running(run))
                    && let Some(briefing) = brief(episode, now)
                {
                    orders.push(Order::Adopt {
                        run: run.clone(),
                        briefing,
                        process: running.process,
                        since: running.since,
                        started: running.since_wall,
                        stop_by: self.stop_by(running, now.moment),
                    });
                }
            }
            Event::EpisodeSettled { .. } => orders.push(Order::TakeDownNotice),
            Event::Exited => orders.push(Order::Exit),
            // Limits that follow from these are ordered at the end of the turn, when all is known.
            Event::SourceRead { .. }
            | Event::SourceMissed { .. }
            | Event::SourceWentBlind { .. }
            | Event::SourceSawAgain { .. }
            | Event::ProbeWentBlind { .. }
            | Event::ProbeSawAgain { .. }
            | Event::NoticeIgnored { .. }
            | Event::MachineResumed
            | Event::NoticeForgotten { .. }
            | Event::EpisodeOpened { .. }
            | Event::NoticeAppeared { .. }
            | Event::NoticeSeenToo { .. }
            | Event::NoticeMoved { .. }
            | Event::NoticeWithdrawn { .. }
            | Event::StepDue { .. }
            | Event::StepSpawned { .. }
            | Event::StepEnded { .. }
            | Event::StepSkipped { .. }
            | Event::UndoDue { .. }
            | Event::EpisodeResumed
            | Event::EpisodeClosed { .. }
            | Event::ExitAsked { .. } => {}
        }
    }
}

/// What a step is told about its episode.
fn brief(episode: &Episode, now: Now) -> Option<Box<Briefing>> {
    let leading = episode.leading()?;
    let deadline = episode.deadline.map_or(leading.deadline, |planned| planned.deadline);
    Some(Box::new(Briefing {
        episode: episode.id.clone(),
        source: leading.notice.key.source.clone(),
        notice_kind: leading.notice.kind(),
        action: leading.notice.action,
        instance_id: leading.notice.key.machine.clone(),
        deadline: now.wall_at(deadline.at),
        stated: deadline.footing == Footing::Stated,
        detail: leading.notice.detail.clone(),
    }))
}
