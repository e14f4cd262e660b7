//! What the session has set, as far as the record and the reading of statements need it: the
//! effective role, search_path, string settings, prepared statements and cursors by SQL.
//!
//! Two views: what the server has confirmed, and what it will be once everything asked has
//! succeeded (the next statement of a pipeline is read under that one).
//!
//! Source: PostgreSQL documentation, SET, SET ROLE, SET SESSION AUTHORIZATION, RESET, DISCARD,
//! PREPARE, DECLARE.

use std::collections::HashMap;
use std::sync::Arc;

use pgwitness_protocol::backend::Status;

use super::reading::{Reading, Redefines};
use crate::catalog::Schema;
use crate::sql::{Change, Effect, Own, Sets, What, search_path_items};

/// SQL-prepared statements and cursors remembered for one session; beyond, they are `unresolved`.
const MAX_NAMED: usize = 10_000;

/// Relations of its own remembered for one session; beyond, the reading of all statements is in doubt.
const MAX_OWN: usize = 1_000;

/// PostgreSQL's own default.
const DEFAULT_PATH: &str = "\"$user\", public";

/// The settings that matter. `None` is a value that only the server knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) session_role: Arc<str>,
    pub(super) role: Option<Arc<str>>,
    pub(super) search_path: Option<Arc<str>>,
    pub(super) strings_standard: bool,
    pub(super) encoding: Arc<str>,
    /// Triggers and rules are those of a replica (`session_replication_role`).
    pub(super) replica: bool,
    /// The relations that only the session sees.
    pub(super) own: Arc<Own>,
    /// May have been changed out of sight: by a function, a block, a trigger.
    role_in_doubt: bool,
    path_in_doubt: bool,
    /// The server reports the path whenever it changes (PostgreSQL 18).
    path_reported: bool,
    /// The open transaction has changed what names mean.
    pub(super) redefined: bool,
}

type Named = Arc<HashMap<String, Arc<Reading>>>;

/// One view of the session.
#[derive(Debug, Clone)]
struct View {
    /// As they stand now.
    now: Settings,
    /// As they will stand after the transaction: without SET LOCAL.
    kept: Settings,
    /// Survive a rollback (PREPARE is not transactional).
    prepared: Named,
    cursors: Named,
    /// Before the present transaction, if it has changed something; then its savepoints.
    before: Option<Box<(Settings, Settings)>>,
    savepoints: Vec<(String, Settings, Settings)>,
}

/// Both views.
#[derive(Debug)]
pub(super) struct State {
    login: Settings,
    confirmed: View,
    expected: View,
    /// Whether the two may differ.
    diverged: bool,
}

impl Settings {
    /// Settings at login: what the role and the database prescribe, then what the client asked for and the server
    /// told when it was asked.
    pub(super) fn at_login(
        role: &str,
        asked: &[(String, String)],
        reported: &[(String, String)],
        schema: Option<&Schema>,
    ) -> Self {
        let role: Arc<str> = role.into();
        let mut path = DEFAULT_PATH.to_owned();
        for setting in schema.map(Schema::login_settings).unwrap_or_default() {
            let ours = setting.role.as_ref().is_none_or(|for_role| **for_role == *role);
            if ours && &*setting.name == "search_path" {
                path = setting.value.to_string();
            }
        }
        let mut settings = Self {
            session_role: role.clone(),
            role: Some(role),
            search_path: Some(path.into()),
            strings_standard: true,
            encoding: "UTF8".into(),
            replica: false,
            own: Arc::default(),
            role_in_doubt: false,
            path_in_doubt: false,
            path_reported: reported.iter().any(|(name, _)| name == "search_path"),
            redefined: false,
        };
        for (name, value) in asked {
            settings.set(&name.to_lowercase(), Some(value));
        }
        for (name, value) in reported {
            settings.report(name, value);
        }
        settings
    }

    fn set(&mut self, name: &str, value: Option<&str>) {
        match name {
            "role" => {
                self.role_in_doubt = false;
                self.role = match value {
                    Some("none") => Some(self.session_role.clone()),
                    other => other.map(Into::into),
                }
            }
            "session_authorization" => {
                self.role_in_doubt = false;
                let role = value.map_or_else(|| self.session_role.clone(), Into::into);
                self.role = value.is_some().then(|| role.clone());
                self.session_role = role;
            }
            "search_path" => {
                self.path_in_doubt = false;
                self.search_path = value.map(Into::into);
            }
            "standard_conforming_strings" => {
                if let Some(value) = value {
                    self.strings_standard = !matches!(value, "off" | "false" | "no" | "0");
                }
            }
            "client_encoding" => self.encoding = value.unwrap_or("").into(),
            "session_replication_role" => self.replica = value == Some("replica"),
            _ => {}
        }
    }

