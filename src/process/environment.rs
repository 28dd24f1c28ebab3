//! What a child process inherits of our environment.

use super::program::USUAL_PATH;
use super::user::User;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

/// What a program is started with: what it inherits, or where it is another user's, what that user has instead. `secret`
/// names what nobody inherits.
pub fn environment_for(
    ours: impl Iterator<Item = (OsString, OsString)>,
    secret: &[OsString],
    user: Option<&User>,
) -> BTreeMap<OsString, OsString> {
    match user {
        Some(user) => of_user(ours, user),
        None => inherited(ours, secret),
    }
}

/// Ours and systemd's, which are about us: a program that spoke to systemd in our name would confuse it.
fn is_about_us(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    matches!(name, "NOTIFY_SOCKET" | "WATCHDOG_PID" | "WATCHDOG_USEC")
        || name.starts_with("LISTEN_")
        || name.starts_with("SPOT_WATCHDOG_")
}

/// What we inherited, as far as it is for programs of our own user: without the variables that hold our own secrets.
fn inherited(ours: impl Iterator<Item = (OsString, OsString)>, secret: &[OsString]) -> BTreeMap<OsString, OsString> {
    ours.filter(|(name, _)| !is_about_us(name) && !secret.contains(name)).collect()
}

/// What the environment of another user's program starts from: of ours only where programs are found and the language,
/// since anything else may be secret or lead to what is ours alone.
fn of_user(ours: impl Iterator<Item = (OsString, OsString)>, user: &User) -> BTreeMap<OsString, OsString> {
    let mut environment: BTreeMap<_, _> = ours.filter(|(name, _)| name == "PATH" || name == "LANG").collect();
    environment.entry("PATH".into()).or_insert_with(|| USUAL_PATH.into());
    environment.insert("HOME".into(), user.dir.clone().into());
    environment.insert("SHELL".into(), user.shell.clone().into());
    environment.insert("USER".into(), user.name.clone().into());
    environment.insert("LOGNAME".into(), user.name.clone().into());
    environment
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may")]
    use super::*;

    #[test]
    fn what_is_about_us_is_not_inherited() {
        let ours = ["PATH", "NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "SPOT_WATCHDOG_STATE_DIR", "SPOT_PRICE"];
        let ours = ours.iter().chain(&["PAGER_URL"]).map(|name| (OsString::from(name), OsString::new()));
        let left = inherited(ours, &["PAGER_URL".into()]);
        assert_eq!(left.keys().collect::<Vec<_>>(), ["PATH", "SPOT_PRICE"]);
    }

    #[test]
    fn another_user_inherits_where_programs_are_and_the_language() {
        let user = User::from_uid(nix::unistd::Uid::effective()).unwrap().unwrap();
        let names = ["PATH", "LANG", "AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "XDG_RUNTIME_DIR", "LD_PRELOAD", "HOME"];
        let ours = || names.iter().map(|name| (OsString::from(name), OsString::from("ours")));
        let environment = of_user(ours(), &user);
        let names: Vec<_> = environment.keys().map(|name| name.to_str().unwrap()).collect();
        assert_eq!(names, ["HOME", "LANG", "LOGNAME", "PATH", "SHELL", "USER"]);
        assert_eq!(environment[OsStr::new("HOME")], user.dir.as_os_str());
        assert_eq!(of_user(std::iter::empty(), &user)[OsStr::new("PATH")], USUAL_PATH);
    }
}
