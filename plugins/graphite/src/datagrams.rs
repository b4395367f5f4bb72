//! `proto = "udp"`: best effort. Each batch has a socket of its own, so that names are resolved anew
//! and nothing is held between batches.

use kimberlite_plugin_sdk::udp::{NetError, Socket};

/// The most that fits an Ethernet frame: 1500 bytes less the headers of IPv6 and UDP, less 20 for a
/// tunnel.
const DATAGRAM: usize = 1432;

/// Ok: all datagrams have left, which is all one can know. What failed in part is sent again whole:
/// for Graphite a value that comes twice is the same value, and a receiver that is gone is noticed
/// only at the second datagram.
pub(crate) fn deliver(address: &str, text: &[u8]) -> Result<(), NetError> {
    let ends = pack(text, DATAGRAM);
    let sent = Socket::connect(address)?.send_many(text, &ends)? as usize;
    if sent < ends.len() {
        let all = ends.len();
        return Err(NetError::Other(format!("{address}: only {sent} of {all} datagrams could be sent")));
    }
    Ok(())
}

/// Where datagrams of at most `most` bytes end, so that no line is split; a longer line is a datagram
/// by itself.
fn pack(text: &[u8], most: usize) -> Vec<u32> {
    let mut ends = Vec::with_capacity(text.len() / most + 1);
    let mut start = 0;
    while start < text.len() {
        let rest = &text[start..];
        let is_end = |byte: &u8| *byte == b'\n';
        let length = match rest.len() <= most {
            true => rest.len(),
            false => (rest[..most].iter().rposition(is_end))
                .or_else(|| rest.iter().position(is_end))
                .map_or(rest.len(), |at| at + 1),
        };
        start += length;
        ends.push(u32::try_from(start).unwrap_or(u32::MAX));
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;
    use kimberlite_plugin_sdk::testing::{self, UdpCall};

    #[test]
    fn batch_that_did_not_leave_whole_comes_again() {
        let mut left = 2;
        testing::serve_udp(move |call| {
            if let UdpCall::Send { .. } = call {
                left -= 1;
            }
            if left < 0 { Err(NetError::Refused("nobody listens".to_owned())) } else { Ok(Vec::new()) }
        });
        let text = "a.long.enough.path 1 1503300000\n".repeat(100);
        let error = deliver("g:2003", text.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "g:2003: only 2 of 3 datagrams could be sent");
    }

    #[test]
    fn datagrams_are_full_and_split_no_line() {
        let text = b"aa 1\nbb 2\ncc 3\n";
        assert_eq!(pack(text, 15), [15]);
        assert_eq!(pack(text, 14), [10, 15]);
        assert_eq!(pack(text, 10), [10, 15]);
        assert_eq!(pack(text, 9), [5, 10, 15]);
        assert_eq!(pack(b"", 10), []);
    }

    #[test]
    fn line_that_is_too_long_goes_alone() {
        assert_eq!(pack(b"a 1\na-long-name 2\nb 3\nc 4\n", 8), [4, 18, 26]);
    }
}
