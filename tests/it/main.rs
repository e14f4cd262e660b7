//! Tests at the boundaries where users see the product: one binary, real parts.

mod support;

mod approving;
mod beyond;
mod bounds;
mod cancel;
mod capture;
mod cases;
mod changes;
mod crash;
mod death;
mod demo;
mod ending;
mod kept;
mod login;
mod modes;
mod pipeline;
mod relay;
mod replication;
mod retention;
mod roles;
mod startup;
mod state;
mod tidy;
mod tls;
mod wire;
