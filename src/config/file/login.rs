//! `[[login]]` and `[[service]]`: how clients log in, and accounts that log in by password.

use std::path::PathBuf;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Reading;
use crate::config::{LoginMode, LoginRule, Proof, Service};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LoginTable {
    #[serde(default)]
    databases: Vec<String>,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    addresses: Vec<String>,
    mode: String,
    #[serde(default)]
    pin_address: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ServiceTable {
    name: String,
    password: Option<String>,
    password_file: Option<PathBuf>,
    verifier: Option<String>,
    verifier_file: Option<PathBuf>,
    #[serde(default)]
    databases: Vec<String>,
    #[serde(default)]
    addresses: Vec<String>,
    expires: Option<String>,
    #[serde(default)]
    break_glass: bool,
}

const MODES: &[(&str, LoginMode)] = &[
    ("device", LoginMode::Device),
    ("password", LoginMode::Password),
    ("paired", LoginMode::Paired),
    ("token", LoginMode::Token),
    ("minted", LoginMode::Minted),
    ("oauth", LoginMode::Oauth),
    ("scram", LoginMode::Scram),
];

impl Reading {
    pub(super) fn login_rule(&mut self, table: LoginTable) -> LoginRule {
        let mode = self.word("login.mode", Some(&table.mode), MODES, LoginMode::Device);
        let addresses = self.networks("login.addresses", &table.addresses);
        let pin_address = table.pin_address;
        if pin_address && !matches!(mode, LoginMode::Paired | LoginMode::Password) {
            self.wrong(
                "login.pin_address",
                "is about paired secrets: mode must be \"paired\" or \"password\"",
            );
        }
        LoginRule { databases: table.databases, users: table.users, addresses, mode, pin_address }
    }

    pub(super) fn service(&mut self, table: ServiceTable) -> Service {
        let password = self.secret("service.password", table.password, table.password_file);
        let verifier = self.secret("service.verifier", table.verifier, table.verifier_file);
        let proof = match (password, verifier) {
            (Some(password), None) => Proof::Password(password),
            (None, Some(verifier)) => Proof::Verifier(verifier),
            (Some(_), Some(_)) | (None, None) => {
                let which = format_args!("{:?} needs one of password_file and verifier_file", table.name);
                self.wrong("service", which);
                Proof::Password(crate::config::Secret::new(""))
            }
        };
        let addresses = self.networks("service.addresses", &table.addresses);
        let expires = self.moment("service.expires", table.expires.as_deref());
        let (name, databases, break_glass) = (table.name, table.databases, table.break_glass);
        Service { name, proof, databases, addresses, expires, break_glass }
    }

    pub(super) fn check_services(&mut self, services: &[Service], login: &[LoginRule]) {
        for (at, service) in services.iter().enumerate() {
            if service.name.is_empty() || services.iter().take(at).any(|other| other.name == service.name) {
                self.wrong("service.name", format_args!("{:?} is empty or there twice", service.name));
            }
        }
        if !services.is_empty() && !login.iter().any(|rule| rule.mode == LoginMode::Scram) {
            self.wrong("service", "no [[login]] rule has mode = \"scram\": nobody could use it");
        }
    }

    fn networks(&mut self, key: &str, texts: &[String]) -> Vec<IpNet> {
        let mut found = Vec::with_capacity(texts.len());
        for text in texts {
            match text.parse::<IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from)) {
                Ok(network) => found.push(network),
                Err(_) => {
                    self.wrong(
                        key,
                        format_args!("{text:?} is no address or network, write for example 10.0.0.0/8"),
                    );
                }
            }
        }
        found
    }
}
