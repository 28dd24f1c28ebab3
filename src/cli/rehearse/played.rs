//! The sources of a rehearsal: what each of them asks, played by the emulator of its kind.

use crate::config::Settings;
use crate::emulators::{self, EmulatedNotice, EmulatedSource, EmulationSetting};
use crate::engine::{Input, MachineId, Notice, NoticeAction, NoticeKey, NoticeKind, NoticeOrigin, SourceName, Stated};
use crate::server::StatusPublisher;
use crate::sources::Source;
use anyhow::{Context, bail};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How often it is looked whether all was asked.
const LOOK: Duration = Duration::from_millis(10);

/// What is played, one for each source that is asked, in the order of the configuration.
pub(super) struct PlayedSources(Vec<(SourceName, Box<dyn EmulatedSource>)>);

impl PlayedSources {
    /// Begins to play.
    pub(super) async fn start(real: &Settings, setting: EmulationSetting<'_>) -> anyhow::Result<Self> {
        let mut played = Vec::new();
        for source in real.sources.iter().filter(|source| source.is_asked()) {
            let name = source.name();
            let Some(row) = emulators::ROWS.iter().find(|row| row.kind == source.kind().as_str()) else {
                bail!("what {name} asks cannot be played");
            };
            let cannot = || format!("cannot play {name}");
            let directory = setting.directory.join(format!("source-{name}"));
            std::fs::create_dir(&directory).with_context(cannot)?;
            let setting = EmulationSetting { directory: &directory, ..setting };
            let started = row.start(setting).await.with_context(cannot)?;
            played.push((name, started));
        }
        Ok(Self(played))
    }

    /// The keys by which the sources ask what is played.
    pub(super) fn keys(&self) -> Vec<(String, &'static str, toml::Value)> {
        let of = |(name, played): &(SourceName, Box<dyn EmulatedSource>)| {
            let keys = played.keys().into_iter().map(|(key, value)| (name.to_string(), key, value));
            keys.collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of).collect()
    }

    /// Whether there is anything that is asked.
    pub(super) fn is_asked(&self) -> bool {
        !self.0.is_empty()
    }

    /// Gives the notice: by the first source that is asked, else it is handed in.
    pub(super) async fn give(&self, notice: EmulatedNotice, inputs: &mpsc::Sender<Input>) -> anyhow::Result<()> {
        match self.0.first() {
            Some((name, played)) => played.give(notice).with_context(|| format!("cannot give a notice by {name}")),
            None => {
                let _ = inputs.send(Input::HandedIn { notice: handed_in(notice) }).await;
                Ok(())
            }
        }
    }

    /// Takes it back.
    pub(super) async fn withdraw(&self, kind: NoticeKind, inputs: &mpsc::Sender<Input>) -> anyhow::Result<()> {
        match self.0.first() {
            Some((name, played)) => played.withdraw().with_context(|| format!("cannot withdraw the notice of {name}")),
            None => {
                let _ = inputs.send(Input::TakenBack { key: key(kind) }).await;
                Ok(())
            }
        }
    }
}

fn handed_in(EmulatedNotice { kind, window }: EmulatedNotice) -> Notice {
    Notice {
        key: key(kind),
        action: NoticeAction::Unstated,
        stated: Stated::In(window),
        usual_window: None,
        origin: NoticeOrigin::HandedIn,
        detail: "a rehearsal".to_owned(),
    }
}

fn key(kind: NoticeKind) -> NoticeKey {
    NoticeKey { source: SourceName::new("rehearsal"), kind, machine: MachineId::new(""), event: String::new() }
}

/// Waits until every probe of each source was asked once: a notice that is given then is detected as late as can be.
pub(super) async fn has_asked(publisher: &StatusPublisher, sources: &[Arc<dyn Source>]) {
    let is_asked = || {
        let status = publisher.read();
        sources.iter().filter(|source| source.is_asked()).all(|source| {
            let told = status.sources.iter().find(|told| told.name == source.name().as_str());
            told.is_some_and(|told| told.probes.len() >= source.probes().len())
        })
    };
    while !is_asked() {
        tokio::time::sleep(LOOK).await;
    }
}