    /// ParameterStatus: the server's word, which ends all doubt.
    fn report(&mut self, name: &str, value: &str) {
        if matches!(name, "standard_conforming_strings" | "client_encoding" | "search_path") {
            self.set(name, Some(value));
        }
        // Told only when it changes; the role falls back to it.
        if name == "session_authorization" && *self.session_role != *value {
            self.set(name, Some(value));
        }
    }

    /// Whether role or path may be others than these.
    pub(super) fn is_doubtful(&self) -> bool {
        self.role_in_doubt || self.path_in_doubt || self.own.len() > MAX_OWN
    }

    fn unsettle(&mut self) {
        self.role_in_doubt = true;
        self.path_in_doubt = !self.path_reported;
    }

    fn change(&mut self, change: &Change) {
        if self.own.len() <= MAX_OWN {
            Arc::make_mut(&mut self.own).apply(change);
        }
    }

    fn copy(&mut self, name: &str, from: &Settings) {
        match name {
            "role" => {
                self.role.clone_from(&from.role);
                self.role_in_doubt = from.role_in_doubt;
            }
            "session_authorization" => {
                self.session_role = from.session_role.clone();
                self.role.clone_from(&from.role);
                self.role_in_doubt = from.role_in_doubt;
            }
            "search_path" => {
                self.search_path.clone_from(&from.search_path);
                self.path_in_doubt = from.path_in_doubt;
            }
            "standard_conforming_strings" => self.strings_standard = from.strings_standard,
            "client_encoding" => self.encoding = from.encoding.clone(),
            "session_replication_role" => self.replica = from.replica,
            _ => {}
        }
    }

    /// The schemas searched, in order, as `current_schemas(true)` tells them; temporary ones
    /// excepted. `None` if the setting is not known.
    pub(super) fn schemas(&self, schema: &Schema) -> Option<Vec<String>> {
        let items = search_path_items(self.search_path.as_deref()?);
        let mut found: Vec<String> = Vec::new();
        for item in items {
            let name = if item == "$user" { self.role.as_deref()?.to_owned() } else { item };
            let here = name == "pg_temp" || schema.has_schema(&name) || self.own.has_schema(&name);
            if here && !found.contains(&name) {
                found.push(name);
            }
        }
        if !found.iter().any(|name| name == "pg_catalog") {
            found.insert(0, "pg_catalog".into());
        }
        Some(found)
    }
}

impl View {
    fn remember(&mut self) {
        if self.before.is_none() {
            self.before = Some(Box::new((self.now.clone(), self.kept.clone())));
        }
    }

    fn apply(&mut self, reading: &Arc<Reading>, login: &Settings) {
        self.take_effect(reading, login);
        if reading.unsettling || !reading.changes.is_empty() {
            self.unsettle(reading);
        }
        if reading.redefines == Redefines::Names && !reading.followed {
            self.remember();
            self.now.redefined = true;
        }
    }

    fn take_effect(&mut self, reading: &Arc<Reading>, login: &Settings) {
        match &reading.effect {
            Effect::Set(sets) => {
                self.remember();
                sets.iter().for_each(|set| self.set(set, login));
            }
            Effect::Reset { name } => {
                self.remember();
                self.now.copy(name, login);
                self.kept.copy(name, login);
            }
            Effect::ResetAll => {
                self.remember();
                for name in [
                    "search_path",
                    "standard_conforming_strings",
                    "client_encoding",
                    "session_replication_role",
                ] {
                    self.now.copy(name, login);
                    self.kept.copy(name, login);
                }
            }
            Effect::DiscardTemp => {
                self.remember();
                for settings in [&mut self.now, &mut self.kept] {
                    Arc::make_mut(&mut settings.own).discard_temporary();
                }
            }
            Effect::DiscardAll => {
                self.now = login.clone();
                self.kept = login.clone();
                self.prepared = Named::default();
                self.cursors = Named::default();
            }
            Effect::Prepare { name, .. } => name_it(&mut self.prepared, name, reading),
            Effect::Deallocate { name: None } => self.prepared = Named::default(),
            Effect::Deallocate { name: Some(name) } => {
                Arc::make_mut(&mut self.prepared).remove(name);
            }
            Effect::Declare { cursor, .. } => name_it(&mut self.cursors, cursor, reading),
            Effect::CloseCursor { cursor: None } => self.cursors = Named::default(),
            Effect::CloseCursor { cursor: Some(cursor) } => {
                Arc::make_mut(&mut self.cursors).remove(cursor);
            }
            Effect::Savepoint { name } => {
                self.savepoints.push((name.clone(), self.now.clone(), self.kept.clone()));
            }
            Effect::Release { name } => {
                if let Some(at) = self.savepoints.iter().rposition(|(known, ..)| known == name) {
                    self.savepoints.truncate(at);
                }
            }
            Effect::RollbackTo { name } => {
                if let Some(at) = self.savepoints.iter().rposition(|(known, ..)| known == name) {
                    self.savepoints.truncate(at + 1);
                    if let Some((_, now, kept)) = self.savepoints.last() {
                        (self.now, self.kept) = (now.clone(), kept.clone());
                    }
                }
            }
            Effect::Commit { .. } | Effect::PrepareTransaction => self.end(Keep::Yes),
            Effect::Rollback { .. } => self.end(Keep::No),
            _ => {}
        }
    }

