//! A receiver on loopback that counts lines and throws them away.

use std::io::Read;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// Listens until this process ends.
#[derive(Debug)]
pub(crate) struct Sink {
    pub(crate) port: u16,
    lines: Arc<AtomicU64>,
    first: Arc<OnceLock<Instant>>,
}

impl Sink {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let sink = Self {
            port: listener.local_addr().unwrap().port(),
            lines: Arc::default(),
            first: Arc::default(),
        };
        let (lines, first) = (sink.lines.clone(), sink.first.clone());
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let (lines, first) = (lines.clone(), first.clone());
                thread::spawn(move || {
                    let mut block = [0; 64 << 10];
                    while let Ok(read @ 1..) = stream.read(&mut block) {
                        first.get_or_init(Instant::now);
                        let ends = block[..read].iter().filter(|byte| **byte == b'\n').count();
                        lines.fetch_add(ends as u64, Ordering::Relaxed);
                    }
                });
            }
        });
        sink
    }

    pub(crate) fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    /// Waits for the first bytes: how long after `start` they came.
    pub(crate) fn first_after(&self, start: Instant) -> Duration {
        let begun = Instant::now();
        loop {
            if let Some(first) = self.first.get() {
                return first.duration_since(start);
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing ever came");
            thread::sleep(Duration::from_millis(2));
        }
    }
}
