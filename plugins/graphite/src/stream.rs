//! One connection, kept from batch to batch.
//!
//! ```text
//!            too old: finish, and retiring until the receiver has closed it
//!          ╭───────────────────────────╮
//!          ▼                           │
//! ──▶ not open ──connect──▶ open ──send batch──▶ open, `last` = the batch
//!          ▲                                        │
//!          ╰── closed by the receiver, or an error ─╯
//!              `last` is sent again, what went before it counts as unconfirmed
//! ```
//!
//! Uses: `unconfirmed`. The time is an argument.

use std::time::{Duration, Instant};

use handler_text::Lines;
use kimberlite_plugin_sdk::tcp::{Connection, NetError, Options};

use crate::unconfirmed::Unconfirmed;

/// What is known of the way to one receiver.
#[derive(Debug)]
pub(crate) struct Stream {
    /// The age at which a connection is replaced.
    old: Option<Duration>,
    open: Option<Open>,
    /// The batch sent last, kept until the next one shows that the connection still stands.
    last: Lines,
    /// All before `last`, of the same connection.
    earlier: Unconfirmed,
    /// One that was too old.
    retiring: Option<Retiring>,
    /// Of connections that broke; not yet reported.
    lost: u64,
}

/// A connection that has been finished: the receiver closes it, too, when it has read all of it.
#[derive(Debug)]
struct Retiring {
    connection: Connection,
    /// Samples that it carried last.
    samples: u64,
}

#[derive(Debug)]
struct Open {
    connection: Connection,
    since: Instant,
}

impl Stream {
    /// Connections are replaced when they are `old`; none: never.
    pub(crate) fn new(old: Option<Duration>) -> Self {
        Self {
            old,
            open: None,
            last: Lines::default(),
            earlier: Unconfirmed::default(),
            retiring: None,
            lost: 0,
        }
    }

    /// Sends `lines` and keeps them (what was in `lines` before is void then). Gives how many samples
    /// of earlier batches may be lost, each reported once.
    pub(crate) fn deliver(
        &mut self,
        address: &str,
        lines: &mut Lines,
        now: Instant,
    ) -> Result<u64, NetError> {
        self.look(now);
        let was_open = self.open.is_some();
        let mut sent = self.send(address, lines, now);
        if sent.is_err() && was_open {
            // The connection had broken without a sign; a new one may do.
            sent = self.send(address, lines, now);
        }
        sent?;
        self.earlier.add(self.last.samples(), self.last.text().len());
        std::mem::swap(&mut self.last, lines);
        Ok(std::mem::take(&mut self.lost))
    }

    /// Drops a connection that should not be used again.
    fn look(&mut self, now: Instant) {
        if self.retiring.as_mut().is_some_and(|retiring| retiring.connection.is_closed()) {
            self.retire();
        }
        let Some(open) = &mut self.open else { return };
        if open.connection.is_closed() {
            self.broke();
        } else if self.old.is_some_and(|old| now.duration_since(open.since) >= old) {
            match (open.connection.finish(), self.open.take()) {
                (Ok(()), Some(Open { connection, .. })) => {
                    // One that has not been closed for so long will not be.
                    self.retire();
                    let samples = self.earlier.take() + self.last.samples() as u64;
                    self.last = Lines::default();
                    self.retiring = Some(Retiring { connection, samples });
                }
                _ => self.broke(),
            }
        }
    }

    /// The end of one that was finished: only if the receiver has ended it in order has it read all.
    fn retire(&mut self) {
        let Some(Retiring { mut connection, samples }) = self.retiring.take() else { return };
        let is_read = connection.is_closed()
            && loop {
                match connection.receive(4096) {
                    Ok(bytes) if bytes.is_empty() => break true,
                    Ok(_) => {}
                    Err(_) => break false,
                }
            };
        if !is_read {
            self.lost += samples;
        }
    }

    fn send(&mut self, address: &str, lines: &Lines, now: Instant) -> Result<(), NetError> {
        let sent = self.connected(address, now).and_then(|connection| connection.send(lines.text()));
        if sent.is_err() {
            self.broke();
        }
        sent
    }

