//! TLS of one plugin: the system's roots, or the operator's own authority and certificate.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::TlsConfig;

/// By which a renewed file shows: its inode, size and time of change (s, ns). None: it is not there.
type FileState = Option<(u64, u64, i64, i64)>;

/// The files of a [`TlsConfig`] at one instant; another one when any of them has been renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStates([FileState; 3]);

impl FileStates {
    pub fn of(tls: &TlsConfig) -> Self {
        Self([&tls.ca, &tls.cert, &tls.key].map(|file| {
            let meta = std::fs::metadata(file.as_ref()?).ok()?;
            Some((meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
        }))
    }
}

/// Reads the files anew, so that a renewed certificate counts at the next connection. Errors name
/// the file.
pub fn client_config(tls: &TlsConfig) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("cannot set up TLS: {error}"))?;
    let builder = match &tls.ca {
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| format!("tls.ca {}: {error}", file.display()))?;
            }
            builder.with_root_certificates(roots)
        }
        None => {
            let verifier = rustls_platform_verifier::Verifier::new(provider)
                .map_err(|error| format!("cannot read the system's certificates: {error}"))?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
    };
    match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => {
            let private = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| format!("tls.key {}: {error}", key.display()))?;
            builder
                .with_client_auth_cert(certificates(cert)?, private)
                .map_err(|error| format!("tls.cert {}: {error}", cert.display()))
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err("tls.cert and tls.key go together: one of them is missing".to_owned()),
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let named = |error| format!("certificates in {}: {error}", file.display());
    CertificateDer::pem_file_iter(file).map_err(named)?.collect::<Result<_, _>>().map_err(named)
}
