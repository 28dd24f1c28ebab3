//! A stand: the real binary, a metadata service of our own, and a directory on a real disk, for as long as it lives.

use super::relay::{self, Seen};
use anyhow::{Context, Result, bail};
use spot_watchdog::emulators::aws::SERVICE;
use spot_watchdog::emulators::service::{EmulatedAction, Emulator, Script, StatedTime, serve};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What is the same for all stands: what is built once.
#[derive(Debug)]
pub(crate) struct Bench {
    /// The binary that is measured.
    pub(crate) engine: PathBuf,
    /// The hook that tells when it began.
    pub(crate) stamp: PathBuf,
    place: TempDir,
    emulator: Emulator,
    service: SocketAddr,
}

impl Bench {
    /// Builds the hook and starts the metadata service.
    pub(crate) fn set_up() -> Result<Self> {
        let engine = std::env::var_os("WATCHDOG_BINARY")
            .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_watchdog")), PathBuf::from);
        // /tmp is in memory on many systems, and a sync to memory costs nothing.
        let disk = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
        let place = open_directory(&disk)?;
        let stamp = place.path().join("stamp");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/measure/stamp.c");
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let built = Command::new(compiler).args(["-static", "-O2", "-o"]).arg(&stamp).arg(source).status();
        if !built.context("no C compiler (set CC)")?.success() {
            bail!("the hook could not be built");
        }
        let emulator = Emulator::new(&SERVICE, Script::default());
        let service = start_service(emulator.clone())?;
        Ok(Self { engine, stamp, place, emulator, service })
    }

    /// Where stands keep their files.
    pub(crate) fn directory(&self) -> &Path {
        self.place.path()
    }

    /// A directory, a relay and a hook's file, all new; the daemon does not run yet.
    pub(crate) fn stand(&self) -> Result<Stand<'_>> {
        self.emulator.withdraw();
        let place = open_directory(self.place.path())?;
        fs::set_permissions(place.path(), PermissionsExt::from_mode(0o777))?;
        let (metadata, seen) = relay::relay(self.service)?;
        // As /run is: in memory.
        let run = open_directory(Path::new("/dev/shm")).or_else(|_| open_directory(self.place.path()))?;
        Ok(Stand {
            bench: self,
            place,
            run,
            metadata,
            seen,
            daemon: None,
            spawned: 0,
            served: SocketAddr::from(([127, 0, 0, 1], 0)),
        })
    }
}

/// A daemon and what surrounds it; it is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Stand<'b> {
    bench: &'b Bench,
    place: TempDir,
    run: TempDir,
    metadata: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    daemon: Option<Child>,
    spawned: u64,
    served: SocketAddr,
}

/// What becomes of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Log {
    /// It goes to a file, of which the end is shown where something goes wrong.
    Kept,
    /// It goes nowhere, as fast as it comes.
    Dropped,
}

impl Stand<'_> {
    /// The file that the hook writes.
    pub(crate) fn stamps(&self) -> PathBuf {
        self.place.path().join("stamps")
    }

    /// A hook that tells when it began, as `--hook` takes it.
    pub(crate) fn hook(&self) -> String {
        format!("{} {}", self.bench.stamp.display(), self.stamps().display())
    }

    /// Writes a configuration; returns where.
    pub(crate) fn configure(&self, text: &str) -> Result<PathBuf> {
        let path = self.place.path().join("watchdog.toml");
        fs::write(&path, text)?;
        Ok(path)
    }

    /// Starts the daemon with these arguments beside the usual ones.
    pub(crate) fn start(&mut self, arguments: &[&str], log: Log) -> Result<()> {
        let stderr = match log {
            Log::Kept => Stdio::from(fs::File::create(self.log())?),
            Log::Dropped => Stdio::null(),
        };
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        self.served = free;
        let mut command = Command::new(&self.bench.engine);
        command
            .arg("--state-dir")
            .arg(self.place.path().join("state"))
            .args(["--listen", &free.to_string(), "--metadata-endpoint", &format!("http://{}", self.metadata)])
            .args(arguments)
            .env("RUNTIME_DIRECTORY", self.run.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr);
        self.spawned = relay::nanoseconds();
        self.daemon = Some(command.spawn().context("the watchdog cannot be started")?);
        Ok(())
    }

    /// The daemon's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.daemon.as_ref().map_or(0, Child::id)
    }

    /// When the daemon was spawned, on the monotonic clock in nanoseconds.
    pub(crate) const fn spawned(&self) -> u64 {
        self.spawned
    }

    /// Where the daemon serves its status.
    pub(crate) const fn served(&self) -> SocketAddr {
        self.served
    }

    /// Places a notice, as EC2 does: two minutes ahead.
    pub(crate) fn interrupt(&self) {
        self.bench.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    }

    /// How many questions the metadata service has had, from all stands.
    pub(crate) fn questions(&self) -> u64 {
        self.bench.emulator.all_requests()
    }

    /// Waits until the hook has told when it began, in nanoseconds.
    pub(crate) fn stamped(&self, limit: Duration) -> Result<u64> {
        let first = || fs::read(self.stamps()).ok()?.first_chunk::<8>().map(|bytes| u64::from_ne_bytes(*bytes));
        self.until("the hook's start", limit, first)
    }

    /// Waits for something, looking often but not busily.
    pub(crate) fn until<T>(&self, what: &str, limit: Duration, look: impl Fn() -> Option<T>) -> Result<T> {
        let began = Instant::now();
        loop {
            if let Some(seen) = look() {
                return Ok(seen);
            }
            if began.elapsed() > limit {
                let log = fs::read_to_string(self.log()).unwrap_or_default();
                bail!("{what} did not come within {limit:?}; the log says:\n{log}");
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn log(&self) -> PathBuf {
        self.place.path().join("log")
    }
}

impl Drop for Stand<'_> {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// A new directory that other users may enter.
fn open_directory(below: &Path) -> Result<TempDir> {
    let place = tempfile::Builder::new().prefix("spot-watchdog-bench-").tempdir_in(below)?;
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755))?;
    Ok(place)
}

fn start_service(emulator: Emulator) -> Result<SocketAddr> {
    in_background(move |listener| serve(listener, emulator))
}

/// Serves something on a thread and a runtime of its own; returns where.
pub(crate) fn in_background<F, S>(serve: F) -> Result<SocketAddr>
where
    F: FnOnce(tokio::net::TcpListener) -> S + Send + 'static,
    S: Future<Output = std::io::Result<()>>,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::spawn(move || runtime.block_on(async { serve(tokio::net::TcpListener::from_std(listener)?).await }));
    Ok(address)
}
