//! `[listen]`: the PostgreSQL side.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Reading;
use crate::config::{ClientCertificates, Listen, ListenTls, TlsVersion};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListenTable {
    address: String,
    tls: Option<String>,
    tls_cert: Option<PathBuf>,
    tls_key_file: Option<PathBuf>,
    tls_min_version: Option<String>,
    tls_client_auth: Option<String>,
    tls_client_ca: Option<PathBuf>,
    max_clients: Option<usize>,
    login_timeout: Option<String>,
}

impl Reading {
    pub(super) fn listen(&mut self, table: ListenTable) -> Listen {
        let address = self.address("listen.address", &table.address);
        let files = self.tls_files("listen", table.tls_cert, table.tls_key_file);
        let tls = match (table.tls.as_deref().unwrap_or("require"), files) {
            ("off", _) => ListenTls::Off,
            ("allow", Some(files)) => ListenTls::Allow(files),
            ("require", Some(files)) => ListenTls::Require(files),
            ("allow" | "require", None) => {
                self.wrong(
                    "listen.tls",
                    "needs tls_cert and tls_key_file; write tls = \"off\" only where nobody can listen in",
                );
                ListenTls::Off
            }
            (other, _) => {
                self.wrong(
                    "listen.tls",
                    format_args!("{other:?} is not one of \"off\", \"allow\", \"require\""),
                );
                ListenTls::Off
            }
        };
        let login_timeout =
            self.duration("listen.login_timeout", table.login_timeout.as_deref(), Duration::from_secs(180));
        let versions = [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
        let tls_min_version = self.word(
            "listen.tls_min_version",
            table.tls_min_version.as_deref(),
            &versions,
            TlsVersion::default(),
        );
        let tls_clients =
            self.client_certificates(table.tls_client_auth.as_deref(), table.tls_client_ca, &tls);
        Listen {
            address,
            tls,
            tls_min_version,
            tls_clients,
            max_clients: table.max_clients.unwrap_or(500),
            login_timeout,
        }
    }

    fn client_certificates(
        &mut self,
        word: Option<&str>,
        ca: Option<PathBuf>,
        tls: &ListenTls,
    ) -> ClientCertificates {
        const KEY: &str = "listen.tls_client_auth";
        let ca = ca.map(|path| self.path(path));
        if word.is_some_and(|word| word != "off") && *tls == ListenTls::Off {
            self.wrong(KEY, "certificates are shown over TLS only, and listen.tls is \"off\"");
        }
        match (word.unwrap_or("off"), ca) {
            ("off", None) => ClientCertificates::Off,
            ("off", Some(_)) => {
                self.wrong(KEY, "tls_client_ca has no effect without it: write \"optional\" or \"require\"");
                ClientCertificates::Off
            }
            ("optional", Some(ca)) => ClientCertificates::Optional(ca),
            ("require", Some(ca)) => ClientCertificates::Require(ca),
            ("optional" | "require", None) => {
                self.wrong(KEY, "needs tls_client_ca, the file of the roots that sign clients' certificates");
                ClientCertificates::Off
            }
            (other, _) => {
                let known = "\"off\", \"optional\", \"require\"";
                self.wrong(KEY, format_args!("{other:?} is not one of {known}"));
                ClientCertificates::Off
            }
        }
    }
}
