//! The demo: everything needed to try pgwitness in five minutes, and nothing that `run` can reach.

pub mod provider;