    /// The open connection, or a new one on which the last batch has been sent again.
    fn connected(&mut self, address: &str, now: Instant) -> Result<&mut Connection, NetError> {
        let open = match self.open.take() {
            Some(open) => open,
            None => {
                let mut connection = Connection::connect(address, Options::plain())?;
                if !self.last.text().is_empty() {
                    connection.send(self.last.text())?;
                }
                Open { connection, since: now }
            }
        };
        Ok(&mut self.open.insert(open).connection)
    }

    fn broke(&mut self) {
        self.open = None;
        self.lost += self.earlier.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use handler_text::Plaintext;
    use kimberlite_plugin_sdk::testing::{self, TcpCall};
    use std::cell::RefCell;
    use std::rc::Rc;

    /// A receiver that writes down what happens, and fails as told.
    #[derive(Default)]
    struct Receiver {
        seen: Vec<String>,
        refuses: bool,
        /// Connections that it has closed, and those that break when used.
        closed: Vec<u32>,
        broken: Vec<u32>,
    }

    fn receiver() -> Rc<RefCell<Receiver>> {
        let receiver = Rc::new(RefCell::new(Receiver::default()));
        let shared = receiver.clone();
        testing::serve_tcp(move |call| {
            let mut receiver = shared.borrow_mut();
            let gone = || Err(NetError::Closed("gone".to_owned()));
            match call {
                TcpCall::Connect { .. } if receiver.refuses => {
                    return Err(NetError::Refused("nobody listens".to_owned()));
                }
                TcpCall::Connect { connection, address, .. } => {
                    receiver.seen.push(format!("{connection}: connect {address}"));
                }
                TcpCall::Send { connection, .. } if receiver.broken.contains(&connection) => return gone(),
                TcpCall::Send { connection, bytes } => {
                    receiver
                        .seen
                        .push(format!("{connection}: {}", String::from_utf8_lossy(bytes).trim_end()));
                }
                TcpCall::IsClosed { connection } if receiver.closed.contains(&connection) => return gone(),
                TcpCall::Finish { connection } => receiver.seen.push(format!("{connection}: finish")),
                TcpCall::Receive { connection, .. } if receiver.broken.contains(&connection) => {
                    return gone();
                }
                TcpCall::IsClosed { .. } | TcpCall::Receive { .. } => {}
            }
            Ok(Vec::new())
        });
        receiver
    }

    impl Receiver {
        fn take(&mut self) -> Vec<String> {
            std::mem::take(&mut self.seen)
        }
    }

    fn deliver_at(stream: &mut Stream, metric: &str, now: Instant) -> Result<u64, NetError> {
        let mut lines = Lines::default();
        let batch = testing::batch().gauge(metric, 1).build();
        Plaintext::new("").write(&batch, &mut lines);
        stream.deliver("g:2003", &mut lines, now)
    }

    fn deliver(stream: &mut Stream, metric: &str) -> Result<u64, NetError> {
        deliver_at(stream, metric, Instant::now())
    }

    #[test]
    fn connection_is_kept() {
        let receiver = receiver();
        let mut stream = Stream::new(None);
        assert_eq!(deliver(&mut stream, "a"), Ok(0));
        assert_eq!(deliver(&mut stream, "b"), Ok(0));
        assert_eq!(receiver.borrow_mut().take(), ["0: connect g:2003", "0: test.a 1 0", "0: test.b 1 0"]);
    }

    #[test]
    fn closed_connection_is_noticed_and_the_last_batch_sent_again() {
        let receiver = receiver();
        let mut stream = Stream::new(None);
        for metric in ["a", "b", "c"] {
            assert_eq!(deliver(&mut stream, metric), Ok(0));
        }
        receiver.borrow_mut().take();
        receiver.borrow_mut().closed.push(0);
        // `a` and `b` may be lost.
        assert_eq!(deliver(&mut stream, "d"), Ok(2));
        assert_eq!(receiver.borrow_mut().take(), ["1: connect g:2003", "1: test.c 1 0", "1: test.d 1 0"]);
        assert_eq!(deliver(&mut stream, "e"), Ok(0));
        // `c` was sent twice, but both times it was not the last.
        receiver.borrow_mut().closed.push(1);
        assert_eq!(deliver(&mut stream, "f"), Ok(2));
    }

    #[test]
    fn connection_that_breaks_while_sending_is_replaced_at_once() {
        let receiver = receiver();
        let mut stream = Stream::new(None);
        deliver(&mut stream, "a").unwrap();
        receiver.borrow_mut().take();
        receiver.borrow_mut().broken.push(0);
        assert_eq!(deliver(&mut stream, "b"), Ok(0));
        assert_eq!(receiver.borrow_mut().take(), ["1: connect g:2003", "1: test.a 1 0", "1: test.b 1 0"]);
    }

    #[test]
    fn loss_is_reported_with_the_next_batch_that_gets_through() {
        let receiver = receiver();
        let mut stream = Stream::new(None);
        deliver(&mut stream, "a").unwrap();
        deliver(&mut stream, "b").unwrap();
        receiver.borrow_mut().take();
        receiver.borrow_mut().refuses = true;
        receiver.borrow_mut().closed.push(0);
        assert_eq!(deliver(&mut stream, "c"), Err(NetError::Refused("nobody listens".to_owned())));
        assert_eq!(deliver(&mut stream, "c"), Err(NetError::Refused("nobody listens".to_owned())));
        receiver.borrow_mut().refuses = false;
        assert_eq!(deliver(&mut stream, "c"), Ok(1));
        let seen = receiver.borrow_mut().take();
        assert_eq!(seen[1..], ["3: test.b 1 0", "3: test.c 1 0"]);
    }

    #[test]
    fn new_connection_that_breaks_is_not_tried_twice() {
        let receiver = receiver();
        receiver.borrow_mut().broken.extend([0, 1]);
        let mut stream = Stream::new(None);
        assert!(deliver(&mut stream, "a").is_err());
        assert_eq!(receiver.borrow_mut().take(), ["0: connect g:2003"]);
    }

    #[test]
    fn old_connection_is_finished_and_replaced() {
        let receiver = receiver();
        let mut stream = Stream::new(Some(Duration::from_secs(60)));
        let start = Instant::now();
        deliver_at(&mut stream, "a", start).unwrap();
        deliver_at(&mut stream, "b", start + Duration::from_secs(59)).unwrap();
        receiver.borrow_mut().take();
        assert_eq!(deliver_at(&mut stream, "c", start + Duration::from_secs(60)), Ok(0));
        assert_eq!(receiver.borrow_mut().take(), ["0: finish", "1: connect g:2003", "1: test.c 1 0"]);
    }

    /// Two batches, then a third when the connection is old.
    fn retired() -> (Rc<RefCell<Receiver>>, Stream, Instant) {
        let receiver = receiver();
        let mut stream = Stream::new(Some(Duration::from_secs(60)));
        let start = Instant::now();
        let old = start + Duration::from_secs(60);
        for (metric, now) in [("a", start), ("b", start), ("c", old)] {
            assert_eq!(deliver_at(&mut stream, metric, now), Ok(0));
        }
        (receiver, stream, old)
    }

    #[test]
    fn what_an_old_connection_carried_is_certain_when_the_receiver_closes_it() {
        let (receiver, mut stream, old) = retired();
        receiver.borrow_mut().closed.push(0);
        assert_eq!(deliver_at(&mut stream, "d", old), Ok(0));
        assert_eq!(deliver_at(&mut stream, "e", old + Duration::from_secs(60)), Ok(0));
    }

    #[test]
    fn what_an_old_connection_carried_is_unconfirmed_when_it_breaks() {
        let (receiver, mut stream, old) = retired();
        receiver.borrow_mut().closed.push(0);
        receiver.borrow_mut().broken.push(0);
        assert_eq!(deliver_at(&mut stream, "d", old), Ok(2));
    }

    #[test]
    fn what_an_old_connection_carried_is_unconfirmed_when_nobody_ever_closes_it() {
        let (_, mut stream, old) = retired();
        assert_eq!(deliver_at(&mut stream, "d", old), Ok(0));
        assert_eq!(deliver_at(&mut stream, "e", old + Duration::from_secs(60)), Ok(2));
    }
}
