//! `[log]`: where the journal is, when it is durable, who signs it and where its heads are kept.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use super::Reading;
use crate::config::{Anchor, AnchorTo, Durability, Log, Secret};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LogTable {
    dir: PathBuf,
    durability: Option<String>,
    on_failure: Option<String>,
    sign_key_file: Option<PathBuf>,
    anchor: Option<AnchorTable>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AnchorTable {
    every: Option<String>,
    #[serde(default)]
    to: OneOrMore,
    to_file: Option<PathBuf>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Default for OneOrMore {
    fn default() -> Self {
        Self::More(Vec::new())
    }
}

impl Reading {
    pub(super) fn log(&mut self, table: LogTable) -> Log {
        let modes =
            [("held", Durability::Held), ("strict", Durability::Strict), ("batch", Durability::Batch)];
        let durability = self.word("log.durability", table.durability.as_deref(), &modes, Durability::Held);
        self.word("log.on_failure", table.on_failure.as_deref(), &[("refuse", ())], ());
        let dir = self.path(table.dir);
        let sign_key_file = table.sign_key_file.map_or_else(|| dir.join("sign.key"), |file| self.path(file));
        Log { dir, durability, sign_key_file, anchor: table.anchor.map(|anchor| self.anchor(anchor)) }
    }

    fn anchor(&mut self, table: AnchorTable) -> Anchor {
        const KEY: &str = "log.anchor.to";
        let every = self.duration("log.anchor.every", table.every.as_deref(), Duration::from_secs(3600));
        if every < Duration::from_secs(1) {
            self.wrong("log.anchor.every", "must be at least one second: heads are signed once a second");
        }
        let written = match table.to {
            OneOrMore::One(to) => vec![to],
            OneOrMore::More(all) => all,
        };
        let mut to: Vec<AnchorTo> = written.into_iter().filter_map(|to| self.anchor_to(KEY, to)).collect();
        if let Some(secret) = table.to_file.and_then(|file| self.secret(KEY, None, Some(file))) {
            to.extend(self.anchor_to(KEY, secret.reveal().to_owned()));
        }
        if to.is_empty() {
            self.wrong(KEY, "names no place: write a file, or the https:// address of a webhook");
        }
        Anchor { every, to }
    }

    fn anchor_to(&mut self, key: &str, text: String) -> Option<AnchorTo> {
        if !text.contains("://") {
            return Some(AnchorTo::File(self.path(PathBuf::from(text))));
        }
        let private = |url: &Url| match url.host() {
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            Some(url::Host::Domain(name)) => name == "localhost",
            None => false,
        };
        // The address is not repeated: it may hold a secret.
        match Url::parse(&text) {
            Ok(url) if url.scheme() == "https" || url.scheme() == "http" && private(&url) => {
                Some(AnchorTo::Webhook(Secret::new(text)))
            }
            _ => {
                self.wrong(key, "is not an address that heads can be sent to: write a file, or https://");
                None
            }
        }
    }
}
