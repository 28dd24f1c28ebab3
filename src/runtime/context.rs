//! What no event has, gathered for the view.

use super::executor::Executor;
use crate::actions::Rehearsal;
use crate::config::Settings;
use crate::view::{Context, Machine, Names, StepContext};

/// What is known before the machine is: the steps as they are configured, and what the machine calls itself.
pub fn configured(settings: &Settings, rehearsal: Rehearsal) -> Context {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let node = std::env::var("NODE_NAME").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| host.clone());
    let steps = settings.steps.iter().zip(&settings.policy.steps).map(|(step, policy)| StepContext {
        name: step.name.clone(),
        kind: step.kind.to_owned(),
        describe: step.action.describe(),
        needs: policy.needs,
        optional: policy.optional,
    });
    Context {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        rehearsal: rehearsal != Rehearsal::No,
        names: Names { host, node },
        steps: steps.collect(),
        ..Context::default()
    }
}

/// Takes in what is known of the machine by now. What an earlier run knew stays until the cloud has said it again.
pub(super) fn identify(context: &mut Context, machine: &Machine) {
    if !machine.id.is_empty() || context.machine.id.is_empty() {
        context.machine = machine.clone();
    }
}

/// Takes in which machine an earlier run of the daemon knew.
pub(super) fn recall(context: &mut Context, earlier: Machine, machine: &Machine) {
    context.machine = earlier;
    identify(context, machine);
}

/// Takes in what running steps have printed so far, and what was there before them.
pub(super) fn take_runs(context: &mut Context, executor: &Executor) {
    context.printed = executor.outputs();
    context.proof_before = executor.proofs_before();
}
