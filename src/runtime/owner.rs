//! Whose state lies in the state directory. `machine.json` in it names the machine that all beside it is about; a
//! directory that came here with an image, a moved volume or a shared claim holds another machine's episodes, and nothing
//! of those is to be done here.
//!
//! The cloud's name of the machine decides where one is known. Until it is, for 30 s at most, nothing is made of what was
//! found. Where no cloud says a name, the identity of this boot and that of the operating system decide.

use crate::engine::{BootId, Event, Importance, Input, NoticeKind, Policy, Signal};
use crate::store::journal::{self, Record};
use crate::store::{self, FileMode, FileSync};
use crate::view::Machine;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The file's name in the state directory.
const NAME: &str = "machine.json";

/// The largest file that is read, in bytes.
const LARGEST: u64 = 16 * 1024;

/// How long a start waits for the cloud to say which machine this is.
const IDENTITY_WITHIN: Duration = Duration::from_secs(30);

/// How long what is to be done in this very boot waits for it, where the metadata service neither answers nor fails.
const RESCUE_WITHIN: Duration = Duration::from_secs(5);

/// What in a state directory is about its machine, what is acted upon first.
pub(super) const ENTRIES: [&str; 6] =
    ["episodes", "notifications", "reports", "memory.json", "measured.json", "rehearsals"];

/// How many machines' entries stay set aside.
const KEPT_ASIDE: usize = 5;

/// Whose a state directory is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct MachineIdentity {
    /// The machine, as its cloud tells it.
    machine: Machine,
    /// What the operating system calls it (machine-id(5)); an image may carry it to many machines.
    machine_id: String,
    /// The boot in which the directory was used last.
    boot: String,
}

impl MachineIdentity {
    /// This machine, as far as it knows itself.
    pub(super) fn here(boot: &BootId) -> Self {
        let mut text = String::new();
        // A container may have a link there.
        let read = File::open("/etc/machine-id").and_then(|file| file.take(64).read_to_string(&mut text));
        let machine_id = if read.is_ok() { text.trim().to_owned() } else { String::new() };
        Self { machine: Machine::default(), machine_id, boot: boot.as_str().to_owned() }
    }

    /// The same, as the cloud tells it.
    pub(super) fn with(self, machine: Machine) -> Self {
        Self { machine, ..self }
    }

    fn read(state_directory: &Path) -> Option<Self> {
        serde_json::from_str(&store::read_text(&state_directory.join(NAME), LARGEST).ok()?).ok()
    }

    /// What the records of an episode tell of it.
    fn of(records: &[Record]) -> Self {
        let named = records.iter().find_map(|record| {
            let Event::NoticeAppeared { notice, .. } = &record.event else { return None };
            Some(notice.key.machine.as_str().to_owned()).filter(|name| !name.is_empty())
        });
        let boot = records.iter().rev().find_map(|record| {
            let (Event::EpisodeOpened { boot, .. } | Event::EpisodeRecovered { boot }) = &record.event else {
                return None;
            };
            Some(boot.as_str().to_owned())
        });
        let machine = Machine { id: named.unwrap_or_default(), ..Machine::default() };
        Self { machine, machine_id: String::new(), boot: boot.unwrap_or_default() }
    }
}

/// What a start finds in the state directory, before anything is made of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FoundState {
    /// Whose it is; nothing where nothing says it.
    owner: Option<Box<MachineIdentity>>,
    /// Whether an episode is open in it, or a notice that was handed in waits in it.
    has_work: bool,
}

impl FoundState {
    /// Looks, and changes nothing. It waits for the disk.
    pub(super) fn look(state_directory: &Path) -> Self {
        if !ENTRIES.iter().any(|name| fs::symlink_metadata(state_directory.join(name)).is_ok()) {
            return Self::default();
        }
        let newest = journal::past(state_directory, 1, |_| false).pop().unwrap_or_default();
        let told = Some(MachineIdentity::of(&newest)).filter(|_| !newest.is_empty());
        let owner = match (MachineIdentity::read(state_directory), told) {
            // It was not written down in time, but the notices that were acted upon have it.
            (Some(owner), Some(told)) if owner.machine.id.is_empty() => {
                Some(MachineIdentity { machine: told.machine, ..owner })
            }
            (owner, told) => owner.or(told),
        };
        Self { owner: owner.map(Box::new), has_work: has_work(&newest) }
    }

