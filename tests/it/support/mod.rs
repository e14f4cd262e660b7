//! What the tests stand on: a real PostgreSQL, the demo's identity provider, the gateway, its API.

pub(crate) mod gateway;
pub(crate) mod postgres;
pub(crate) mod wire;
