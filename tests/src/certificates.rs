//! Certificates for receivers: an authority, and what it signs.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// What a receiver shows who it is.
#[derive(Debug, Clone)]
pub struct Identity(pub(crate) Arc<ServerConfig>);

/// Signs certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// Its own certificate, for `tls.ca`.
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub fn sign(&self, name: &str) -> Identity {
        self.signed(params(name), None)
    }

    /// Of a receiver that takes nothing from whom this authority has not signed, too.
    pub fn sign_for_known(&self, name: &str) -> Identity {
        self.signed(params(name), Some(self))
    }

    /// Certificate and key of a sender, for `tls.cert` and `tls.key`.
    pub fn sign_sender(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        (params("sender").signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// Of yesteryear.
    pub fn sign_expired(&self, name: &str) -> Identity {
        let mut params = params(name);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.signed(params, None)
    }

    fn signed(&self, params: CertificateParams, senders: Option<&Self>) -> Identity {
        let key = KeyPair::generate().unwrap();
        identity(params.signed_by(&key, &self.issuer).unwrap().der(), &key, senders)
    }
}

/// Signed by nobody else.
pub fn self_signed(name: &str) -> Identity {
    let key = KeyPair::generate().unwrap();
    identity(params(name).self_signed(&key).unwrap().der(), &key, None)
}

fn params(name: &str) -> CertificateParams {
    CertificateParams::new(vec![name.to_owned()]).unwrap()
}

fn identity(certificate: &CertificateDer<'static>, key: &KeyPair, senders: Option<&Authority>) -> Identity {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = match senders {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.certificate.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    Identity(Arc::new(builder.with_single_cert(vec![certificate.clone()], key).unwrap()))
}