    /// The machine that the state is about.
    pub(super) fn machine(&self) -> Machine {
        self.owner.as_ref().map(|owner| owner.machine.clone()).unwrap_or_default()
    }
}

/// Whether these records leave an episode open, or a notice that waits.
fn has_work(records: &[Record]) -> bool {
    let mut is_open = false;
    let mut waiting = BTreeSet::new();
    for record in records {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the others leave that as it is")]
        match &record.event {
            Event::SegmentStarted { deferred, .. } => waiting.extend(deferred.iter().map(|it| &it.notice.key)),
            Event::NoticeDeferred { deferred } => {
                waiting.insert(&deferred.notice.key);
            }
            Event::DeferralEnded { key, .. } => {
                waiting.remove(key);
            }
            Event::NoticeAppeared { notice, .. } => {
                waiting.remove(&notice.key);
            }
            Event::EpisodeOpened { .. } => is_open = true,
            Event::EpisodeClosed { .. } => is_open = false,
            _ => {}
        }
    }
    is_open || !waiting.is_empty()
}

/// Whose the state is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum StateOwner {
    /// This machine's.
    Ours,
    /// Not this machine's, or not known to be.
    Other(OtherMachine),
}

/// Another machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct OtherMachine {
    /// What names it in file names.
    label: String,
    /// Why the state is taken for another's, in a clause.
    reason: String,
}

/// The state may be another machine's, which the cloud is about to tell.
#[derive(Debug)]
pub(super) struct UnsettledOwner {
    owner: MachineIdentity,
    has_work: bool,
    here: MachineIdentity,
    since: Instant,
    /// Whether the state was taken for ours until the cloud says otherwise.
    pub(super) is_taken_for_ours: bool,
}

/// Whose the state is, as far as it can be told without waiting.
pub(super) fn at_start(
    found: &FoundState,
    here: &MachineIdentity,
    is_cloud_asked: bool,
) -> Result<StateOwner, Box<UnsettledOwner>> {
    let Some(owner) = &found.owner else { return Ok(StateOwner::Ours) };
    if !is_cloud_asked || owner.machine.id.is_empty() {
        return Ok(by_local_identity(owner, here));
    }
    Err(Box::new(UnsettledOwner {
        owner: MachineIdentity::clone(owner),
        has_work: found.has_work,
        here: here.clone(),
        since: Instant::now(),
        is_taken_for_ours: false,
    }))
}

impl UnsettledOwner {
    /// Whose the state is, once that can be told, or can wait no longer because of this input. `named` is the cloud's name
    /// of this machine, empty while it is not known; `is_cloud_silent`, whether no cloud was found that could tell it.
    pub(super) fn settle(
        &self,
        named: &str,
        input: &Input,
        is_cloud_silent: bool,
        policy: &Policy,
        now: Instant,
    ) -> Option<StateOwner> {
        let MachineIdentity { machine, boot, .. } = &self.owner;
        let not_ours = |reason: String| Some(StateOwner::Other(OtherMachine { label: label(&machine.id), reason }));
        if !named.is_empty() {
            return if named == machine.id {
                Some(StateOwner::Ours)
            } else {
                not_ours(format!("it is of {}, and this machine is {named}", machine.id))
            };
        }
        if self.is_taken_for_ours {
            return None;
        }
        let waited = now.saturating_duration_since(self.since);
        if *boot == self.here.boot {
            // No other machine shares a boot with this one: what has to be done is done, though the cloud is silent.
            let is_hurried = self.has_work && (is_cloud_silent || is_silence(input) || waited >= RESCUE_WITHIN);
            let goes_on = is_hurried || is_request(input) || matches!(input, Input::Signalled { .. });
            return (goes_on || waited >= IDENTITY_WITHIN).then_some(StateOwner::Ours);
        }
        let shuts_down = matches!(input, Input::Signalled { signal: Signal::ShutDown })
            && policy.steps.iter().any(|step| step.on.contains(&NoticeKind::Shutdown));
        if is_request(input) || shuts_down {
            return not_ours("it could not be told in time to be this machine's".to_owned());
        }
        (waited >= IDENTITY_WITHIN).then(|| by_local_identity(&self.owner, &self.here))
    }
}

