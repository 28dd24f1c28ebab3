//! What the first process of a container tells us on our standard input: of the workload, and of its end.

use crate::actions::Watchable;
use crate::actions::workload::WorkloadState;
use crate::container::ContainerMessage;
use crate::engine::{Input, Process, Signal, Stated, shutdown_notice};
use crate::process::Stat;
use std::io;
use std::os::fd::AsFd;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc;

/// The most that it tells, in bytes.
const MOST: u64 = 4096;

/// The line from the first process.
#[derive(Debug)]
pub struct WorkloadLink(Receiver);

impl WorkloadLink {
    /// Takes over our standard input. To be called within the runtime.
    ///
    /// # Errors
    /// Where it is no pipe, so that nobody tells us anything.
    pub fn open() -> io::Result<Self> {
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(Self(Receiver::from_owned_fd(input)?))
    }

    /// Tells the loop and those who follow the workload, until the end.
    pub(super) async fn tell(self, workload: Watchable<WorkloadState>, inputs: mpsc::Sender<Input>) {
        let mut lines = BufReader::new(self.0.take(MOST)).lines();
        let mut is_stopping = false;
        while let Ok(Some(line)) = lines.next_line().await {
            let told = match ContainerMessage::parse(&line) {
                Some(ContainerMessage::Started(pid)) => {
                    let start_ticks = Stat::of(pid).map_or(0, |stat| stat.start_ticks);
                    workload.set(WorkloadState::Running(Process { pid, start_ticks }));
                    continue;
                }
                Some(ContainerMessage::Stop(left)) => {
                    is_stopping = true;
                    tracing::info!("asked to stop; SIGKILL follows in {}", crate::view::Spoken(left));
                    let notice = shutdown_notice(Stated::Exactly(left));
                    vec![Input::HandedIn { notice }, Input::Signalled { signal: Signal::ShutDown }]
                }
                Some(ContainerMessage::Exited(exit)) => {
                    tracing::info!("the workload has ended: {exit}");
                    workload.set(WorkloadState::Ended(exit));
                    if is_stopping { Vec::new() } else { vec![Input::Signalled { signal: Signal::Restart }] }
                }
                None => {
                    tracing::warn!("what the first process says cannot be read");
                    continue;
                }
            };
            for input in told {
                if inputs.send(input).await.is_err() {
                    return;
                }
            }
        }
        // It has died: nobody would tell us that we have to end.
        let _ = inputs.send(Input::Signalled { signal: Signal::Restart }).await;
    }
}
