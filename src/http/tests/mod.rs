//! The API and the page over real loopback HTTP, with a real provider, journal and index.

#![allow(clippy::unwrap_used)]

mod api;
mod approving;
mod erase;
mod export;
mod house;
mod reading;
mod signing_in;
mod tail;
mod tokens;

pub(crate) use house::{ANA, House, MARIA, TOM};

/// Serves the house until the time is over, to look at the page with a browser: only if
/// `PGWITNESS_SERVE` says for how many seconds.
#[tokio::test]
async fn the_house_can_be_looked_at() {
    let Some(seconds) = std::env::var("PGWITNESS_SERVE").ok().and_then(|text| text.parse().ok()) else {
        return;
    };
    let house = House::open().await;
    println!("{} {}", house.url, house.provider.issuer());
    tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
}
mod terminate;
