//! TLS settings from files, for clients and towards databases (rustls; the crypto provider is
//! installed once, in `main`).

pub mod certificate;

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{
    ClientHello, ResolvesServerCert, ServerConfig, VerifierBuilderError, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, SupportedProtocolVersion,
};

use crate::config::{ClientCertificates, SslMode, TlsFiles, TlsVersion};

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

/// What one listener says of its TLS.
#[derive(Debug, Clone)]
pub struct Door {
    /// Its certificate and key.
    pub files: TlsFiles,
    /// Names of the protocols spoken inside.
    pub alpn: &'static [&'static [u8]],
    /// Lowest version.
    pub least: TlsVersion,
    /// Which certificates clients show.
    pub clients: ClientCertificates,
}

/// TLS towards clients, which can be read again from its files while it serves.
#[derive(Debug)]
pub struct Entrance {
    door: Door,
    chain: Arc<Chain>,
    config: RwLock<Arc<ServerConfig>>,
}

/// The certificate that is shown now.
#[derive(Debug)]
struct Chain(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Chain {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Entrance {
    /// Reads the files.
    ///
    /// # Errors
    /// Unreadable files, or a key that does not belong to the certificate.
    pub fn open(door: Door) -> Result<Self, TlsError> {
        let chain = Arc::new(Chain(RwLock::new(certified(&door.files)?)));
        let config = RwLock::new(server(&door, chain.clone())?);
        Ok(Self { door, chain, config })
    }

    /// The certificate that is shown, in DER.
    pub fn certificate(&self) -> Option<Vec<u8>> {
        let chain = self.chain.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        chain.cert.first().map(|certificate| certificate.to_vec())
    }

    /// The settings for the next connection.
    pub fn now(&self) -> Arc<ServerConfig> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the files again. If anything is wrong with them, all stays as it was.
    ///
    /// # Errors
    /// As [`Entrance::open`].
    pub fn reload(&self) -> Result<(), TlsError> {
        let key = certified(&self.door.files)?;
        let config = server(&self.door, self.chain.clone())?;
        // Settings that were handed out once (the page's) follow by the certificate alone.
        *self.chain.0.write().unwrap_or_else(PoisonError::into_inner) = key;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }
}

fn private_key(files: &TlsFiles) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(&files.key).map_err(|error| file_error("a private key", &files.key, error))
}

fn certified(files: &TlsFiles) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = certificates(&files.cert)?;
    Ok(Arc::new(CertifiedKey::from_der(chain, private_key(files)?, &ring::default_provider())?))
}

fn server(door: &Door, chain: Arc<Chain>) -> Result<Arc<ServerConfig>, TlsError> {
    let versions: &[&SupportedProtocolVersion] = match door.least {
        TlsVersion::Tls12 => &[&rustls::version::TLS12, &rustls::version::TLS13],
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let refused = |error: VerifierBuilderError| TlsError::Refused(Error::General(error.to_string()));
    let verifier = match &door.clients {
        ClientCertificates::Off => WebPkiClientVerifier::no_client_auth(),
        ClientCertificates::Optional(ca) => {
            WebPkiClientVerifier::builder(roots(ca)?).allow_unauthenticated().build().map_err(refused)?
        }
        ClientCertificates::Require(ca) => {
            WebPkiClientVerifier::builder(roots(ca)?).build().map_err(refused)?
        }
    };
    let mut config = ServerConfig::builder_with_protocol_versions(versions)
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(chain);
    config.alpn_protocols = door.alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// TLS towards a database, with a certificate of our own if there is one; `None` for `disable`.
///
/// # Errors
/// Unreadable files, or no roots.
pub fn client(
    mode: SslMode,
    roots: Option<&Path>,
    own: Option<&TlsFiles>,
) -> Result<Option<Arc<ClientConfig>>, TlsError> {
    let verifier: Arc<dyn ServerCertVerifier> = match mode {
        SslMode::Disable => return Ok(None),
        SslMode::Require => Arc::new(Lax::AnyCertificate(ring::default_provider())),
        SslMode::VerifyFull => chain_verifier(roots)?,
        SslMode::VerifyCa => Arc::new(Lax::AnyName(chain_verifier(roots)?)),
    };
    let config = ClientConfig::builder().dangerous().with_custom_certificate_verifier(verifier);
    Ok(Some(Arc::new(match own {
        None => config.with_no_client_auth(),
        Some(files) => config.with_client_auth_cert(certificates(&files.cert)?, private_key(files)?)?,
    })))
}

fn roots(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate)?;
    }
    Ok(Arc::new(store))
}

fn chain_verifier(from: Option<&Path>) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let store = match from {
        Some(path) => roots(path)?,
        None => {
            let mut store = RootCertStore::empty();
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            Arc::new(store)
        }
    };
    if store.is_empty() {
        return Err(TlsError::NoRoots);
    }
    WebPkiServerVerifier::builder(store)
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
