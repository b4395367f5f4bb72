//! `ack = "close"`: one connection for each batch. The receiver ends its half only when it has read
//! ours to the end, which is the one acknowledgement the protocol has.

use kimberlite_plugin_sdk::tcp::{Connection, NetError, Options};

/// Ok: the receiver has read all of `text`.
pub(crate) fn deliver(address: &str, text: &[u8]) -> Result<(), NetError> {
    let mut connection = Connection::connect(address, Options::plain())?;
    connection.send(text)?;
    connection.finish()?;
    // Graphite says nothing; whatever does come is not for us.
    while !connection.receive(4096)?.is_empty() {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kimberlite_plugin_sdk::testing::{self, TcpCall};
    use std::cell::RefCell;
    use std::rc::Rc;

    fn delivered(end: Result<(), NetError>) -> (Result<(), NetError>, Vec<&'static str>) {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let shared = seen.clone();
        testing::serve_tcp(move |call| {
            let mut seen = shared.borrow_mut();
            seen.push(match call {
                TcpCall::Connect { .. } => "connect",
                TcpCall::Send { .. } => "send",
                TcpCall::Finish { .. } => "finish",
                TcpCall::Receive { .. } => "receive",
                TcpCall::IsClosed { .. } => "look",
            });
            match call {
                TcpCall::Receive { .. } if seen.len() > 4 => end.clone().map(|()| Vec::new()),
                TcpCall::Receive { .. } => Ok(b"hello".to_vec()),
                _ => Ok(Vec::new()),
            }
        });
        let delivered = deliver("g:2003", b"a 1 0\n");
        (delivered, seen.take())
    }

    #[test]
    fn batch_is_delivered_when_the_receiver_has_closed() {
        let (delivered, seen) = delivered(Ok(()));
        assert_eq!(delivered, Ok(()));
        assert_eq!(seen, ["connect", "send", "finish", "receive", "receive"]);
    }

    #[test]
    fn receiver_that_breaks_off_has_not_taken_it() {
        let reset = Err(NetError::Closed("reset".to_owned()));
        assert_eq!(delivered(reset.clone()).0, reset);
    }
}
