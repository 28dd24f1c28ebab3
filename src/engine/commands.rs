//! Event → commands: what has to be done because something became fact.

use super::{Engine, Episode};
use crate::engine::{Command, DeadlineBasis, Event, NoticeContext, Now, Run, Signal, Work};

impl Engine {
    /// Derives the commands of an event that has just been applied.
    pub(super) fn commands(&self, event: &Event, now: Now, commands: &mut Vec<Command>) {
        let episode = self.episode();
        #[expect(clippy::wildcard_enum_match_arm, reason = "most events ask for nothing to be done")]
        match event {
            Event::DeadlineSet { .. } | Event::EpisodeRecovered { .. } => {
                if let Some(episode) = episode.filter(|it| it.close_reason().is_none())
                    && let Some(briefing) = brief(episode, now)
                {
                    let since = episode.asked.unwrap_or(episode.opened_wall);
                    commands.push(Command::PostNotice { briefing, since });
                }
            }
            Event::StepStarted { run, stop_by, .. } => {
                if let Some(briefing) = episode.and_then(|it| brief(it, now)) {
                    let undo_with = match run.work {
                        Work::Act => Vec::new(),
                        Work::Undo => {
                            episode.and_then(|it| it.step(&run.step)).map(|it| it.undo_with.clone()).unwrap_or_default()
                        }
                    };
                    commands.push(Command::Start {
                        run: run.clone(),
                        briefing,
                        stop_by: *stop_by,
                        since: now.moment,
                        proof_since: self.proof_since(run, now),
                        opened: episode.map_or(now.wall, |it| it.opened_wall),
                        undo_with,
                    });
                }
            }
            Event::StepAdopted { run, stop_by } => {
                if let (Some(episode), Some(running)) = (episode, self.running(run))
                    && let Some(briefing) = brief(episode, now)
                {
                    commands.push(Command::Adopt {
                        run: run.clone(),
                        briefing,
                        process: running.process,
                        since: running.since,
                        proof_since: self.proof_since(run, Now { moment: running.since, wall: running.since_wall }),
                        stop_by: *stop_by,
                    });
                }
            }
            Event::EpisodeClosing { .. } => commands.push(Command::TakeDownNotice),
            Event::StopByMoved { run, stop_by } => {
                commands.push(Command::Limit { run: run.clone(), stop_by: *stop_by })
            }
            Event::ExitAsked { signal: Signal::StopNow } => commands.push(Command::EndLeftovers),
            Event::Exited => commands.push(Command::Exit),
            _ => {}
        }
    }

    /// Since when the proof of a run counts that was started at this time.
    fn proof_since(&self, run: &Run, started: Now) -> Now {
        let began = self.episode().and_then(|it| it.step(&run.step)).and_then(|step| step.began);
        match run.work {
            Work::Act => began.unwrap_or(started),
            Work::Undo => started,
        }
    }
}

/// What a step is told about its episode.
fn brief(episode: &Episode, now: Now) -> Option<Box<NoticeContext>> {
    let leading = episode.primary()?;
    let deadline = episode.deadline.map_or(leading.deadline, |planned| planned.deadline);
    Some(Box::new(NoticeContext {
        episode: episode.id.clone(),
        source: leading.notice.key.source.clone(),
        notice_kind: leading.notice.kind(),
        action: leading.notice.action,
        instance_id: leading.notice.key.machine.clone(),
        deadline: now.wall_at(deadline.at),
        stated: deadline.deadline_basis != DeadlineBasis::Assumed,
        detail: leading.notice.detail.clone(),
    }))
}
