//! `watchdog init`: writes a commented configuration for a kind of workload, to begin with.

use super::args::{InitArgs, WorkloadKind};
use super::{ExitStatus, print, run};
use crate::config::{self, Flags, Settings, Start};
use crate::runtime::detection;
use crate::view::{Spoken, printable};
use crate::{actions, sources};
use anyhow::{Context, bail};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, context};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

/// How long a host that goes down waits for the watchdog where its cloud does not say: as the shipped systemd unit.
const SHUTDOWN: Duration = Duration::from_secs(120);

/// What was found of the machine that it is written for.
#[derive(Clone, Debug, Default)]
struct FoundCloud {
    /// The `kind` of its source; empty where no cloud was found.
    cloud: String,
    /// What was found, in a sentence.
    sentence: String,
    /// How long its notices leave, where that is known.
    window: Option<Duration>,
}

/// Looks which cloud this is, writes the file, and says what to do with it.
pub fn init(args: &InitArgs) -> ExitStatus {
    // The machine as a watch would find it that no file tells anything.
    let flags = Flags { hook: vec!["true".to_owned()], ..Flags::default() };
    match config::load(&Start::here(flags), actions::ROWS, sources::ROWS) {
        Ok(settings) => super::end(find(settings).and_then(|found| write(args, &found))),
        Err(refused) => super::refuse(&refused),
    }
}

fn find(mut settings: Settings) -> anyhow::Result<FoundCloud> {
    let finding = run::runtime()?.block_on(detection::settle(&mut settings));
    let source = settings.sources.iter().find(|source| source.is_asked());
    Ok(FoundCloud {
        cloud: source.map(|source| source.name().to_string()).unwrap_or_default(),
        sentence: finding.map(|finding| printable(&finding.sentence)).unwrap_or_default(),
        window: source.and_then(|source| source.usual_window()),
    })
}

fn write(args: &InitArgs, found: &FoundCloud) -> anyhow::Result<()> {
    let InitArgs { workload, file } = args;
    let named = printable(&file.to_string_lossy());
    write_new(file, &configuration(*workload, &named, found)?)?;
    print(&format!(
        "wrote {named}: {}\nAdapt its lines marked EDIT, then see whether it works here, and whether the time suffices:\n  \
         watchdog check --config {named}\n  watchdog rehearse --config {named}\n",
        found.sentence
    ))
}

fn configuration(workload: WorkloadKind, file: &str, found: &FoundCloud) -> anyhow::Result<String> {
    let (name, template) = match workload {
        WorkloadKind::Training => ("training", include_str!("../../config/init/training.toml")),
        WorkloadKind::Serving => ("serving", include_str!("../../config/init/serving.toml")),
        WorkloadKind::Batch => ("batch", include_str!("../../config/init/batch.toml")),
        WorkloadKind::Stateful => ("stateful", include_str!("../../config/init/stateful.toml")),
    };
    let FoundCloud { cloud, sentence, window } = found;
    let shutdown = window.unwrap_or(SHUTDOWN);
    let needs = Duration::from_secs(shutdown.as_secs() * 3 / 8);
    let mut engine = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).keep_trailing_newline(true).build();
    engine.set_syntax(syntax.context("failed to set the template's syntax")?);
    let values = context!(name, file, cloud, sentence, shutdown => Spoken(shutdown).to_string(), needs => Spoken(needs).to_string());
    engine.render_str(template, values).context("failed to fill in the template")
}

/// Writes a file that is not there yet, whole or not at all.
fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = match File::create_new(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!("{} is there already, and is not overwritten; name another file", path.display())
        }
        Err(error) => return Err(error).with_context(|| format!("failed to make {}", path.display())),
    };
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a configuration is worse than none.
        let _ = fs::remove_file(path);
    }
    written.with_context(|| format!("failed to write {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where something is not as promised")]

    use super::*;
    use crate::config::load;
    use crate::view::FindingLevel;
    use clap::ValueEnum;

    fn found(row: Option<&sources::SourceRow>) -> FoundCloud {
        let window = row.map(|_| Duration::from_secs(30));
        FoundCloud {
            cloud: row.map(|row| row.kind.to_owned()).unwrap_or_default(),
            sentence: "this machine is somewhere".to_owned(),
            window,
        }
    }

    fn settings(text: &str) -> Settings {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("watchdog.toml");
        fs::write(&path, text).unwrap();
        let start = Start { usual_file: path, ..Start::here(Flags::default()) };
        load(&start, actions::ROWS, sources::ROWS).unwrap()
    }

    #[test]
    fn each_workload_has_a_configuration_that_is_right_on_every_cloud() {
        let clouds = sources::ROWS.iter().map(Some).chain([None]);
        for (cloud, workload) in
            clouds.flat_map(|cloud| WorkloadKind::value_variants().iter().map(move |it| (cloud, it)))
        {
            let text = configuration(*workload, "watchdog.toml", &found(cloud)).unwrap();
            assert!(text.contains("# EDIT: ") && !text.contains("{{") && !text.contains("\n\n\n"), "{text}");
            assert!(text.lines().all(|line| line.len() <= 130), "{text}");
            let settings = settings(&text);
            assert!(settings.steps.len() > usize::from(*workload != WorkloadKind::Training), "{text}");
            let warned = settings.warnings.iter().find(|warning| warning.weight >= FindingLevel::Warning);
            assert!(warned.is_none(), "{warned:?}");
        }
    }

    #[test]
    fn a_file_that_is_there_stays_as_it_is_and_so_does_what_a_link_leads_to() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("watchdog.toml"), folder.path().join("link.toml"));
        fs::write(&file, "mine").unwrap();
        std::os::unix::fs::symlink(folder.path().join("nowhere"), &link).unwrap();
        for path in [&file, &link] {
            let error = write_new(path, "new").unwrap_err().to_string();
            assert!(error.contains("is not overwritten"), "{error}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
        assert!(!folder.path().join("nowhere").exists());
    }

    #[test]
    fn on_a_full_disk_no_half_of_it_stays() {
        let error = write_new(Path::new("/proc/self/none.toml"), "new").unwrap_err().to_string();
        assert!(error.contains("failed to make /proc/self/none.toml"), "{error}");
    }
}
