//! Tests at the boundaries where users see the product: one binary, real parts.

mod support;

mod cancel;
mod crash;
mod demo;
mod login;
mod pipeline;
mod relay;
mod replication;
mod startup;
mod tidy;
mod tls;
mod wire;