/// Whose the state is where no cloud says a name.
fn by_local_identity(owner: &MachineIdentity, here: &MachineIdentity) -> StateOwner {
    let is_same_system = !here.machine_id.is_empty() && owner.machine_id == here.machine_id;
    if owner.boot == here.boot || is_same_system {
        return StateOwner::Ours;
    }
    let name = if owner.machine.id.is_empty() { "another machine" } else { &owner.machine.id };
    let reason = format!("it is of {name}: neither its boot nor its machine-id is this machine's");
    StateOwner::Other(OtherMachine { label: label(&owner.machine.id), reason })
}

/// Whether something is asked of us that cannot wait.
fn is_request(input: &Input) -> bool {
    match input {
        Input::HandedIn { .. } | Input::TakenBack { .. } => true,
        Input::Answered { notices, .. } => !notices.is_empty(),
        Input::Restarted { .. }
        | Input::Unanswered { .. }
        | Input::NotOffered { .. }
        | Input::Acknowledged { .. }
        | Input::Signalled { .. }
        | Input::Resumed
        | Input::ScaleInWindow { .. }
        | Input::Remaining { .. }
        | Input::Spawned { .. }
        | Input::Ended { .. }
        | Input::Woke => false,
    }
}

/// Whether the cloud cannot be read.
fn is_silence(input: &Input) -> bool {
    matches!(input, Input::Unanswered { rank: Importance::Vital, .. })
}

/// What names a machine in file names; whatever does not belong there becomes `_`.
fn label(machine: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
    if machine.is_empty() { "unknown".to_owned() } else { machine.chars().take(64).map(safe).collect() }
}

/// Puts another machine's state out of the way: `episodes` becomes `episodes.of-i-0abc`, and so on. Returns a sentence for
/// the log. A crash in between leaves the rest to the next start. It waits for the disk.
///
/// # Errors
/// Where the disk refuses; then nothing here may be used.
pub(super) fn set_aside(state_directory: &Path, other: &OtherMachine) -> io::Result<String> {
    let mut moved = Vec::new();
    for name in ENTRIES {
        let from = state_directory.join(name);
        if fs::symlink_metadata(&from).is_err() {
            continue;
        }
        let to = free_name(state_directory, &format!("{name}.of-{}", other.label));
        fs::rename(from, state_directory.join(&to))?;
        moved.push(to);
        forget_oldest(state_directory, &format!("{name}.of-"));
    }
    File::open(state_directory)?.sync_all()?;
    let reason = &other.reason;
    let place = state_directory.display();
    Ok(format!("the state in {place} is not used, {reason}; it was set aside there as {}", moved.join(", ")))
}

/// This name, or the first that is free of those that follow it.
fn free_name(directory: &Path, name: &str) -> String {
    let numbered = (2..=1_000).map(|number| format!("{name}.{number}"));
    let mut names = std::iter::once(name.to_owned()).chain(numbered);
    let is_free = |name: &String| fs::symlink_metadata(directory.join(name)).is_err();
    names.find(is_free).unwrap_or_else(|| name.to_owned())
}

/// Removes what was set aside first, beyond what is kept. A failure is left to the next time.
fn forget_oldest(directory: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let named = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    let mut aside: Vec<((i64, i64), PathBuf)> = named
        .filter_map(|entry| {
            let about = entry.metadata().ok()?;
            Some(((about.ctime(), about.ctime_nsec()), entry.path()))
        })
        .collect();
    aside.sort();
    for (_, path) in aside.iter().take(aside.len().saturating_sub(KEPT_ASIDE)) {
        let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    }
}

