//! A small, fast hasher without random keys: std's would import `wasi:random` into every plugin.
//! Its maps hold what the plugin itself names, so nobody gains by making its keys collide.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher};

pub(crate) type Map<K, V> = HashMap<K, V, Hashing>;
pub(crate) type Set<K> = HashSet<K, Hashing>;

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Hashing;

impl BuildHasher for Hashing {
    type Hasher = Multiplying;

    fn build_hasher(&self) -> Multiplying {
        Multiplying(0)
    }
}

/// Eight bytes at a time: rotate, xor, multiply.
#[derive(Debug)]
pub(crate) struct Multiplying(u64);

impl Multiplying {
    fn word(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

impl Hasher for Multiplying {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.word(u64::from_le_bytes(last));
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.word(n.into());
    }

    fn write_u32(&mut self, n: u32) {
        self.word(n.into());
    }

    fn write_u64(&mut self, n: u64) {
        self.word(n);
    }

    /// The tables take the upper bits, which the multiplication mixes best, and the lower ones.
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}
