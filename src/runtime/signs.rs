//! Reads the signs by which a machine tells which cloud it is on: what its firmware says, the names of variables, and what we
//! run in. Everything is bounded, and what cannot be read says nothing.
//!
//! `SPOT_TEST_ROOT`, for tests, names a directory that stands in for the root of the file system; and nobody beyond loopback
//! is asked, unless it has a file `asks-anybody`. It is compiled into debug builds only.

use crate::sources::detection::{ASSET_TAG, CONFIG_DRIVE, HYPERVISOR, MachineSigns, PRODUCT, Place, SERIAL, VENDOR};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Where each text is. DMI is as the kernel shows it, the serial number to root only.
const TEXTS: &[(&str, &str)] = &[
    (VENDOR, "sys/class/dmi/id/sys_vendor"),
    (PRODUCT, "sys/class/dmi/id/product_name"),
    (SERIAL, "sys/class/dmi/id/product_serial"),
    (ASSET_TAG, "sys/class/dmi/id/chassis_asset_tag"),
    (HYPERVISOR, "sys/hypervisor/uuid"),
];

/// The most bytes of a text.
const LONGEST_TEXT: u64 = 256;

/// The variables of the first process: those of a container are missing in a shell that a daemon in it gives.
const FIRST_PROCESS: &str = "proc/1/environ";

/// The most bytes of these.
const LONGEST_ENVIRONMENT: u64 = 256 * 1024;

/// Where the disk with OpenStack's metadata is.
const DRIVE: &str = "dev/disk/by-label/config-2";

/// What Docker, Podman and systemd put into a container.
const IN_A_CONTAINER: &[&str] = &[".dockerenv", "run/.containerenv", "run/systemd/container"];

/// The variable that Kubernetes gives each container.
const OF_A_POD: &str = "KUBERNETES_SERVICE_HOST";

/// The variable by which container managers say what they are (systemd's container interface).
const OF_A_CONTAINER: &str = "container";

/// The signs of this machine.
pub(super) fn here() -> MachineSigns {
    let variables = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    read(&test_root().unwrap_or_else(|| PathBuf::from("/")), variables.collect())
}

/// Whether this address may be asked: a test must not ask the machine that it runs on.
pub(super) fn may_ask(endpoint: &str) -> bool {
    let is_loopback = endpoint.starts_with("http://127.0.0.1");
    is_loopback || test_root().is_none_or(|root| root.join("asks-anybody").exists())
}

fn test_root() -> Option<PathBuf> {
    if cfg!(debug_assertions) { std::env::var_os("SPOT_TEST_ROOT").map(PathBuf::from) } else { None }
}

fn read(root: &Path, mut variables: BTreeSet<String>) -> MachineSigns {
    let bytes = |path: &str, most: u64| {
        let mut bytes = Vec::new();
        let read = File::open(root.join(path)).and_then(|file| file.take(most).read_to_end(&mut bytes));
        read.map(|_| bytes).unwrap_or_default()
    };
    let text = |path: &str| String::from_utf8_lossy(bytes(path, LONGEST_TEXT).trim_ascii()).into_owned();
    let texts = TEXTS.iter().map(|(name, path)| (*name, text(path)));
    let mut texts: BTreeMap<&'static str, String> = texts.filter(|(_, text)| !text.is_empty()).collect();
    let is_there = |path: &str| std::fs::symlink_metadata(root.join(path)).is_ok();
    if texts.is_empty() && is_there(DRIVE) {
        texts.insert(CONFIG_DRIVE, "config-2".to_owned());
    }
    let environment = bytes(FIRST_PROCESS, LONGEST_ENVIRONMENT);
    let names = environment.split(|byte| *byte == 0).filter_map(|entry| entry.split(|byte| *byte == b'=').next());
    let names = names.filter(|name| !name.is_empty());
    variables.extend(names.map(|name| String::from_utf8_lossy(name).into_owned()));
    let is_container = variables.contains(OF_A_CONTAINER) || IN_A_CONTAINER.iter().any(|path| is_there(path));
    let place = match is_container {
        _ if variables.contains(OF_A_POD) => Place::Pod,
        true => Place::Container,
        false => Place::Machine,
    };
    MachineSigns { texts, variables, place }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
    use super::*;
    use std::fs;

    fn signs(files: &[(&str, &str)], variables: &[&str]) -> MachineSigns {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        read(root.path(), variables.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn what_firmware_says_is_read_without_the_blanks_around_it() {
        let signs = signs(
            &[
                ("sys/class/dmi/id/sys_vendor", "Example Cloud \n"),
                ("sys/class/dmi/id/product_name", " \n"),
                (DRIVE, ""),
            ],
            &[],
        );
        assert_eq!(signs.texts, BTreeMap::from([(VENDOR, "Example Cloud".to_owned())]));
        assert_eq!(signs.place, Place::Machine);
    }

    #[test]
    fn a_machine_without_dmi_is_looked_at_for_a_disk_with_metadata() {
        assert_eq!(signs(&[(DRIVE, "")], &[]).texts, BTreeMap::from([(CONFIG_DRIVE, "config-2".to_owned())]));
        assert_eq!(signs(&[], &[]), MachineSigns::default());
    }

    #[test]
    fn the_variables_of_the_first_process_count_as_our_own_do_and_no_value_is_kept() {
        let signs = signs(&[(FIRST_PROCESS, "A_TOKEN=secret\0container=lxc\0broken\0=\0")], &["HOME"]);
        assert_eq!(signs.place, Place::Container);
        assert!(signs.variables.contains("A_TOKEN") && signs.variables.contains("HOME"));
        assert!(!format!("{signs:?}").contains("secret"));
    }

    #[test]
    fn a_container_and_a_pod_are_told_from_a_machine() {
        assert_eq!(signs(&[(".dockerenv", "")], &[]).place, Place::Container);
        assert_eq!(signs(&[(".dockerenv", "")], &[OF_A_POD]).place, Place::Pod);
    }
}
