//! How the gateway shows the database who it is: SCRAM, bound to the TLS connection where that can be;
//! md5 and clear text only where the configuration says so. Messages in, messages out.
//!
//! Source: PostgreSQL documentation, "SASL Authentication"; RFC 5802 section 6 for when to bind;
//! `pg_SASL_init` in `src/interfaces/libpq/fe-auth.c`.

use bytes::{Bytes, BytesMut};
use pgwitness_protocol::ProtocolError;
use pgwitness_protocol::backend::{self, Authentication};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::frontend;

use super::stream::Stream;
use super::upstream::{UpstreamError, refusal};
use crate::config::{self, AuthMethod, ChannelBinding, Credential, Secret};
use crate::tls::certificate;

/// What one message of the server's greeting asks for.
pub(super) enum Step {
    Send(BytesMut),
    Keep,
    Drop,
    Key(u32, Bytes),
    Ready,
}

/// Where the exchange stands.
#[derive(Default)]
enum Proof {
    #[default]
    None,
    Scram(ScramSha256, Bound),
    /// The server has proven that it knows the password too.
    Mutual(Bound),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bound {
    ToTls,
    ToNothing,
}

/// What the server's TLS allows to bind to.
enum EndPoint {
    NoTls,
    /// Its certificate has no hash for this.
    Unbindable,
    Hash(Vec<u8>),
}

/// One login.
pub(super) struct Login<'a> {
    credential: &'a Credential,
    auth: &'a [AuthMethod],
    binding: ChannelBinding,
    end_point: EndPoint,
    proof: Proof,
    authenticated: bool,
}

const MISFIT: UpstreamError = UpstreamError::Authentication("its messages do not fit together");

impl<'a> Login<'a> {
    pub(super) fn new(upstream: &'a config::Upstream, credential: &'a Credential, stream: &Stream) -> Self {
        let end_point = match (stream.is_tls(), stream.peer_certificate()) {
            (false, _) => EndPoint::NoTls,
            (true, shown) => shown
                .and_then(|der| certificate::end_point(&der))
                .map_or(EndPoint::Unbindable, EndPoint::Hash),
        };
        Self {
            credential,
            auth: &upstream.auth,
            binding: upstream.channel_binding,
            end_point,
            proof: Proof::None,
            authenticated: false,
        }
    }

    pub(super) fn step(&mut self, tag: u8, body: &[u8]) -> Result<Step, UpstreamError> {
        match tag {
            b'R' => self.authentication(body),
            b'E' => Err(refusal(body)),
            b'S' | b'N' if self.authenticated => Ok(Step::Keep),
            b'N' | b'v' => Ok(Step::Drop),
            b'K' if self.authenticated => {
                let (pid, key) = backend::key_data(body)?;
                Ok(Step::Key(pid, Bytes::copy_from_slice(key)))
            }
            b'Z' if self.authenticated => Ok(Step::Ready),
            tag => Err(UpstreamError::Protocol(ProtocolError::Unexpected { tag })),
        }
    }

    fn authentication(&mut self, body: &[u8]) -> Result<Step, UpstreamError> {
        let mut reply = BytesMut::new();
        match backend::authentication(body)? {
            Authentication::Ok => {
                self.may_end()?;
                self.authenticated = true;
                return Ok(Step::Drop);
            }
            Authentication::Sasl(mechanisms) => self.begin_scram(&mechanisms, &mut reply)?,
            Authentication::SaslContinue(challenge) => {
                let Proof::Scram(scram, _) = &mut self.proof else { return Err(MISFIT) };
                scram.update(challenge).map_err(|_| {
                    UpstreamError::Authentication("its SCRAM challenge could not be understood")
                })?;
                frontend::sasl_response(scram.message(), &mut reply).map_err(|_| MISFIT)?;
            }
            Authentication::SaslFinal(verdict) => {
                let Proof::Scram(scram, bound) = &mut self.proof else { return Err(MISFIT) };
                scram.finish(verdict).map_err(|_| {
                    UpstreamError::Authentication("it could not prove that it knows the password itself")
                })?;
                self.proof = Proof::Mutual(*bound);
                return Ok(Step::Drop);
            }
            Authentication::Cleartext => {
                self.allowed(
                    AuthMethod::Cleartext,
                    "it asks for the password in clear text. Let it use scram-sha-256 (pg_hba.conf), or write \
                     auth = [\"scram-sha-256\", \"password\"] in the upstream",
                )?;
                let password = self.password()?.reveal().as_bytes();
                frontend::password_message(password, &mut reply).map_err(|_| MISFIT)?;
            }
            Authentication::Md5(salt) => {
                self.allowed(
                    AuthMethod::Md5,
                    "it asks for an md5 password. Set password_encryption = 'scram-sha-256' there and the password \
                     again, or write auth = [\"scram-sha-256\", \"md5\"] in the upstream",
                )?;
                let password = self.password()?.reveal().as_bytes();
                let hash = md5_hash(self.credential.role.as_bytes(), password, salt);
                frontend::password_message(hash.as_bytes(), &mut reply).map_err(|_| MISFIT)?;
            }
            Authentication::Other(_) => {
                return Err(UpstreamError::Authentication(
                    "it asks for GSSAPI, SSPI or another method that the gateway does not have. Let it use \
                     scram-sha-256 or cert for the gateway (pg_hba.conf)",
                ));
            }
        }
        Ok(Step::Send(reply))
    }

