//! `watchdog generate`: what packagers need, made from the command line's own definition and the tables.

use super::args::{Cli, Generated};
use super::print;
use crate::{actions, config, server, sources, store};
use anyhow::Context;
use clap::CommandFactory;
use std::fs;
use std::path::Path;

/// Generates it.
///
/// # Errors
/// Where it cannot be written.
pub fn generate(
    what: &Generated,
    step_rows: &[actions::Row],
    source_rows: &[sources::SourceRow],
) -> anyhow::Result<()> {
    match what {
        Generated::Man { directory } => man(directory),
        Generated::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "watchdog", &mut text);
            print(&String::from_utf8_lossy(&text))
        }
        Generated::Schema => print_schema(&config::schema(step_rows, source_rows)),
        Generated::StatusSchema => print_schema(&server::schema()),
    }
}

fn print_schema(schema: &serde_json::Value) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(schema).context("failed to write the schema")?;
    print(&format!("{text}\n"))
}

/// One page for each command: `watchdog.1`, `watchdog-run.1` and so on.
fn man(directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("failed to make {}", directory.display()))?;
    let written = store::fill(directory, |fresh| clap_mangen::generate_to(Cli::command(), fresh));
    written.with_context(|| format!("failed to write man pages into {}", directory.display()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where something is not as promised")]

    use super::*;

    #[test]
    fn every_command_has_its_page() {
        let folder = tempfile::tempdir().unwrap();
        let (directory, secret) = (folder.path().join("man1"), folder.path().join("secret"));
        fs::create_dir(&directory).unwrap();
        fs::write(&secret, "of root alone").unwrap();
        std::os::unix::fs::symlink(&secret, directory.join("watchdog.1")).unwrap();
        generate(&Generated::Man { directory }, &[], &[]).unwrap();
        assert_eq!(fs::read_to_string(&secret).unwrap(), "of root alone", "no link is followed");
        let mut pages: Vec<String> = fs::read_dir(folder.path().join("man1"))
            .unwrap()
            .map(|page| page.unwrap().file_name().into_string().unwrap())
            .collect();
        pages.sort();
        let mut expected = vec!["watchdog.1".to_owned()];
        pages_of(&Cli::command(), "watchdog", &mut expected);
        expected.sort();
        assert_eq!(pages, expected);
        let page = fs::read_to_string(folder.path().join("man1/watchdog-rehearse.1")).unwrap();
        assert!(page.contains("SPOT_REHEARSAL"), "examples are in the pages too");
    }

    fn pages_of(command: &clap::Command, name: &str, pages: &mut Vec<String>) {
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            let name = format!("{name}-{}", below.get_name());
            pages.push(format!("{name}.1"));
            pages_of(below, &name, pages);
        }
    }
}
