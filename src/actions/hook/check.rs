//! What `check` looks at for a hook: would it start here, as that user, and would what it saves survive?
//!
//! Nothing is changed and nothing is run. All of it happens on a thread of its own under a limit, since paths may lie
//! on mounts that hang.

use super::Hook;
use crate::actions::proof::anchored;
use crate::process::{
    User, bad_interpreter, cannot_become, find_program, find_user, groups_of, has_no_format, is_us, may,
};
use crate::view::{Finding, FindingLevel, error_text};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long looking may take.
const LIMIT: Duration = Duration::from_secs(5);

/// How an EC2 instance store names itself (EC2 User Guide, "NVMe device model").
const INSTANCE_STORE: &str = "Amazon EC2 NVMe Instance Storage";

/// The subject of these findings; who asks knows the step's name, and puts it there.
const SUBJECT: &str = "hook";

/// Looks whether a hook would work here.
pub(super) async fn look(hook: Hook) -> Vec<Finding> {
    let looking = tokio::task::spawn_blocking(move || findings(&hook));
    match tokio::time::timeout(LIMIT, looking).await {
        Ok(Ok(findings)) => findings,
        Ok(Err(_)) => vec![Finding::new(FindingLevel::Error, SUBJECT, "could not be looked at")],
        Err(_) => {
            let sentence = "its files could not be looked at within 5 s (does their mount answer?)";
            vec![Finding::new(FindingLevel::Error, SUBJECT, sentence)]
        }
    }
}

fn findings(hook: &Hook) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut say = |weight, sentence: String| found.push(Finding::new(weight, SUBJECT, sentence));
    let settings = hook.settings();
    let user = settings.user.as_deref().map(find_user).transpose().map_err(|it| it.why).and_then(|user| {
        if let Some(user) = &user
            && !is_us(user)
            && !rustix::process::geteuid().is_root()
        {
            return Err(cannot_become(&user.name));
        }
        Ok(user)
    });
    let user = user.unwrap_or_else(|why| {
        say(FindingLevel::Error, why);
        None
    });
    if let Some(directory) = &settings.working_directory {
        match fs::metadata(directory) {
            Ok(it) if it.is_dir() => {}
            Ok(_) => say(FindingLevel::Error, format!("its working directory {} is a file", directory.display())),
            Err(error) => {
                say(
                    FindingLevel::Error,
                    format!("its working directory {}: {}", directory.display(), error_text(&error)),
                );
            }
        }
    }
    let environment = hook.environment(std::env::vars_os(), &[], user.as_ref(), Vec::new()).unwrap_or_else(|why| {
        say(FindingLevel::Error, why);
        Default::default()
    });
    let program = settings.command.first().map_or("", String::as_str);
    let path = environment.get(OsStr::new("PATH")).map(|path| path.as_os_str());
    let back = hook.back().and_then(|back| back.settings().command.first());
    for (program, role) in [(Some(program), ""), (back.map(String::as_str), "its undo ")] {
        let Some(program) = program else { continue };
        match find_program(program, settings.working_directory.as_deref(), path) {
            Ok(file) => match wrong_with_program(&file, user.as_ref()) {
                Some(why) => say(FindingLevel::Error, format!("{role}{} {why}", file.display())),
                None => {
                    say(FindingLevel::Good, format!("{role}{} can be run", file.display()));
                    let as_root = user.as_ref().map_or(rustix::process::geteuid().is_root(), |user| user.uid.is_root());
                    if as_root && let Some(open) = open_to_all(&file) {
                        let sentence = format!(
                            "{} is run as root, and anybody may change {} (chmod o-w it)",
                            file.display(),
                            open.display()
                        );
                        say(FindingLevel::Warning, sentence);
                    }
                }
            },
            Err(why) if role.is_empty() => say(FindingLevel::Error, why),
            Err(why) => say(FindingLevel::Error, format!("its undo: {why}")),
        }
    }
    let Some(proof) = &settings.proof else {
        warn_of_instance_store(settings.working_directory.iter().cloned(), &mut say);
        return found;
    };
    let mut places: Vec<PathBuf> = settings.working_directory.iter().cloned().collect();
    if let Some(newer) = &proof.newer {
        let place = fixed_part(&anchored(newer, settings.working_directory.as_deref()));
        if !place.exists() {
            let sentence = format!("its proof looks below {}, which does not exist yet", place.display());
            say(FindingLevel::Warning, sentence);
        }
        places.push(place);
    }
    if let Some(sentence) = proof.ahead_of_the_clock(settings.working_directory.as_deref()) {
        say(FindingLevel::Warning, sentence);
    }
    warn_of_instance_store(places, &mut say);
    found
}

