//! The ground that a watch would stand on: the state directory, the place of the notice file, the addresses that it
//! serves on. Nothing is written, and nothing is taken from a daemon that runs; files are looked at on another thread
//! under a limit, since their mounts may hang.

use crate::cli::status_client::StatusClient;
use crate::config::{Expose, Settings};
use crate::runtime::{notice_file, state_dir};
use crate::store::timings;
use crate::view::{Finding, FindingLevel, StepTimings, error_text};
use rustix::fs::{Access, access, statvfs};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpSocket;

/// Below this a disk counts as full: an episode's journal is some tens of kilobytes.
const ROOM: u64 = 1 << 20;

/// How long an address that is taken may think about who it is.
const PATIENCE: Duration = Duration::from_secs(2);

const STATE: &str = "state directory";
const NOTICE: &str = "notice file";
const REPORTS: &str = "report-dir";
const ENDPOINT: &str = "endpoint";

/// Looks at the state directory and the notice file, within `limit`.
pub(super) async fn files(settings: &Settings, limit: Duration) -> Vec<Finding> {
    let (named, report_dir) = (settings.state_dir.clone(), settings.report_dir.clone());
    let looking = tokio::task::spawn_blocking(move || {
        let place = state_dir::choose(named.as_deref(), state_dir::Caller::current(), |name| std::env::var_os(name));
        let mut found = vec![state(place.as_deref(), named.is_some())];
        found.extend(full(place.as_deref()));
        found.extend(report_dir.as_deref().map(reports));
        found.push(notice(&notice_file::path(&place.unwrap_or_else(std::env::temp_dir))));
        found
    });
    match tokio::time::timeout(limit, looking).await {
        Ok(Ok(found)) => found,
        Ok(Err(_)) | Err(_) => {
            vec![Finding::new(FindingLevel::Error, STATE, "could not be looked at in time (does its mount answer?)")]
        }
    }
}

/// What the steps were measured to take, as a daemon would know it, and what is wrong with where that comes from.
pub(super) async fn measured(settings: &Settings, limit: Duration) -> (StepTimings, Vec<Finding>) {
    let (named, carried_in) = (settings.state_dir.clone(), settings.timings_file.clone());
    let looking = tokio::task::spawn_blocking(move || {
        let place = state_dir::choose(named.as_deref(), state_dir::Caller::current(), |name| std::env::var_os(name));
        let own = place.map(|place| timings::read(&timings::in_directory(&place))).unwrap_or_default();
        match carried_in.as_deref().map(timings::read_elsewhere) {
            None => (own, Vec::new()),
            Some(Ok(carried_in)) => (own.or(&carried_in), Vec::new()),
            Some(Err(sentence)) => (own, vec![Finding::new(FindingLevel::Warning, "timings-file", sentence)]),
        }
    });
    match tokio::time::timeout(limit, looking).await {
        Ok(Ok(found)) => found,
        Ok(Err(_)) | Err(_) => {
            let sentence = "what was measured could not be looked at in time (does its mount answer?)";
            (StepTimings::default(), vec![Finding::new(FindingLevel::Warning, "timings-file", sentence)])
        }
    }
}

/// Whether reports can be written to where `report-dir` says.
fn reports(directory: &Path) -> Finding {
    let shown = directory.display();
    match usable(directory) {
        Ok(DirectoryState::Exists) => Finding::new(FindingLevel::Good, REPORTS, format!("{shown} is writable")),
        Ok(DirectoryState::CanBeCreated) => {
            Finding::new(FindingLevel::Good, REPORTS, format!("{shown} can be created"))
        }
        Err(why) => {
            let sentence = format!("{shown}: {why}, so no report of an episode would be written there");
            Finding::new(FindingLevel::Warning, REPORTS, sentence)
        }
    }
}