    /// What happens out of sight, and to relations that only the session sees.
    fn unsettle(&mut self, reading: &Reading) {
        self.remember();
        for settings in [&mut self.now, &mut self.kept] {
            if reading.unsettling {
                settings.unsettle();
            }
            reading.changes.iter().for_each(|change| settings.change(change));
        }
    }

    fn set(&mut self, set: &Sets, login: &Settings) {
        let Some(name) = &set.name else {
            // Which parameter was set is not known: neither is any that matters.
            self.now.search_path = None;
            self.now.role = None;
            return;
        };
        let settings = match set.local {
            Some(true) => vec![&mut self.now],
            _ => vec![&mut self.now, &mut self.kept],
        };
        for settings in settings {
            match &set.value {
                What::Text(value) => settings.set(name, Some(value)),
                What::Default => settings.copy(name, login),
                What::Unknown => settings.set(name, None),
            }
        }
    }

    fn end(&mut self, keep: Keep) {
        match (keep, self.before.take()) {
            (Keep::No, Some(before)) => (self.now, self.kept) = *before,
            _ => {
                if self.kept.own.ends_with_transaction() {
                    Arc::make_mut(&mut self.kept.own).end_transaction();
                }
                self.now = self.kept.clone();
            }
        }
        self.savepoints.clear();
        let stays = |reading: &Arc<Reading>| matches!(reading.effect, Effect::Declare { hold: true, .. });
        if self.cursors.values().any(|reading| !stays(reading)) {
            Arc::make_mut(&mut self.cursors).retain(|_, reading| stays(reading));
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Keep {
    Yes,
    No,
}

fn name_it(names: &mut Named, name: &str, reading: &Arc<Reading>) {
    if names.len() < MAX_NAMED || names.contains_key(name) {
        Arc::make_mut(names).insert(name.to_owned(), reading.clone());
    }
}

impl State {
    pub(super) fn new(login: Settings) -> Self {
        let view = View {
            now: login.clone(),
            kept: login.clone(),
            prepared: Named::default(),
            cursors: Named::default(),
            before: None,
            savepoints: Vec::new(),
        };
        Self { login, confirmed: view.clone(), expected: view, diverged: false }
    }

    /// The settings under which the next statement will be read by the server.
    pub(super) fn settings(&self) -> &Settings {
        &self.expected.now
    }

    /// The PREPARE that made the statement of this name.
    pub(super) fn prepared(&self, name: &str) -> Option<&Arc<Reading>> {
        self.expected.prepared.get(name)
    }

    /// What a cursor of this name touches.
    pub(super) fn cursor(&self, name: &str) -> Option<&Arc<Reading>> {
        self.expected.cursors.get(name)
    }

    /// A statement was asked. Says whether settings may have changed.
    pub(super) fn asked(&mut self, reading: &Arc<Reading>) -> bool {
        if !reading.changes_session() {
            return false;
        }
        self.diverged = true;
        self.expected.apply(reading, &self.login);
        true
    }

    /// A statement succeeded; `undone`: it was a COMMIT or PREPARE TRANSACTION that became a ROLLBACK.
    pub(super) fn succeeded(&mut self, reading: &Arc<Reading>, undone: bool) {
        if !reading.changes_session() {
            return;
        }
        if undone && matches!(reading.effect, Effect::Commit { .. } | Effect::PrepareTransaction) {
            self.confirmed.end(Keep::No);
        } else {
            self.confirmed.apply(reading, &self.login);
        }
    }

    /// What was asked last will not be forwarded: nothing else is unanswered, or the session ends.
    /// Says whether settings may have changed.
    pub(super) fn retracted(&mut self) -> bool {
        let changed = self.expected.now != self.confirmed.now;
        self.expected = self.confirmed.clone();
        self.diverged = false;
        changed
    }

    /// The server reported a parameter. Says whether it is one that matters.
    pub(super) fn reported(&mut self, name: &str, value: &str) -> bool {
        let before = self.expected.now.clone();
        for view in [&mut self.confirmed, &mut self.expected] {
            view.now.report(name, value);
        }
        before != self.expected.now
    }

    /// ReadyForQuery. `settled`: nothing else is asked, so both views are one again. Says whether
    /// settings may have changed.
    pub(super) fn ready(&mut self, status: Status, failed: bool, settled: bool) -> bool {
        if status == Status::Idle && (self.confirmed.before.is_some() || self.diverged) {
            self.confirmed.end(if failed { Keep::No } else { Keep::Yes });
        }
        if settled && self.diverged {
            self.diverged = false;
            let changed = self.expected.now != self.confirmed.now;
            self.expected = self.confirmed.clone();
            return changed;
        }
        false
    }
}
