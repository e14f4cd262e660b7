//! [`Logins`]: how a login by link and code begins, and [`PendingLogin`], the one that waits: at our own page, or
//! at the provider where there is no page.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use url::Url;

use super::approval::{Approvals, AtPage};
use super::asked::Asked;
use super::places::{Place, Places};
use super::{DeviceLogin, LoginError, Principal, Provider};

/// Begins logins. Clones share everything.
#[derive(Debug, Clone)]
pub struct Logins {
    provider: Provider,
    page: Option<Approvals>,
    places: Places,
}

/// A login that waits for somebody. Clones are the same login; it is over when the last is dropped.
#[derive(Debug, Clone)]
pub struct PendingLogin(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    provider: Provider,
    way: Way,
    _place: Place,
}

#[derive(Debug)]
enum Way {
    Provider(DeviceLogin),
    Page(AtPage),
}

impl Logins {
    /// Logins at a provider; with the address of our own page they are approved there. So many may wait, in all
    /// and of one address.
    pub fn new(provider: Provider, page: Option<&Url>, max_pending: (usize, usize)) -> Self {
        let places = Places::new(max_pending.0, max_pending.1);
        Self { provider, page: page.map(Approvals::new), places }
    }

    /// The provider.
    pub fn provider(&self) -> &Provider {
        &self.provider
    }

    /// What waits at our own page, if there is one.
    pub fn page(&self) -> Option<&Approvals> {
        self.page.as_ref()
    }

    /// Begins a login.
    ///
    /// # Errors
    /// Too many wait, or the provider does not answer or refuses the gateway.
    pub async fn begin(&self, asked: Asked) -> Result<PendingLogin, LoginError> {
        let place = self.places.take(asked.address, Instant::now())?;
        let way = match &self.page {
            Some(page) => {
                // Where nobody could sign in, nobody is asked to.
                self.provider.can_authorize().await?;
                Way::Page(page.begin(asked))
            }
            None => Way::Provider(self.provider.start_device().await?),
        };
        Ok(PendingLogin(Arc::new(Inner { provider: self.provider.clone(), way, _place: place })))
    }
}

impl PendingLogin {
    /// The link to show.
    pub fn link(&self) -> &str {
        match &self.0.way {
            Way::Provider(login) => login.link(),
            Way::Page(request) => &request.link,
        }
    }

    /// The code to show.
    pub fn user_code(&self) -> &str {
        match &self.0.way {
            Way::Provider(login) => &login.user_code,
            Way::Page(request) => &request.code,
        }
    }

    /// Whether the link brings the code with it, so that the person only compares it.
    pub fn link_holds_code(&self) -> bool {
        matches!(&self.0.way, Way::Provider(login) if login.verification_uri_complete.is_some())
    }

    /// When it can be approved no longer.
    pub fn expires_at(&self) -> SystemTime {
        match &self.0.way {
            Way::Provider(login) => login.expires_at,
            Way::Page(request) => request.expires_at,
        }
    }

    /// Waits until somebody is verified, or until it ends otherwise. Cancel-safe.
    ///
    /// # Errors
    /// Denied, expired, refused; the code guessed at too often.
    pub async fn wait(&self) -> Result<Principal, LoginError> {
        match &self.0.way {
            Way::Provider(login) => self.0.provider.wait_device(login).await,
            Way::Page(request) => request.wait().await,
        }
    }
}