fn state(place: Option<&Path>, is_named: bool) -> Finding {
    let Some(place) = place else {
        let sentence = "there is none for this user ($HOME, $XDG_STATE_HOME and $STATE_DIRECTORY are not set), so a crash \
                        would forget what was done: name one with --state-dir";
        return Finding::new(FindingLevel::Warning, STATE, sentence);
    };
    let shown = place.display();
    match (usable(place), state_dir::held_by(place)) {
        (_, Some(pid)) => {
            let sentence = format!("{shown} is used by a running watchdog (pid {pid}); a second one would not start");
            Finding::new(FindingLevel::Note, STATE, sentence)
        }
        (Ok(DirectoryState::Exists), None) if let Some(why) = state_dir::not_ours_alone(place) => {
            let weight = if is_named { FindingLevel::Error } else { FindingLevel::Warning };
            let sentence =
                format!("{shown} would be refused to this user, and a crash would forget what was done: {why}");
            Finding::new(weight, STATE, sentence)
        }
        (Ok(DirectoryState::Exists), None) => Finding::new(FindingLevel::Good, STATE, format!("{shown} is writable")),
        (Ok(DirectoryState::CanBeCreated), None) => {
            Finding::new(FindingLevel::Good, STATE, format!("{shown} can be created"))
        }
        (Err(why), None) => {
            let weight = if is_named { FindingLevel::Error } else { FindingLevel::Warning };
            let sentence = format!(
                "{shown} cannot be used by this user: {why}; the watchdog would keep its state in memory, lose it in a crash, and not \
                 receive `watchdog notice`: name another directory with --state-dir"
            );
            Finding::new(weight, STATE, sentence)
        }
    }
}

/// A disk without room for a journal.
fn full(place: Option<&Path>) -> Option<Finding> {
    let place = place?;
    let there = place.ancestors().find(|path| path.exists())?;
    let disk = statvfs(there).ok()?;
    let left = disk.f_bavail.saturating_mul(disk.f_frsize);
    // Some file systems count nothing, and tell zero blocks of zero.
    (disk.f_blocks > 0 && left < ROOM).then(|| {
        let sentence = format!("the disk of {} is full: what is done could not be written down", place.display());
        Finding::new(FindingLevel::Warning, STATE, sentence)
    })
}

fn notice(file: &Path) -> Finding {
    let shown = file.display();
    if file.is_dir() {
        return Finding::new(FindingLevel::Error, NOTICE, format!("{shown} is a directory: remove it"));
    }
    match usable(file.parent().unwrap_or(Path::new("/"))) {
        Ok(DirectoryState::Exists | DirectoryState::CanBeCreated) => {
            Finding::new(FindingLevel::Good, NOTICE, format!("{shown} is written on a notice"))
        }
        Err(why) => {
            let sentence =
                format!("{shown} could not be written by this user ({why}): who waits for it would not see a notice");
            Finding::new(FindingLevel::Warning, NOTICE, sentence)
        }
    }
}

/// Whether a directory that can be used is there yet.
enum DirectoryState {
    Exists,
    CanBeCreated,
}

/// Whether a directory can be written by us, or be created. The error names no directory where it is about this one.
fn usable(directory: &Path) -> Result<DirectoryState, String> {
    let (there, state) = match directory.ancestors().find(|path| path.symlink_metadata().is_ok()) {
        Some(there) if there == directory => (there, DirectoryState::Exists),
        Some(above) => (above, DirectoryState::CanBeCreated),
        None => return Err("no directory above it exists".to_owned()),
    };
    let cannot = |why: String| match state {
        DirectoryState::Exists => why,
        DirectoryState::CanBeCreated => format!("{}: {why}", there.display()),
    };
    let kind = fs::metadata(there).map_err(|error| cannot(error_text(&error)))?;
    if !kind.is_dir() {
        return Err(cannot("not a directory".to_owned()));
    }
    match access(there, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Ok(state),
        Err(error) => Err(cannot(error_text(&error.into()))),
    }
}

/// Looks whether the addresses that are to be served on can be had.
pub(super) async fn endpoint(settings: &Settings) -> Vec<Finding> {
    if settings.listen.is_empty() {
        return vec![Finding::new(
            FindingLevel::Note,
            ENDPOINT,
            "off: nobody can ask /healthz, /readyz or `watchdog status`",
        )];
    }
    let mut found = Vec::new();
    for address in &settings.listen {
        found.push(match bind(*address) {
            Ok(()) => Finding::new(FindingLevel::Good, ENDPOINT, format!("http://{address} is free")),
            Err(error) => taken(*address, &error).await,
        });
        if !address.ip().is_loopback() && settings.expose == Expose::All {
            let sentence = format!(
                "whoever reaches http://{address} sees the names of the steps and what they print (expose = \"all\")"
            );
            found.push(Finding::new(FindingLevel::Note, ENDPOINT, sentence));
        }
    }
    found
}

