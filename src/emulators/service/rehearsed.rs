//! A metadata service as a rehearsal plays it: on loopback, with the machine's own facts.

use super::{ActiveTimes, Emulator, Script, ScriptedNotice, ServiceRow, StatedTime, serve};
use crate::emulators::{EmulatedNotice, EmulatedSource, EmulationSetting, SourceKeys};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

#[derive(Debug)]
struct RehearsedService {
    emulator: Emulator,
    keys: SourceKeys,
    _serving: AbortOnDropHandle<io::Result<()>>,
}

impl ServiceRow {
    /// Begins to play it on loopback, as the service of this machine, for a source with these keys.
    pub(in crate::emulators) async fn rehearse(
        &'static self,
        setting: EmulationSetting<'_>,
        keys: fn(SocketAddr, EmulationSetting<'_>) -> io::Result<SourceKeys>,
    ) -> io::Result<Box<dyn EmulatedSource>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = keys(listener.local_addr()?, setting)?;
        let keys = (self.window)(setting.window).into_iter().chain(address).collect();
        let mut script = Script::default();
        for (key, value) in setting.machine.map(self.machine).unwrap_or_default() {
            script.set(key, value);
        }
        let emulator = Emulator::new(self, script);
        let serving = AbortOnDropHandle::new(tokio::spawn(serve(listener, emulator.clone())));
        Ok(Box::new(RehearsedService { emulator, keys, _serving: serving }))
    }
}

impl EmulatedSource for RehearsedService {
    fn keys(&self) -> SourceKeys {
        self.keys.clone()
    }

    fn give(&self, EmulatedNotice { kind, window }: EmulatedNotice) -> io::Result<()> {
        let active = ActiveTimes::from(self.emulator.elapsed());
        let notice = ScriptedNotice { time: Some(StatedTime::After(window)), ..ScriptedNotice::new(kind, active) };
        self.emulator.change(|script| script.notices.push(notice));
        Ok(())
    }

    fn withdraw(&self) -> io::Result<()> {
        self.emulator.withdraw();
        Ok(())
    }
}