/// Keeps the machine's name written down beside its state, as more of it becomes known. Trouble is said and goes no further.
pub(super) async fn keep(state_directory: PathBuf, mut owner: watch::Receiver<Option<MachineIdentity>>) {
    let mut was_said = false;
    owner.mark_changed();
    while owner.changed().await.is_ok() {
        let Some(owner) = owner.borrow_and_update().clone() else { continue };
        let place = state_directory.join(NAME);
        let writing = tokio::task::spawn_blocking(move || {
            store::replace(&place, &serde_json::to_vec(&owner)?, FileMode::AtMost(0o600), FileSync::ToDisk)
        });
        if let Ok(Err(error)) = writing.await
            && !std::mem::replace(&mut was_said, true)
        {
            let place = state_directory.display();
            tracing::warn!("whose state lies in {place} could not be written down: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;
    use crate::engine::{
        Deadline, DeadlineBasis, DeferralEnd, DeferredNotice, EpisodeId, Fault, Notice, NoticeAction, NoticeOrigin,
        ProbeName, SourceName, Stated,
    };
    use crate::runtime::clock;

    fn owner(id: &str, machine_id: &str, boot: &str) -> MachineIdentity {
        let machine = Machine { id: id.to_owned(), ..Machine::default() };
        MachineIdentity { machine, machine_id: machine_id.to_owned(), boot: boot.to_owned() }
    }

    fn found(owner: MachineIdentity) -> FoundState {
        FoundState { owner: Some(Box::new(owner)), has_work: true }
    }

    fn silence() -> Input {
        Input::Unanswered {
            source: SourceName::new("cloud"),
            probe: ProbeName::new("probe"),
            rank: Importance::Vital,
            fault: Fault { word: "silent".to_owned(), sentence: String::new() },
        }
    }

    fn notice() -> Input {
        let key = crate::engine::NoticeKey {
            source: SourceName::new("socket"),
            kind: NoticeKind::Interruption,
            machine: crate::engine::MachineId::new(""),
            event: String::new(),
        };
        Input::TakenBack { key }
    }

    const ENDS: Input = Input::Signalled { signal: Signal::ShutDown };

    #[test]
    fn where_no_cloud_says_a_name_the_boot_and_the_operating_system_decide() {
        let here = owner("", "m1", "b1");
        assert_eq!(at_start(&FoundState::default(), &here, true).unwrap(), StateOwner::Ours);
        for (left, is_cloud_asked, is_ours) in [
            (owner("i-1", "m2", "b1"), false, true),
            (owner("i-1", "m1", "b2"), false, true),
            (owner("i-1", "m2", "b2"), false, false),
            (owner("", "m1", "b2"), true, true),
            (owner("", "", "b2"), true, false),
        ] {
            let whose = at_start(&found(left.clone()), &here, is_cloud_asked).unwrap();
            assert_eq!(whose == StateOwner::Ours, is_ours, "{left:?}");
        }
        let nameless = at_start(&found(owner("", "", "b2")), &owner("", "", "b1"), false).unwrap();
        assert_ne!(nameless, StateOwner::Ours, "two systems without a name are not the same one");
    }

    #[test]
    fn the_cloud_decides_and_until_it_does_only_an_episode_of_this_boot_goes_on() {
        let mut policy = Policy::for_tests();
        for step in &mut policy.steps {
            step.on = BTreeSet::from([NoticeKind::Interruption]);
        }
        let here = owner("", "m1", "b1");
        let settled = |left: MachineIdentity, has_work: bool, named: &str, input: &Input, waited: u64| {
            let unsettled = at_start(&FoundState { has_work, ..found(left) }, &here, true).unwrap_err();
            let now = unsettled.since + Duration::from_secs(waited);
            unsettled.settle(named, input, false, &policy, now).map(|whose| whose == StateOwner::Ours)
        };
        let (this_boot, other_boot) = (|| owner("i-1", "m1", "b1"), || owner("i-1", "m1", "b2"));
        for left in [this_boot(), other_boot()] {
            assert_eq!(settled(left.clone(), true, "i-1", &Input::Woke, 0), Some(true));
            assert_eq!(settled(left.clone(), true, "i-2", &notice(), 0), Some(false));
            assert_eq!(settled(left, true, "", &Input::Woke, 4), None);
        }
        assert_eq!(settled(this_boot(), true, "", &silence(), 0), Some(true), "a rescue does not wait for the cloud");
        assert_eq!(settled(this_boot(), true, "", &Input::Woke, 5), Some(true));
        assert_eq!(settled(this_boot(), false, "", &silence(), 29), None, "nothing is in a hurry");
        assert_eq!(settled(this_boot(), false, "", &ENDS, 0), Some(true));
        assert_eq!(settled(other_boot(), true, "", &silence(), 29), None);
        assert_eq!(settled(other_boot(), true, "", &notice(), 1), Some(false), "it cannot wait");
        assert_eq!(settled(other_boot(), true, "", &ENDS, 1), None, "nobody wants to do anything");
        assert_eq!(settled(other_boot(), true, "", &Input::Woke, 30), Some(true), "its operating system is this one");
        assert_eq!(settled(owner("i-1", "m2", "b2"), true, "", &Input::Woke, 30), Some(false));
        for step in &mut policy.steps {
            step.on.insert(NoticeKind::Shutdown);
        }
        let unsettled = at_start(&found(other_boot()), &here, true).unwrap_err();
        assert_ne!(unsettled.settle("", &ENDS, false, &policy, unsettled.since), None);
        assert_ne!(unsettled.settle("", &ENDS, false, &policy, unsettled.since), Some(StateOwner::Ours));
    }

    #[test]
    fn what_was_taken_for_ours_is_given_up_once_the_cloud_says_another_name() {
        let mut unsettled = at_start(&found(owner("i-1", "m1", "b1")), &owner("", "m1", "b1"), true).unwrap_err();
        unsettled.is_taken_for_ours = true;
        let policy = Policy::for_tests();
        let much_later = unsettled.since + Duration::from_secs(3_600);
        assert_eq!(unsettled.settle("", &notice(), false, &policy, much_later), None);
        assert_eq!(unsettled.settle("i-1", &Input::Woke, false, &policy, much_later), Some(StateOwner::Ours));
        assert_ne!(unsettled.settle("i-2", &Input::Woke, false, &policy, much_later), Some(StateOwner::Ours));
    }

    #[test]
    fn what_is_set_aside_keeps_its_names_and_only_the_newest_stay() {
        let place = tempfile::tempdir().unwrap();
        let (path, others) = (place.path(), OtherMachine { label: label("../i 1"), reason: "it is of i-1".to_owned() });
        fs::write(path.join("lock"), "").unwrap();
        for round in 0..KEPT_ASIDE + 3 {
            fs::create_dir(path.join("episodes")).unwrap();
            fs::write(path.join("episodes/a.jsonl"), round.to_string()).unwrap();
            fs::create_dir(path.join("notifications")).unwrap();
            let said = set_aside(path, &others).unwrap();
            assert!(said.contains("it is of i-1") && said.contains("episodes.of-___i_1"), "{said}");
        }
        let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let episodes: Vec<_> = names.filter(|name| name.starts_with("episodes")).collect();
        assert_eq!(episodes.len(), KEPT_ASIDE, "{episodes:?}");
        assert!(path.join("lock").exists() && !path.join("episodes").exists() && !path.join("notifications").exists());
        assert_eq!(FoundState::look(path), FoundState::default());
    }

    #[test]
    fn a_notice_that_waits_is_work_until_it_is_acted_on_or_taken_back() {
        let Input::TakenBack { key } = notice() else { unreachable!("it is taken back") };
        let notice = Notice {
            key: key.clone(),
            action: NoticeAction::Unstated,
            stated: Stated::In(Duration::from_secs(60)),
            usual_window: None,
            origin: NoticeOrigin::HandedIn,
            detail: String::new(),
        };
        let (now, id) = (clock::now(), EpisodeId::new("0000"));
        let deadline = Deadline { at: now.moment, detected: now.moment, deadline_basis: DeadlineBasis::Stated };
        let deferred = DeferredNotice {
            notice: notice.clone(),
            probe: None,
            deadline,
            opens: now.moment,
            until: now.wall,
            boot: BootId::new("b1"),
        };
        let started = |deferred| Event::SegmentStarted { id: id.clone(), generation: 0, handled: Vec::new(), deferred };
        let waits = || Event::NoticeDeferred { deferred: Box::new(deferred.clone()) };
        let appeared = || Event::NoticeAppeared { notice: notice.clone(), deadline, probe: None };
        let taken_back = || Event::DeferralEnded {
            key: key.clone(),
            origin: NoticeOrigin::HandedIn,
            reason: DeferralEnd::Withdrawn,
        };
        for (events, is_left) in [
            (vec![started(Vec::new())], false),
            (vec![started(vec![deferred.clone()])], true),
            (vec![started(Vec::new()), waits()], true),
            (vec![started(Vec::new()), waits(), appeared()], false),
            (vec![started(vec![deferred.clone()]), taken_back()], false),
        ] {
            let records: Vec<Record> = events.into_iter().map(|event| Record { seq: 1, now, event }).collect();
            assert_eq!(has_work(&records), is_left, "{records:?}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_believed_names_nobody() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("notifications")).unwrap();
        for text in ["", "{", "[]", "{\"machine\":1}", "\u{0}"] {
            fs::write(place.path().join(NAME), text).unwrap();
            assert_eq!(FoundState::look(place.path()).owner, None, "{text}");
        }
        let owner = owner("i-1", "m1", "b1");
        fs::write(place.path().join(NAME), serde_json::to_vec(&owner).unwrap()).unwrap();
        assert_eq!(FoundState::look(place.path()).owner, Some(Box::new(owner)));
    }
}
