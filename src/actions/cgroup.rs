//! cgroup v2, as far as a run is held by it: whether we may make cgroups below our own, a run's own cgroup, who is in
//! it, and its end.
//!
//! Needed is the hierarchy alone: no controller is switched on anywhere, so the rule that a cgroup which distributes
//! controllers has no processes of its own (cgroups(7), "no internal processes") does not touch us, and we stay where
//! we were put. Nothing here knows of hooks, or remembers anything: the file system is the state.

use super::process::Stat;
use crate::engine::{Moment, Process};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Cgroups below a run's own that are looked into: a hook of root may make some, and may not keep us busy with it.
const MOST_BELOW: usize = 256;

/// Milliseconds in a clock tick of `/proc` (`USER_HZ`, 100 a second wherever this is built).
const MILLIS_A_TICK: u64 = 10;

/// Where a service manager shows itself, whose cgroups are not ours to divide unless it says so.
const SYSTEMD: &str = "/run/systemd/system";

/// What systemd marks a delegated cgroup with (systemd's `CGROUP_DELEGATION.md`): the second where only root may look.
const MARKS_OF_DELEGATION: [&str; 2] = ["user.delegate", "trusted.delegate"];

/// Our own cgroup, below which we may make others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delegated {
    directory: PathBuf,
}

impl Delegated {
    /// Looks whether our own cgroup was left to us: it is ours to write to, it is not the machine's root, and where
    /// systemd runs, systemd has said so.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn find() -> Result<Self, String> {
        let read = |path: &str| fs::read(path).map_err(|error| format!("{path}: {error}"));
        let ours = path_of_unified(&read("/proc/self/cgroup")?).ok_or("this kernel has no cgroup v2")?;
        let mounts = read("/proc/self/mountinfo")?;
        let directory = place_in(&mounts, &ours).ok_or("no cgroup v2 that we are in is mounted here")?;
        // The root alone has no such file.
        if !directory.join("cgroup.events").exists() {
            return Err("we are in the root of all cgroups, which is nobody's".to_owned());
        }
        if Path::new(SYSTEMD).exists() && !is_marked(&directory) {
            return Err(format!("systemd did not delegate {} (Delegate=yes)", directory.display()));
        }
        Self::take(directory)
    }

    /// Tries whether cgroups can be made below this one, and processes moved into them.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn take(directory: PathBuf) -> Result<Self, String> {
        let failed = |error: io::Error| format!("{}: {error}", directory.display());
        // Who moves a process has to be allowed to write in the cgroup that both ends have in common.
        rustix::fs::access(directory.join("cgroup.procs"), rustix::fs::Access::WRITE_OK)
            .map_err(|error| failed(error.into()))?;
        let probe = directory.join(format!("probe.{}", std::process::id()));
        fs::create_dir(&probe).map_err(failed)?;
        fs::remove_dir(&probe).map_err(failed)?;
        Ok(Self { directory })
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The cgroup of the run of this step that this process leads, whether or not it is there.
    ///
    /// It is named after the step and the process, so that it is found after a crash without a record of its name.
    pub fn held(&self, step: &str, leader: Process) -> Held {
        Held { directory: self.directory.join(name(step, leader)) }
    }

    /// The process that leads or led a run of this step, by the cgroup that it entered, which is not empty: the first of
    /// those that began at this moment or later.
    pub fn led_since(&self, step: &str, since: Moment) -> Option<Process> {
        // A process begins within the tick that is told of it.
        let since = (since.as_millis() / MILLIS_A_TICK).saturating_sub(1);
        let entries = fs::read_dir(&self.directory).ok()?;
        let leaders = entries.flatten().filter_map(|entry| {
            let leader = leader_of(&entry.file_name())?;
            let is_it = leader.start_ticks >= since && entry.file_name() == OsStr::new(&name(step, leader));
            (is_it && Held { directory: entry.path() }.is_populated()).then_some(leader)
        });
        leaders.min_by_key(|leader| leader.start_ticks)
    }

    /// Removes the empty cgroups of runs that a daemon before us began. One whose leader lives may be about to be
    /// entered.
    pub fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        for entry in entries.flatten() {
            if let Some(leader) = leader_of(&entry.file_name())
                && Stat::of(leader.pid).is_none_or(|stat| stat.start_ticks != leader.start_ticks)
            {
                Held { directory: entry.path() }.remove();
            }
        }
    }
}

/// The cgroup of one run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    directory: PathBuf,
}