/// Binds and lets go. Without listening on it, nobody is answered or turned away, and a daemon that starts in this very
/// moment can still have it.
fn bind(address: SocketAddr) -> io::Result<()> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the kinds of io errors are not ours, and more are to come")]
async fn taken(address: SocketAddr, error: &io::Error) -> Finding {
    let why = match error.kind() {
        io::ErrorKind::AddrInUse if is_a_watchdog(address).await => {
            let sentence = format!("http://{address} is served by a running watchdog");
            return Finding::new(FindingLevel::Note, ENDPOINT, sentence);
        }
        io::ErrorKind::AddrInUse => {
            "is taken by another program: give another address with `listen`, or \"off\"".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "is no address of this machine: give another with `listen`".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "cannot be had: ports below 1024 need rights; give a higher one with `listen`".to_owned()
        }
        _ => format!("cannot be had ({}): give another with `listen`, or \"off\"", error_text(error)),
    };
    Finding::new(FindingLevel::Error, ENDPOINT, format!("http://{address} {why}"))
}

/// Whether a watchdog answers there.
async fn is_a_watchdog(address: SocketAddr) -> bool {
    let Ok(client) = StatusClient::at(address) else { return false };
    let answer = client.get("livez", None, PATIENCE).await;
    answer.is_ok_and(|answer| answer.body.starts_with(b"the loop "))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where something is not as promised")]

    use super::*;
    use crate::runtime::state_dir::StateDir;
    use std::os::unix::fs::PermissionsExt;
    use tempfile::TempDir;

    fn weight_and(part: &str, finding: &Finding) -> FindingLevel {
        assert!(finding.sentence.contains(part), "{finding:?}");
        finding.weight
    }

    #[test]
    fn a_state_directory_is_looked_at_and_left_as_it_is() {
        let root = TempDir::new().unwrap();
        let fresh = root.path().join("a/b");
        assert_eq!(weight_and("can be created", &state(Some(&fresh), true)), FindingLevel::Good);
        assert!(!root.path().join("a").exists(), "nothing is made");
        let held = StateDir::take(&fresh).unwrap();
        let pid = format!("(pid {})", std::process::id());
        assert_eq!(weight_and(&pid, &state(Some(&fresh), true)), FindingLevel::Note);
        drop(held);
        fs::write(root.path().join("file"), "").unwrap();
        let open = root.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let mend = format!("chmod 700 {}", open.display());
        assert_eq!(weight_and(&mend, &state(Some(&open), true)), FindingLevel::Error);
        assert_eq!(state(Some(&open), false).weight, FindingLevel::Warning);
        let wrong = root.path().join("file/state");
        assert_eq!(weight_and("not a directory", &state(Some(&wrong), true)), FindingLevel::Error);
        assert_eq!(state(Some(&wrong), false).weight, FindingLevel::Warning);
        assert_eq!(weight_and("--state-dir", &state(None, false)), FindingLevel::Warning);
    }

    #[test]
    fn a_directory_in_place_of_the_notice_file_is_an_error() {
        let root = TempDir::new().unwrap();
        let file = root.path().join("run/notice.json");
        assert_eq!(weight_and("is written on a notice", &notice(&file)), FindingLevel::Good);
        fs::create_dir_all(&file).unwrap();
        assert_eq!(weight_and("is a directory", &notice(&file)), FindingLevel::Error);
        fs::write(root.path().join("file"), "").unwrap();
        let wrong = root.path().join("file/notice.json");
        assert_eq!(weight_and("not a directory", &notice(&wrong)), FindingLevel::Warning);
    }

    #[tokio::test]
    async fn a_port_is_free_or_ours_or_taken() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap();
        let error = bind(address).unwrap_err();
        assert_eq!(weight_and("another program", &taken(address, &error).await), FindingLevel::Error);
        drop(other);
        bind(address).unwrap();

        let ours = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = ours.local_addr().unwrap();
        let livez = axum::Router::new().route("/livez", axum::routing::get("the loop turns\n"));
        tokio::spawn(async move { axum::serve(ours, livez).await });
        let error = bind(address).unwrap_err();
        assert_eq!(weight_and("by a running watchdog", &taken(address, &error).await), FindingLevel::Note);

        let elsewhere: SocketAddr = "192.0.2.1:9189".parse().unwrap();
        let error = bind(elsewhere).unwrap_err();
        assert_eq!(weight_and("no address of this machine", &taken(elsewhere, &error).await), FindingLevel::Error);
    }
}
