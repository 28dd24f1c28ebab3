//! Finds the processes of a container by their cgroup, and the one that is its main process.
//!
//! Every runtime puts a container into a cgroup of its own and names that after the container's id: `docker-ID.scope`,
//! `cri-containerd-ID.scope`, `libpod-ID.scope`, `/docker/ID`. No runtime is asked, so that none can hang.

use super::tree::ParentMap;
use crate::engine::Process;
use crate::process::Stat;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;

/// The least digits of an id: as many as runtimes print.
const LEAST_DIGITS: usize = 12;

/// The digits of a whole id.
const DIGITS: usize = 64;

/// The most that is read of a process's cgroups.
const CGROUPS: u64 = 64 * 1024;

/// Whether this may be a container's id, or the name of a cgroup.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && !matches!(name, "." | "..") && !name.contains('/') && !name.contains('\0')
}

/// The processes of a container, and in which cgroups each is.
pub(super) fn members(name: &str) -> Result<Vec<(Process, String)>, String> {
    let of = |pid: u32| {
        let mut cgroups = Vec::new();
        File::open(format!("/proc/{pid}/cgroup")).ok()?.take(CGROUPS).read_to_end(&mut cgroups).ok()?;
        let cgroups = String::from_utf8_lossy(&cgroups).into_owned();
        is_in(&cgroups, name).then_some(cgroups)
    };
    if of(std::process::id()).is_some() {
        return Err(format!(
            "the watchdog itself is in the cgroup {name}, so nobody is signalled: name the other container"
        ));
    }
    let found = Stat::pids().filter_map(|pid| {
        let cgroups = of(pid)?;
        let stat = Stat::of(pid).filter(Stat::is_alive)?;
        Some((Process { pid, start_ticks: stat.start_ticks }, cgroups))
    });
    Ok(found.collect())
}

/// The process that a container was begun with: the others are its children, or came later, as those of `docker exec` do.
///
/// # Errors
/// Those between which it cannot be told.
pub(super) fn main_process(found: &[(Process, String)], parents: &ParentMap) -> Result<Process, Vec<Process>> {
    let processes: Vec<Process> = found.iter().map(|(process, _)| *process).collect();
    let mut roots = parents.roots(&processes);
    roots.sort_by_key(|process| process.start_ticks);
    let places: BTreeSet<&str> =
        found.iter().filter(|(process, _)| roots.contains(process)).map(|(_, place)| place.as_str()).collect();
    match roots.as_slice() {
        [one] => Ok(*one),
        // Only in one container is the oldest the first.
        [first, second, ..] if places.len() == 1 && first.start_ticks < second.start_ticks => Ok(*first),
        _ => Err(roots),
    }
}

/// Whether one of the paths in `/proc/PID/cgroup` leads through the cgroup of this name, or of the container with this id.
fn is_in(cgroups: &str, name: &str) -> bool {
    let paths = cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.flat_map(|path| path.split('/')).any(|part| part == name || id_of(part).is_some_and(|id| is_id_of(name, id)))
}

/// The container's id in the name of its cgroup.
fn id_of(part: &str) -> Option<&str> {
    let id = part.strip_suffix(".scope").unwrap_or(part).rsplit('-').next()?;
    (id.len() == DIGITS && is_hex(id)).then_some(id)
}

fn is_id_of(name: &str, id: &str) -> bool {
    name.len() >= LEAST_DIGITS && is_hex(name) && id.starts_with(name)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_known_by_its_id_however_its_runtime_calls_the_cgroup() {
        let id = "4f1c".repeat(16);
        for cgroups in [
            format!("0::/system.slice/docker-{id}.scope\n"),
            format!("0::/system.slice/docker-{id}.scope/init.scope\n"),
            format!("0::/kubepods.slice/kubepods-podabc.slice/cri-containerd-{id}.scope\n"),
            format!("0::/../crio-{id}.scope\n"),
            format!("12:pids:/docker/{id}\n1:name=systemd:/docker/{id}\n0::/\n"),
            format!("0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope/container\n"),
        ] {
            assert!(is_in(&cgroups, &id) && is_in(&cgroups, &id[..12]), "{cgroups}");
            assert!(!is_in(&cgroups, &id[..11]) && !is_in(&cgroups, "4f1c4f1c4f1d"), "{cgroups}");
        }
        assert!(is_in("0::/vllm.slice/docker-x.scope\n", "vllm.slice"));
        assert!(!is_in("0::/vllm.slice\n", "vllm") && !is_in("", "x"));
        assert!(!is_in("vllm:cpu:/x\n", "vllm"), "a hierarchy is no cgroup");
    }

    #[test]
    fn the_main_process_is_the_one_that_came_first() {
        let found = |all: &[(u32, u64, &str)]| -> Vec<(Process, String)> {
            all.iter()
                .map(|(pid, ticks, place)| (Process { pid: *pid, start_ticks: *ticks }, (*place).to_owned()))
                .collect()
        };
        let main = |all: &[(u32, u64, &str)]| {
            main_process(&found(all), &ParentMap::default()).map(|it| it.pid).map_err(|roots| roots.len())
        };
        assert_eq!(main(&[(7, 50, "a")]), Ok(7));
        assert_eq!(main(&[(9, 90, "a"), (7, 50, "a")]), Ok(7), "the other is of an exec");
        assert_eq!(main(&[(9, 50, "a"), (7, 50, "a")]), Err(2));
        assert_eq!(main(&[(9, 90, "b"), (7, 50, "a")]), Err(2), "two containers");
        assert_eq!(main(&[]), Err(0));
    }

    #[test]
    fn a_name_is_one_part_of_a_path() {
        assert!(is_name("vllm.slice") && is_name("4f1c4f1c4f1c"));
        for wrong in ["", ".", "..", "a/b", "a\0b"] {
            assert!(!is_name(wrong), "{wrong:?}");
        }
    }
}
