//! TLS settings from files, for clients and towards databases (rustls; the crypto provider is
//! installed once, in `main`).

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ServerConfig;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::config::{SslMode, TlsFiles};

/// ALPN name of the PostgreSQL protocol (direct TLS).
pub const ALPN: &[u8] = b"postgresql";

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read as PEM.
    #[error("could not read {what} from {path}: {reason}")]
    File {
        /// What was expected there.
        what: &'static str,
        /// The file.
        path: String,
        /// Why not.
        reason: String,
    },
    /// rustls refused the material.
    #[error("could not use the TLS files: {0}")]
    Refused(#[from] Error),
    /// No trusted root is known.
    #[error("found no trusted root certificates: write sslrootcert, or install the system's")]
    NoRoots,
}

fn file_error(what: &'static str, path: &Path, reason: impl std::fmt::Display) -> TlsError {
    TlsError::File { what, path: path.display().to_string(), reason: reason.to_string() }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    const WHAT: &str = "certificates";
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(|error| file_error(WHAT, path, error))?
        .collect::<Result<_, _>>()
        .map_err(|error| file_error(WHAT, path, error))?;
    if found.is_empty() {
        return Err(file_error(WHAT, path, "the file holds none"));
    }
    Ok(found)
}

/// TLS towards clients.
///
/// # Errors
/// Unreadable files, or a key that does not belong to the certificate.
pub fn server(files: &TlsFiles, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(&files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| file_error("a private key", &files.key, error))?;
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// TLS towards a database; `None` for `disable`.
///
/// # Errors
/// Unreadable roots, or none.
pub fn client(mode: SslMode, roots: Option<&Path>) -> Result<Option<Arc<ClientConfig>>, TlsError> {
    let verifier: Arc<dyn ServerCertVerifier> = match mode {
        SslMode::Disable => return Ok(None),
        SslMode::Require => Arc::new(Lax::AnyCertificate(ring::default_provider())),
        SslMode::VerifyFull => chain_verifier(roots)?,
        SslMode::VerifyCa => Arc::new(Lax::AnyName(chain_verifier(roots)?)),
    };
    let config =
        ClientConfig::builder().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    Ok(Some(Arc::new(config)))
}

fn chain_verifier(roots: Option<&Path>) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let mut store = RootCertStore::empty();
    match roots {
        Some(path) => {
            for certificate in certificates(path)? {
                store.add(certificate)?;
            }
        }
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if store.is_empty() {
        return Err(TlsError::NoRoots);
    }
    WebPkiServerVerifier::builder(Arc::new(store))
        .build()
        .map_err(|error| TlsError::Refused(Error::General(error.to_string())))
}

/// Less than `verify-full`, as libpq's modes of these names.
#[derive(Debug)]
enum Lax {
    /// `require`: encrypted, not authenticated.
    AnyCertificate(CryptoProvider),
    /// `verify-ca`: the chain counts, the name does not.
    AnyName(Arc<WebPkiServerVerifier>),
}

impl ServerCertVerifier for Lax {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Self::AnyName(chain) = self else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self {
            Self::AnyName(chain) => chain.verify_tls12_signature(message, cert, dss),
            Self::AnyCertificate(crypto) => {
                verify_tls12_signature(message, cert, dss, &crypto.signature_verification_algorithms)
            }
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self {
            Self::AnyName(chain) => chain.verify_tls13_signature(message, cert, dss),
            Self::AnyCertificate(crypto) => {
                verify_tls13_signature(message, cert, dss, &crypto.signature_verification_algorithms)
            }
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        match self {
            Self::AnyName(chain) => chain.supported_verify_schemes(),
            Self::AnyCertificate(crypto) => crypto.signature_verification_algorithms.supported_schemes(),
        }
    }
}
