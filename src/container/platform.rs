//! Where containers run, as far as it tells how they end. Known by variables that only these places set.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

/// The grace where nothing is known, as Docker has it.
pub const USUAL_GRACE: Duration = Duration::from_secs(10);

/// A place where containers run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContainerPlatform {
    /// Its name, for people.
    pub name: &'static str,
    /// What it sets in each container.
    variable: &'static str,
    /// The time from the request to stop until the kill.
    pub grace: Duration,
    /// How a container ends there.
    pub ends: Ending,
}

/// How a container ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// By a request to stop and the grace, and no other notice comes.
    Asked,
    /// Without any notice.
    Sudden,
    /// By a request to stop, and a grace that its manifest says.
    ByManifest,
}

const PLATFORMS: [ContainerPlatform; 3] = [
    // Its documentation says 5 s between SIGTERM and SIGKILL; a second of it is left for the way of the signal.
    ContainerPlatform { name: "RunPod", variable: "RUNPOD_POD_ID", grace: Duration::from_secs(4), ends: Ending::Asked },
    ContainerPlatform { name: "Vast.ai", variable: "VAST_CONTAINERLABEL", grace: USUAL_GRACE, ends: Ending::Sudden },
    ContainerPlatform {
        name: "Kubernetes",
        variable: "KUBERNETES_SERVICE_HOST",
        grace: USUAL_GRACE,
        ends: Ending::ByManifest,
    },
];

/// The most that is read of the first process's variables, in bytes.
const MOST: u64 = 1 << 20;

impl ContainerPlatform {
    /// The one that we run on, by our own variables or by those of the first process: a login over SSH has none of the
    /// container's.
    pub fn here() -> Option<&'static Self> {
        let mut first = Vec::new();
        // Only root and the same user may read it.
        let _ = File::open("/proc/1/environ").and_then(|file| file.take(MOST).read_to_end(&mut first));
        let begins =
            |name: &str| first.split(|byte| *byte == 0).any(|entry| entry.starts_with(format!("{name}=").as_bytes()));
        Self::of(|name| std::env::var_os(name).is_some() || begins(name))
    }

    /// The one whose variable is set.
    pub fn of(is_set: impl Fn(&str) -> bool) -> Option<&'static Self> {
        PLATFORMS.iter().find(|platform| is_set(platform.variable))
    }
}