    fn begin_scram(&mut self, offered: &[&[u8]], reply: &mut BytesMut) -> Result<(), UpstreamError> {
        self.allowed(
            AuthMethod::Scram,
            "it asks for scram-sha-256, which the upstream's auth leaves out. Write auth = [\"scram-sha-256\"]",
        )?;
        let offers = |name: &str| offered.contains(&name.as_bytes());
        let (binding, bound) = match (self.binding, &self.end_point) {
            (ChannelBinding::Prefer | ChannelBinding::Require, EndPoint::Hash(hash))
                if offers(SCRAM_SHA_256_PLUS) =>
            {
                (sasl::ChannelBinding::tls_server_end_point(hash.clone()), Bound::ToTls)
            }
            (ChannelBinding::Require, _) => {
                return Err(UpstreamError::Authentication(
                    "channel_binding is \"require\", and it does not offer SCRAM-SHA-256-PLUS over this connection, \
                     or has a certificate without a hash for it (Ed25519)",
                ));
            }
            // We could: somebody in between who took the offer away is found out.
            (ChannelBinding::Prefer, EndPoint::Hash(_)) => {
                (sasl::ChannelBinding::unrequested(), Bound::ToNothing)
            }
            _ => (sasl::ChannelBinding::unsupported(), Bound::ToNothing),
        };
        let mechanism = if bound == Bound::ToTls { SCRAM_SHA_256_PLUS } else { SCRAM_SHA_256 };
        if !offers(mechanism) {
            return Err(UpstreamError::Authentication(
                "it asks for a SASL mechanism other than SCRAM-SHA-256",
            ));
        }
        let scram = ScramSha256::new(self.password()?.reveal().as_bytes(), binding);
        frontend::sasl_initial_response(mechanism, scram.message(), reply).map_err(|_| MISFIT)?;
        self.proof = Proof::Scram(scram, bound);
        Ok(())
    }

    /// The server lets us in: not before it has proven itself where that was begun or is required.
    fn may_end(&self) -> Result<(), UpstreamError> {
        match (&self.proof, self.binding) {
            (Proof::Scram(..), _) => Err(UpstreamError::Authentication(
                "it ended SCRAM without proving that it knows the password",
            )),
            (Proof::None | Proof::Mutual(Bound::ToNothing), ChannelBinding::Require) => {
                Err(UpstreamError::Authentication(
                    "channel_binding is \"require\", and it let the gateway in without",
                ))
            }
            _ => Ok(()),
        }
    }

    fn allowed(&self, method: AuthMethod, otherwise: &'static str) -> Result<(), UpstreamError> {
        if self.auth.contains(&method) { Ok(()) } else { Err(UpstreamError::Authentication(otherwise)) }
    }

    fn password(&self) -> Result<&'a Secret, UpstreamError> {
        self.credential.password.as_ref().ok_or(UpstreamError::Authentication(
            "it asks for a password, and the role's credential has a certificate only. Write password_file, or let \
             the database take the certificate (cert in pg_hba.conf)",
        ))
    }
}
