//! A timeline as people read it: when, how much of the time was left, and what happened. Golden files compare it
//! exactly, so a line says nothing that does not matter: a good "nothing" is left out, and so is the second miss
//! of a source in a row for the same reason.

use super::{EntryKind, Timeline};
use spot_watchdog::engine::{Command, Event, Moment, NoticeAction, Now, Run, SourceName, Work};
use spot_watchdog::view::Spoken;
use std::collections::BTreeMap;
use std::fmt;

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reader = Reader::default();
        for entry in &self.entries {
            let Some((now, line)) = reader.line(&entry.what) else { continue };
            let left = match (reader.end, now) {
                (Some(end), Some(now)) => tenths(end.since(now.moment)),
                (None, _) | (_, None) => String::new(),
            };
            writeln!(f, "{:>9} {left:>8}  {line}", tenths(entry.at))?;
        }
        for fault in &self.faults {
            writeln!(f, "BROKEN: {fault}")?;
        }
        Ok(())
    }
}

/// What a reader of the timeline knows by now.
#[derive(Default)]
struct Reader {
    /// The end of what is planned.
    end: Option<Moment>,
    /// The newest moment; an older one after it is another boot's.
    newest: Moment,
    /// What each source was last not read for; until it is read again, the same is not repeated.
    faults: BTreeMap<SourceName, String>,
}

impl Reader {
    /// The line for this, if it is worth one.
    fn line(&mut self, what: &EntryKind) -> Option<(Option<Now>, String)> {
        if let EntryKind::Event(_, now) | EntryKind::Command(_, now) = what {
            if now.moment < self.newest {
                self.end = None;
            }
            self.newest = now.moment;
        }
        match what {
            EntryKind::Event(event, now) => self.is_shown(event).then(|| (Some(*now), event.sentence())),
            EntryKind::Command(command, now) => spoken(command, *now).map(|said| (Some(*now), format!("  > {said}"))),
            EntryKind::World(what) => Some((None, format!("* {what}"))),
        }
    }

    fn is_shown(&mut self, event: &Event) -> bool {
        match event {
            Event::SourceRead { source, .. } => {
                self.faults.remove(source);
                false
            }
            // Their commands say it, or nobody needs to know.
            Event::DaemonStarted { .. }
            | Event::ScaleInWindowSet { .. }
            | Event::SegmentStarted { .. }
            | Event::StopByMoved { .. }
            | Event::ExitPending { .. } => false,
            Event::SourceMissed { source, fault, .. } | Event::ProbeNotOffered { source, fault, .. } => {
                self.faults.insert(source.clone(), fault.sentence.clone()).as_ref() != Some(&fault.sentence)
            }
            Event::DeadlineSet { end, .. } => {
                self.end = Some(*end);
                true
            }
            Event::EpisodeClosing { .. } => {
                self.end = None;
                true
            }
            Event::SourceWentBlind { .. }
            | Event::SourceSawAgain { .. }
            | Event::ProbeWentBlind { .. }
            | Event::ProbeSawAgain { .. }
            | Event::NoticeIgnored { .. }
            | Event::NoticeForgotten { .. }
            | Event::MachineResumed
            | Event::NoticeDeferred { .. }
            | Event::DeferralEnded { .. }
            | Event::EpisodeOpened { .. }
            | Event::NoticeAppeared { .. }
            | Event::NoticeSeenToo { .. }
            | Event::NoticeMoved { .. }
            | Event::NoticeWithdrawn { .. }
            | Event::NoticeAcknowledged { .. }
            | Event::DeadlinePassed
            | Event::StepDue { .. }
            | Event::StepStarted { .. }
            | Event::StepSpawned { .. }
            | Event::StepAdopted { .. }
            | Event::StepEnded { .. }
            | Event::StepSkipped { .. }
            | Event::UndoDue { .. }
            | Event::EpisodeResumed
            | Event::EpisodeRecovered { .. }
            | Event::EpisodeClosed { .. }
            | Event::ExitAsked { .. }
            | Event::Exited => true,
        }
    }
}

/// A command in words; nothing where its event has said it.
fn spoken(command: &Command, now: Now) -> Option<String> {
    let within = |stop_by: &Moment| match stop_by.since(now.moment) {
        left if left.is_zero() => "at once".to_owned(),
        left => format!("within {}", tenths(left)),
    };
    match command {
        Command::Start { run, stop_by, .. } => Some(format!("start {}, to end {}", named(run), within(stop_by))),
        Command::Adopt { run, stop_by, process, .. } => {
            let by = match process {
                Some(process) => format!("process {}", process.pid),
                None => "its traces".to_owned(),
            };
            Some(format!("look for {} by {by}, to end {}", named(run), within(stop_by)))
        }
        Command::Limit { run, stop_by } => Some(format!("{} has to end {}", named(run), within(stop_by))),
        Command::PostNotice { briefing, .. } => {
            let deadline = Spoken(now.moment_at(briefing.deadline).since(now.moment));
            let action = match briefing.action {
                NoticeAction::Unstated => String::new(),
                NoticeAction::Terminate
                | NoticeAction::Stop
                | NoticeAction::Hibernate
                | NoticeAction::Reboot
                | NoticeAction::Leave
                | NoticeAction::Pause => format!(" {}", briefing.action),
            };
            Some(format!("write the notice file: {},{action} in {deadline}", briefing.notice_kind))
        }
        Command::TakeDownNotice => Some("remove the notice file".to_owned()),
        Command::EndLeftovers => Some("end what steps left behind".to_owned()),
        // "ending" was said.
        Command::Exit => None,
    }
}

fn named(run: &Run) -> String {
    let what = match run.work {
        Work::Act => run.step.to_string(),
        Work::Undo => format!("undoing {}", run.step),
    };
    match (run.work, run.attempt) {
        (Work::Act, 1) | (Work::Undo, _) => what,
        (Work::Act, attempt) => format!("{what} (attempt {attempt})"),
    }
}

fn tenths(span: std::time::Duration) -> String {
    format!("{:.1}s", span.as_secs_f64())
}
