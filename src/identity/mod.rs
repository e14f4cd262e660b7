//! Who: turns what a person presents into a [`Principal`], and nothing else can.
//!
//! [`Provider`] speaks to one OpenID Connect provider: device login (RFC 8628), tokens presented as
//! passwords, and the browser's authorization code with PKCE. [`Grant`] reads what a PostgreSQL
//! client sent as its password. [`Pairings`] lets a client's own secret stand for one approved
//! login; [`MintedTokens`] does the same with a secret of ours. [`Logins`] begins logins by link and code;
//! [`Approvals`] are those that wait at our own page.
//!
//! It never speaks to a database or a PostgreSQL client, never stores a secret in clear, and takes
//! no identity from anything but a signature that it checked itself. Every wait has an end and
//! every table a bound, named where it stands.

mod approval;
mod asked;
mod bearer;
mod browser;
mod cached;
mod claims;
mod device;
mod error;
mod grant;
mod kept;
mod keys;
mod logins;
mod machine;
mod minted;
mod opener;
mod pairing;
mod places;
mod principal;
mod provider;
mod renewal;
mod revoked;
mod scram;
mod seal;
mod service;
#[cfg(test)]
#[cfg(feature = "demo")]
mod tests;
mod token;
mod transport;
mod whose;
mod workload;

pub use approval::{Answer, Approvals, CodeFault, LIFE as APPROVAL_LIFE, Request, State as RequestState};
pub use asked::{Asked, Certificate, Opens, inert};
pub use bearer::{ACKNOWLEDGED, OAUTHBEARER, read_bearer};
pub use browser::Authorization;
pub use device::DeviceLogin;
pub use error::{Ending, LoginError, TokenFault};
pub use grant::Grant;
pub use kept::{About, Keeping, KeptFault};
pub use logins::{Logins, PendingLogin};
pub use machine::Machine;
pub use minted::{Issued, MintedTokens};
pub use opener::{Kind as OpenerKind, Opener};
pub use pairing::{Entry as PairingEntry, Pairings, Waiter, Wanted};
pub use principal::{Mode, Principal};
pub use provider::{Provider, SetupError};
pub use scram::{Channel, Exchange, ScramError};
pub use service::{BadVerifier, Services};
pub use whose::Whose;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngCore;

/// `N` bytes of the system's randomness, as base64url.
fn random_word<const N: usize>() -> String {
    let mut bytes = [0_u8; N];
    rand::rngs::OsRng.fill_bytes(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}
