//! A guest's standard output and error: into the log line by line, or, where `stdout` is granted,
//! to the agent's own standard output.

use std::io::Write;
use std::pin::Pin;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use super::log::GuestLog;
use bytes::Bytes;

/// Bytes of a line that is not complete yet; longer ones are cut.
const LINE: usize = 4096;

/// Splits what is written into lines of the log.
#[derive(Clone)]
pub(super) struct LineLog {
    log: Arc<GuestLog>,
    partial: Arc<Mutex<Vec<u8>>>,
}

impl LineLog {
    pub(super) fn new(log: Arc<GuestLog>) -> Self {
        Self { log, partial: Arc::default() }
    }

    fn write(&self, bytes: &[u8]) {
        let Ok(mut partial) = self.partial.lock() else { return };
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, complete) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let room = LINE.saturating_sub(partial.len());
            partial.extend_from_slice(&text[..text.len().min(room)]);
            if complete {
                self.emit(&mut partial);
            }
        }
    }

    /// The last line need not end in a line feed: said by the host after each call.
    pub(super) fn flush(&self) {
        if let Ok(mut partial) = self.partial.lock() {
            self.emit(&mut partial);
        }
    }

    fn emit(&self, partial: &mut Vec<u8>) {
        if !partial.is_empty() {
            self.log.output_line(&String::from_utf8_lossy(partial));
            partial.clear();
        }
    }
}

impl IsTerminal for LineLog {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LineLog {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for LineLog {
    async fn ready(&mut self) {}
}

impl OutputStream for LineLog {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        LineLog::write(self, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(LINE)
    }
}

/// The agent's standard output, behind a thread: a reader that has stopped reading must stop
/// the plugin that writes, and nobody else.
#[derive(Clone)]
pub(super) struct Stdout;

/// Chunks that may wait for a slow reader.
const CHUNKS: usize = 16;
const CHUNK: usize = 64 * 1024;

struct Writer {
    chunks: SyncSender<Bytes>,
    /// Why writing has ended, once it has.
    ended: Arc<OnceLock<String>>,
    /// Chunks that are not written yet.
    waiting: Arc<(Mutex<usize>, std::sync::Condvar)>,
}

fn writer() -> &'static Writer {
    static WRITER: OnceLock<Writer> = OnceLock::new();
    WRITER.get_or_init(|| {
        let (chunks, incoming) = sync_channel::<Bytes>(CHUNKS);
        let ended = Arc::new(OnceLock::new());
        let waiting = Arc::new((Mutex::new(0), std::sync::Condvar::new()));
        let (fate, done) = (ended.clone(), waiting.clone());
        let body = move || {
            for chunk in incoming {
                let mut out = std::io::stdout().lock();
                if let Err(error) = out.write_all(&chunk).and_then(|()| out.flush()) {
                    // Set once; whoever writes next reads it.
                    fate.get_or_init(|| error.to_string());
                }
                if let Ok(mut count) = done.0.lock() {
                    *count -= 1;
                    done.1.notify_all();
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("stdout".to_owned()).spawn(body) {
            ended.get_or_init(|| error.to_string());
        }
        Writer { chunks, ended, waiting }
    })
}

/// Waits, at the end of the process, until what plugins wrote has been written.
pub fn drain_stdout(longest: Duration) {
    let writer = writer();
    if let Ok(count) = writer.waiting.0.lock() {
        drop(writer.waiting.1.wait_timeout_while(count, longest, |count| *count > 0));
    }
}

impl IsTerminal for Stdout {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stdout {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(Self)
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Self)
    }
}

impl AsyncWrite for Stdout {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        // Used by WASI 0.3 guests only, which this host does not run.
        Poll::Ready(std::io::stdout().write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Stdout {
    fn has_room() -> bool {
        writer().waiting.0.lock().is_ok_and(|count| *count < CHUNKS)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Stdout {
    async fn ready(&mut self) {
        // Only while a reader is slow, so a short poll costs nothing that matters.
        while !Self::has_room() && writer().ended.get().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl OutputStream for Stdout {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let writer = writer();
        if let Some(why) = writer.ended.get() {
            return Err(StreamError::LastOperationFailed(wasmtime::Error::msg(why.clone())));
        }
        if let Ok(mut count) = writer.waiting.0.lock() {
            *count += 1;
        }
        match writer.chunks.try_send(bytes) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                if let Ok(mut count) = writer.waiting.0.lock() {
                    *count -= 1;
                }
                Err(StreamError::Closed)
            }
        }
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        if let Some(why) = writer().ended.get() {
            return Err(StreamError::LastOperationFailed(wasmtime::Error::msg(why.clone())));
        }
        Ok(if Self::has_room() { CHUNK } else { 0 })
    }
}