impl Held {
    /// Makes the cgroup of a run and moves this process into it, before it becomes the run's program. Some
    /// milliseconds: the kernel waits until nobody is forking (7 ms were measured).
    ///
    /// # Errors
    /// The system's. Nothing is left behind then.
    pub fn enter(delegated: &Path, step: &str, us: Process) -> io::Result<()> {
        let directory = delegated.join(name(step, us));
        fs::create_dir(&directory)?;
        fs::write(directory.join("cgroup.procs"), "0").inspect_err(|_| {
            let _ = fs::remove_dir(&directory);
        })
    }

    /// Whether it is there: its run entered it, and it has not been removed yet.
    pub fn is_there(&self) -> bool {
        self.directory.is_dir()
    }

    /// The processes in it and below it. Zombies are in no cgroup.
    pub fn pids(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        for directory in self.all() {
            let listed = fs::read(directory.join("cgroup.procs")).unwrap_or_default();
            pids.extend(parse_pids(&listed));
        }
        pids
    }

    /// Kills everything in it at once, what is forking right now too (`cgroup.kill`, Linux 5.14). Returns whether the
    /// kernel can.
    pub fn kill(&self) -> bool {
        fs::write(self.directory.join("cgroup.kill"), "1").is_ok()
    }

    /// Removes it if it is empty.
    pub fn remove(&self) {
        if self.is_populated() {
            return;
        }
        for directory in self.all().into_iter().rev() {
            let _ = fs::remove_dir(directory);
        }
    }

    /// Whether anyone is in it or below it.
    pub fn is_populated(&self) -> bool {
        fs::read(self.directory.join("cgroup.events")).is_ok_and(|events| parse_populated(&events))
    }

    /// It and those below it, each before its own.
    fn all(&self) -> Vec<PathBuf> {
        let mut all = vec![self.directory.clone()];
        let mut at = 0;
        while let Some(directory) = all.get(at) {
            let below = fs::read_dir(directory).into_iter().flatten().flatten();
            let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            let below: Vec<PathBuf> = below.map(|entry| entry.path()).take(MOST_BELOW - all.len()).collect();
            all.extend(below);
            at += 1;
        }
        all
    }
}

/// `save.4711.98765`: the step, the process that leads the run, and when it began.
fn name(step: &str, leader: Process) -> String {
    let step: String = step.chars().map(|letter| if is_plain(letter) { letter } else { '_' }).take(64).collect();
    format!("{step}.{}.{}", leader.pid, leader.start_ticks)
}

const fn is_plain(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_')
}

/// After whom a cgroup is named; `None` where it is none of ours.
fn leader_of(name: &OsStr) -> Option<Process> {
    let mut parts = name.to_str()?.split('.');
    let step = parts.next()?;
    let leader = Process { pid: parts.next()?.parse().ok()?, start_ticks: parts.next()?.parse().ok()? };
    (step.chars().all(is_plain) && parts.next().is_none()).then_some(leader)
}

/// Our path in the hierarchy of version 2: the line of `/proc/self/cgroup` that begins with `0::` (cgroups(7)).
fn path_of_unified(content: &[u8]) -> Option<PathBuf> {
    let line = content.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
    // What was removed while we were in it can hold no other.
    (line.starts_with(b"/") && !line.ends_with(b" (deleted)")).then(|| PathBuf::from(OsStr::from_bytes(line)))
}

/// Where a path of the hierarchy is seen, by `/proc/self/mountinfo` (proc_pid_mountinfo(5)): its fields are numbers,
/// the root of what is mounted, the place, options, a lone dash, and the type.
fn place_in(mounts: &[u8], path: &Path) -> Option<PathBuf> {
    mounts.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let root = unescaped(fields.nth(3)?);
        let place = unescaped(fields.next()?);
        fields.find(|field| *field == b"-")?;
        if fields.next()? != b"cgroup2" {
            return None;
        }
        let below = path.strip_prefix(&root).ok()?;
        let is_inside = below.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        is_inside.then(|| if below.as_os_str().is_empty() { place.clone() } else { place.join(below) })
    })
}

/// Undoes the octal escapes of blanks and backslashes.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.first_chunk::<3>().filter(|_| *first == b'\\');
        let escaped = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        plain.push(escaped.unwrap_or(*first));
        rest = tail.get(if escaped.is_some() { 3 } else { 0 }..).unwrap_or_default();
    }
    PathBuf::from(OsString::from_vec(plain))
}

fn parse_pids(listed: &[u8]) -> impl Iterator<Item = u32> {
    // A process that our pid namespace does not see is listed as 0.
    let lines = listed.split(|byte| *byte == b'\n');
    lines.filter_map(|line| std::str::from_utf8(line).ok()?.parse().ok()).filter(|pid| *pid != 0)
}

