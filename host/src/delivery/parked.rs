//! Keeps what waits for a handler that cannot run: whoever mends the config finds it on disk, within the
//! bounds of that handler's queue.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{rest, show_queue, show_spool};
use crate::backlog::Backlog;
use crate::clock::Clock;
use crate::outgoing::BatchForm;
use crate::status::PluginHandle;

/// A handler's place, without the handler.
#[derive(Debug)]
pub struct Parked {
    backlog: Backlog,
    status: PluginHandle,
    clock: Arc<dyn Clock>,
}

impl Parked {
    pub fn new(backlog: Backlog, status: PluginHandle, clock: Arc<dyn Clock>) -> Self {
        let shown = backlog.queue().clone();
        status.set_live(move |status| show_queue(&shown, status));
        Self { backlog, status, clock }
    }

    /// Runs until all senders are gone; nothing else is ever said. What has come by then is on disk.
    pub async fn serve(mut self, mut end: mpsc::Receiver<()>) {
        while !end.is_closed() {
            let due = self.backlog.spill_at().map(Duration::from_millis);
            tokio::select! {
                biased;
                _ = end.recv() => {}
                () = rest(&self.clock, due) => {}
                () = self.backlog.queue().woken() => continue,
            }
            // How its batches shall be formed is not known; whoever delivers them forms them anew.
            self.backlog.spill(Vec::new(), &BatchForm::default()).await;
            self.status.update(|status| show_spool(&self.backlog, status));
        }
    }
}
