//! A machine's place in a target group: the very words that it was registered with, and who we are there.

use crate::actions::HostInfo;
use aws_sdk_elasticloadbalancingv2::types::{TargetDescription, TargetHealthDescription, TargetHealthStateEnum};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// One registration. Registering and deregistering both have to name it exactly so.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct RegisteredTarget {
    /// An instance id or an address, after the group's target type.
    pub(super) id: String,
    /// The port that it listens on; absent only where we do not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) port: Option<i32>,
    /// `all` for an address outside the group's network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) zone: Option<String>,
    /// The server id of a QUIC target of an NLB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) quic: Option<String>,
}

impl RegisteredTarget {
    /// A target of which only the id is known.
    pub(super) fn named(id: &str) -> Self {
        Self { id: id.to_owned(), port: None, zone: None, quic: None }
    }

    /// As the SDK wants it.
    pub(super) fn description(&self) -> TargetDescription {
        TargetDescription::builder()
            .id(&self.id)
            .set_port(self.port)
            .set_availability_zone(self.zone.clone())
            .set_quic_server_id(self.quic.clone())
            .build()
    }
}

impl fmt::Display for RegisteredTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.port, self.id.contains(':')) {
            (Some(port), false) => write!(f, "{}:{port}", self.id),
            (Some(port), true) => write!(f, "[{}]:{port}", self.id),
            (None, _) => f.write_str(&self.id),
        }
    }
}

/// What a group has of this machine.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Registrations {
    /// It may get requests there.
    pub(super) registered: Vec<RegisteredTarget>,
    /// It was deregistered there and finishes what it has.
    pub(super) draining: Vec<RegisteredTarget>,
}

/// Whether nothing is known that this machine could go by in a target group.
pub(super) const fn is_unknown(host: &HostInfo) -> bool {
    host.machine.id.is_empty() && host.machine.addresses.is_empty()
}

/// Whether a target of this id is this machine.
fn is_ours(host: &HostInfo, id: &str) -> bool {
    // Addresses are compared as such: one IPv6 address has many spellings.
    !id.is_empty() && (id == host.machine.id || id.parse().is_ok_and(|id: IpAddr| host.machine.addresses.contains(&id)))
}

impl Registrations {
    /// Picks our registrations out of all that a group has.
    pub(super) fn among(all: &[TargetHealthDescription], host: &HostInfo) -> Self {
        let mut registrations = Self::default();
        for one in all {
            let Some(target) = one.target() else { continue };
            let Some(id) = target.id().filter(|id| is_ours(host, id)) else { continue };
            let ours = RegisteredTarget {
                id: id.to_owned(),
                port: target.port(),
                zone: target.availability_zone().map(str::to_owned),
                quic: target.quic_server_id().map(str::to_owned),
            };
            match one.target_health().and_then(|health| health.state()) {
                Some(TargetHealthStateEnum::Draining) => registrations.draining.push(ours),
                // Every other state, one that AWS may add included, can get requests or could soon.
                Some(_) | None => registrations.registered.push(ours),
            }
        }
        registrations.registered.sort();
        registrations.draining.sort();
        registrations
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Machine;
    use aws_sdk_elasticloadbalancingv2::types::TargetHealth;

    fn described(id: &str, port: i32, state: TargetHealthStateEnum) -> TargetHealthDescription {
        TargetHealthDescription::builder()
            .target(TargetDescription::builder().id(id).port(port).build())
            .target_health(TargetHealth::builder().state(state).build())
            .build()
    }

    #[test]
    fn our_registrations_are_known_by_instance_id_or_address_and_others_are_left_alone() {
        let host = HostInfo {
            machine: Machine {
                id: "i-0abc".into(),
                addresses: vec![IpAddr::from([10, 0, 0, 7]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 7])],
                ..Machine::default()
            },
            ..HostInfo::default()
        };
        let all = [
            described("i-0abc", 8001, TargetHealthStateEnum::Unhealthy),
            described("i-0abc", 8000, TargetHealthStateEnum::Healthy),
            described("i-0abcd", 8000, TargetHealthStateEnum::Healthy),
            described("10.0.0.7", 80, TargetHealthStateEnum::Unused),
            described("10.0.0.70", 80, TargetHealthStateEnum::Healthy),
            described("fd00:0::0:7", 80, TargetHealthStateEnum::Healthy),
            described("i-0abc", 9000, TargetHealthStateEnum::Draining),
            TargetHealthDescription::builder().build(),
        ];
        let registrations = Registrations::among(&all, &host);
        let shown =
            |targets: &[RegisteredTarget]| targets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(shown(&registrations.registered), "10.0.0.7:80 [fd00:0::0:7]:80 i-0abc:8000 i-0abc:8001");
        assert_eq!(shown(&registrations.draining), "i-0abc:9000");
    }

    #[test]
    fn an_unknown_machine_is_nobody_and_owns_no_target() {
        let nobody = HostInfo::default();
        assert!(is_unknown(&nobody));
        let others = [described("", 80, TargetHealthStateEnum::Healthy)];
        assert_eq!(Registrations::among(&others, &nobody), Registrations::default());
    }
}