fn parse_populated(events: &[u8]) -> bool {
    events.split(|byte| *byte == b'\n').any(|line| line == b"populated 1")
}

fn is_marked(directory: &Path) -> bool {
    MARKS_OF_DELEGATION.iter().any(|mark| {
        let mut value = [0; 8];
        rustix::fs::getxattr(directory, *mark, value.as_mut_slice())
            .is_ok_and(|length| value.get(..length) == Some(b"1"))
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may")]
    use super::*;

    fn place(mounts: &str, path: &str) -> Option<String> {
        place_in(mounts.as_bytes(), Path::new(path)).map(|place| place.to_str().unwrap().to_owned())
    }

    #[test]
    fn our_path_is_that_of_version_2_alone() {
        let path = |text: &str| path_of_unified(text.as_bytes()).map(|path| path.to_str().unwrap().to_owned());
        assert_eq!(path("0::/system.slice/w.service\n").unwrap(), "/system.slice/w.service");
        assert_eq!(path("9:name=systemd:/x\n1:cpu:/0::/y\n0::/\n").unwrap(), "/");
        assert_eq!(path("4:memory:/x\n"), None);
        assert_eq!(path("0::/gone (deleted)\n"), None);
        assert_eq!(path(""), None);
    }

    #[test]
    fn a_path_is_found_where_its_hierarchy_is_mounted() {
        let debian = "25 30 0:23 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n\
                      34 25 0:29 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(place(debian, "/system.slice/w.service").unwrap(), "/sys/fs/cgroup/system.slice/w.service");
        assert_eq!(place(debian, "/").unwrap(), "/sys/fs/cgroup");
        // Both versions side by side, with optional fields of any number.
        let hybrid = "40 31 0:37 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw shared:1 master:2 - cgroup2 cgroup2 rw\n";
        assert_eq!(place(hybrid, "/a").unwrap(), "/sys/fs/cgroup/unified/a");
        // A container that sees a part of it, under a name with a blank.
        let part = "41 31 0:38 /docker/abc /my\\040cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(place(part, "/docker/abc/d").unwrap(), "/my cgroup/d");
        assert_eq!(place(part, "/docker/other"), None);
        // One outside of our namespace's root.
        assert_eq!(place(debian, "/../outside"), None);
        for cut in 0..debian.len() {
            let _ = place(&debian[..cut], "/");
        }
    }

    #[test]
    fn names_hold_nothing_that_a_path_could_be_made_of_and_are_known_again() {
        let leader = Process { pid: 4711, start_ticks: 98765 };
        assert_eq!(name("save", leader), "save.4711.98765");
        assert_eq!(name("../a b/ä", leader), "___a_b__.4711.98765");
        assert_eq!(name(&"x".repeat(300), leader).len(), 64 + ".4711.98765".len());
        for step in ["save", "../a b/ä", ""] {
            assert_eq!(leader_of(OsStr::new(&name(step, leader))), Some(leader), "{step}");
        }
        for other in ["main", "save.1", "probe.4711", "init.scope", "a.b.1.2", "save.1.x", "save.x.1"] {
            assert_eq!(leader_of(OsStr::new(other)), None, "{other}");
        }
    }

    #[test]
    fn a_run_is_found_by_the_cgroup_that_it_entered_and_not_by_that_of_an_earlier_attempt() {
        let place = tempfile::tempdir().unwrap();
        for (name, populated) in
            [("save.10.500", 1), ("save.11.900", 0), ("save.12.1001", 1), ("save.13.1002", 1), ("load.14.1001", 1)]
        {
            fs::create_dir(place.path().join(name)).unwrap();
            fs::write(place.path().join(name).join("cgroup.events"), format!("populated {populated}\nfrozen 0\n"))
                .unwrap();
        }
        let delegated = Delegated { directory: place.path().to_owned() };
        let led = |step: &str, since| delegated.led_since(step, Moment::from_millis(since)).map(|leader| leader.pid);
        assert_eq!(led("save", 10_010), Some(12), "the eldest since then");
        assert_eq!(led("save", 10_019), Some(12), "within the tick");
        assert_eq!(led("save", 4_000), Some(10));
        assert_eq!((led("save", 20_000), led("other", 0)), (None, None));
    }

    #[test]
    fn lists_of_processes_are_read_and_those_of_other_namespaces_left_out() {
        assert_eq!(parse_pids(b"1\n0\n4711\n\nx\n").collect::<Vec<_>>(), [1, 4711]);
        assert!(parse_populated(b"populated 1\nfrozen 0\n"));
        assert!(!parse_populated(b"populated 0\nfrozen 1\n"));
        assert!(!parse_populated(b""));
    }
}
