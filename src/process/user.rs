//! The user that a step names: looked up, become, and what files allow it.

use super::program::StartError;
use crate::view::error_text;
pub use nix::unistd::User;
use nix::unistd::{Gid, Uid, getgrouplist, setgid, setgroups, setuid};
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::MetadataExt;

/// Another user, as the kernel knows one. Looked up while we are still ourselves, so that nobody has to ask the name
/// service as the user.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct UserIds {
    user: u32,
    group: u32,
    groups: Vec<u32>,
}

impl UserIds {
    /// Those of a user whom we may become.
    pub(super) fn of(user: &User) -> Result<Self, StartError> {
        if !rustix::process::geteuid().is_root() {
            return Err(StartError::never(cannot_become(&user.name)));
        }
        let groups = groups_of(user)?.into_iter().map(Gid::as_raw).collect();
        Ok(Self { user: user.uid.as_raw(), group: user.gid.as_raw(), groups })
    }

    /// Becomes this user, in a session of its own: it must not reach the terminal that ours may have.
    pub(super) fn become_it(&self) -> Result<(), String> {
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        rustix::process::setsid()
            .map_err(|error| format!("could not start a new session: {}", error_text(&error.into())))?;
        setgroups(&groups)
            .and_then(|()| setgid(Gid::from_raw(self.group)))
            .and_then(|()| setuid(Uid::from_raw(self.user)))
            .map_err(|error| {
                let (user, why) = (self.user, error_text(&error.into()));
                format!("could not become user {user}: {why} (CAP_SETUID, CAP_SETGID?)")
            })
    }
}

/// All groups that a user is in.
///
/// # Errors
/// A sentence, where the system cannot tell.
pub fn groups_of(user: &User) -> Result<Vec<Gid>, String> {
    let name = CString::new(user.name.as_str()).map_err(|_| format!("`{}` is no user's name", user.name))?;
    getgrouplist(&name, user.gid)
        .map_err(|error| format!("could not look up the groups of user {}: {}", user.name, error_text(&error.into())))
}

/// The user of this name or number.
///
/// # Errors
/// Where there is none or the system cannot tell.
pub fn find_user(name: &str) -> Result<User, StartError> {
    let found = match name.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(name),
    };
    match found {
        Ok(Some(user)) => Ok(user),
        Ok(None) => Err(StartError::never(format!("there is no user `{name}` on this machine (see `getent passwd`)"))),
        Err(error) => Err(format!("could not look up user `{name}`: {}", error_text(&error.into())).into()),
    }
}

/// Whether this user is the one that we run as.
pub fn is_us(user: &User) -> bool {
    Uid::effective() == user.uid && (user.uid.is_root() || Gid::effective() == user.gid)
}

/// The sentence for a user that we have no right to become.
pub fn cannot_become(user: &str) -> String {
    format!("could not become user {user}: only root may (run the watchdog as root, or leave out `user`)")
}

/// Whether this user may do so (bits of 4 read, 2 write, 1 execute) with a file, by its permission bits.
pub fn may(user: &User, groups: &[Gid], file: &fs::Metadata, bits: u32) -> bool {
    let mode = file.mode();
    if user.uid.is_root() {
        return bits & 1 == 0 || file.is_dir() || mode & 0o111 != 0;
    }
    let shift = if file.uid() == user.uid.as_raw() {
        6
    } else if groups.iter().any(|group| group.as_raw() == file.gid()) {
        3
    } else {
        0
    };
    (mode >> shift) & bits == bits
}
