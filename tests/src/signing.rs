//! Signs files as `minisign` does.

use std::io::Cursor;

use minisign::KeyPair;

/// A key pair.
pub struct Minisign(KeyPair);

impl std::fmt::Debug for Minisign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Minisign").field(&self.public_key()).finish()
    }
}

impl Default for Minisign {
    fn default() -> Self {
        Self::new()
    }
}

impl Minisign {
    pub fn new() -> Self {
        Self(KeyPair::generate_unencrypted_keypair().unwrap())
    }

    /// As `agent.trusted_keys` has it.
    pub fn public_key(&self) -> String {
        self.0.pk.to_base64()
    }

    /// The text of a `.minisig` file.
    pub fn sign(&self, bytes: &[u8]) -> String {
        let (sk, pk) = (&self.0.sk, Some(&self.0.pk));
        minisign::sign(pk, sk, Cursor::new(bytes), Some("of the tests"), None).unwrap().into_string()
    }
}
