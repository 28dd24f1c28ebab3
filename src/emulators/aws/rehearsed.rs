//! EC2's metadata service as a rehearsal plays it: on loopback, with the machine's own facts.

use super::{EmulatedAction, Emulator, Script, StatedTime, serve};
use crate::emulators::{EmulatedNotice, EmulatedSource, EmulationSetting, EmulatorRow};
use crate::view::Machine;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// Its row in the table.
pub(in crate::emulators) const ROW: EmulatorRow =
    EmulatorRow { kind: "aws", start: |setting| Box::pin(start(setting)) };

#[derive(Debug)]
struct RehearsedService {
    emulator: Emulator,
    address: SocketAddr,
    _serving: AbortOnDropHandle<io::Result<()>>,
}

async fn start(setting: EmulationSetting<'_>) -> io::Result<Box<dyn EmulatedSource>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let emulator = Emulator::with_script(setting.machine.map(script).unwrap_or_default());
    let serving = AbortOnDropHandle::new(tokio::spawn(serve(listener, emulator.clone())));
    Ok(Box::new(RehearsedService { emulator, address, _serving: serving }))
}

/// A machine like this one, but for its lifecycle: an interruption is rehearsed, so it is played as a machine that can be
/// interrupted.
fn script(machine: &Machine) -> Script {
    let mut script = Script::default();
    script.set_item("instance-id", &machine.id);
    script.set_item("instance-type", &machine.machine_type);
    script.set_item("placement/region", &machine.region);
    script.set_item("placement/availability-zone", &machine.zone);
    if let Some(address) = machine.addresses.first() {
        script.set_item("local-ipv4", address.to_string());
    }
    script
}

impl EmulatedSource for RehearsedService {
    fn keys(&self) -> Vec<(&'static str, String)> {
        vec![("metadata-endpoint", format!("http://{}", self.address))]
    }

    fn give(&self, notice: EmulatedNotice) -> io::Result<()> {
        self.emulator.interrupt(EmulatedAction::Terminate, StatedTime::After(notice.window));
        Ok(())
    }

    fn withdraw(&self) -> io::Result<()> {
        self.emulator.withdraw();
        Ok(())
    }
}