fn wrong_with_program(file: &Path, user: Option<&User>) -> Option<String> {
    let it = match fs::metadata(file) {
        Ok(it) => it,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Some("does not exist".to_owned());
        }
        Err(error) => return Some(format!("cannot be looked at: {}", error_text(&error))),
    };
    if it.is_dir() {
        return Some("is a directory".to_owned());
    }
    if !it.is_file() {
        return Some("is no regular file".to_owned());
    }
    if it.permissions().mode() & 0o111 == 0 {
        return Some("is not executable (chmod +x it)".to_owned());
    }
    if let Some(user) = user {
        let groups = groups_of(user).unwrap_or_else(|_| vec![user.gid]);
        if !may(user, &groups, &it, 1) {
            return Some(format!("may not be executed by user {} (see its mode and owner)", user.name));
        }
        for above in file.ancestors().skip(1) {
            if fs::metadata(above).is_ok_and(|above| !may(user, &groups, &above, 1)) {
                return Some(format!("cannot be reached by user {}: {} is closed to it", user.name, above.display()));
            }
        }
    } else if rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_err() {
        return Some("may not be executed by us (see its mode and owner, and whether its mount is noexec)".to_owned());
    }
    bad_interpreter(file).or_else(|| has_no_format(file)).map(|why| format!("cannot be run: {why}"))
}

/// The file, or a directory above it, that everybody may change; a sticky directory protects what is in it.
fn open_to_all(file: &Path) -> Option<&Path> {
    file.ancestors().find(|path| {
        fs::metadata(path).is_ok_and(|it| {
            let mode = it.permissions().mode();
            mode & 0o002 != 0 && !(it.is_dir() && mode & 0o1000 != 0)
        })
    })
}

/// The part of a pattern before its first wildcard, down to a directory.
fn fixed_part(pattern: &str) -> PathBuf {
    let fixed = pattern.find(['*', '?', '[']).map_or(pattern, |at| &pattern[..at]);
    let directory = fixed.rfind('/').map_or("", |at| &fixed[..at.max(1)]);
    PathBuf::from(if directory.is_empty() { "." } else { directory })
}

fn warn_of_instance_store(places: impl IntoIterator<Item = PathBuf>, say: &mut impl FnMut(FindingLevel, String)) {
    for place in places {
        let Some(device) = place.ancestors().find_map(|path| fs::metadata(path).ok()).map(|it| it.dev()) else {
            continue;
        };
        let block = format!("/sys/dev/block/{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
        if is_instance_store(Path::new(&block), 0) {
            let sentence = format!(
                "{} is on instance store, which is gone with the instance: save to EBS, FSx or S3",
                place.display()
            );
            say(FindingLevel::Warning, sentence);
        }
    }
}

/// Whether a block device of sysfs is on instance store, also below RAID, LVM or encryption.
fn is_instance_store(block: &Path, depth: u32) -> bool {
    let Ok(block) = fs::canonicalize(block) else { return false };
    let disk = if block.join("partition").exists() { block.parent().unwrap_or(&block) } else { &block };
    if fs::read_to_string(disk.join("device/model")).is_ok_and(|model| model.trim() == INSTANCE_STORE) {
        return true;
    }
    let mut below = fs::read_dir(disk.join("slaves")).into_iter().flatten().flatten();
    depth < 4 && below.any(|slave| is_instance_store(&slave.path(), depth + 1))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may")]
    use super::*;

    #[test]
    fn instance_store_is_known_below_a_raid_and_a_partition_too() {
        let sys = tempfile::tempdir().unwrap();
        let at = |name: &str| sys.path().join(name);
        for (disk, model) in
            [("nvme0n1", "Amazon Elastic Block Store  \n"), ("nvme1n1", "Amazon EC2 NVMe Instance Storage  \n")]
        {
            fs::create_dir_all(at(disk).join("device")).unwrap();
            fs::write(at(disk).join("device/model"), model).unwrap();
            let partition = at(disk).join(format!("{disk}p2"));
            fs::create_dir(&partition).unwrap();
            fs::write(partition.join("partition"), "2\n").unwrap();
        }
        for (raid, member) in [("md0", "nvme1n1/nvme1n1p2"), ("md1", "nvme0n1")] {
            fs::create_dir_all(at(raid).join("slaves")).unwrap();
            std::os::unix::fs::symlink(at(member), at(raid).join("slaves/member")).unwrap();
        }
        let is = |device: &str| is_instance_store(&at(device), 0);
        assert!(is("nvme1n1") && is("nvme1n1/nvme1n1p2") && is("md0"));
        assert!(!is("nvme0n1") && !is("nvme0n1/nvme0n1p2") && !is("md1") && !is("none"));
    }

    #[test]
    fn a_pattern_is_looked_for_below_its_fixed_part() {
        assert_eq!(fixed_part("/mnt/fsx/ckpt/*/DONE"), Path::new("/mnt/fsx/ckpt"));
        assert_eq!(fixed_part("/ckpt/step-?"), Path::new("/ckpt"));
        assert_eq!(fixed_part("/*"), Path::new("/"));
        assert_eq!(fixed_part("DONE"), Path::new("."));
    }
}
