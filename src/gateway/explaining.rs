//! What would be recorded of statements that nobody runs: one after the other, as one session would send them.

use std::collections::HashMap;
use std::sync::Arc;

use pgwitness_protocol::backend::Status;

use super::databases::{Looked, Sight};
use super::reading::{Context, Reading};
use super::state::{Settings, State};
use crate::grammar::Processes;
use crate::sql::{Analysis, Certainty, Effect};

/// Prepared statements and cursors that are remembered; of those beyond, nothing is known.
const MAX_NAMED: usize = 10_000;

/// A session of statements that are read and not run: each is taken to succeed. What SET, transactions, DDL, PREPARE
/// and temporary tables change is followed from the text, as the gateway does it before the catalog tells.
///
/// Where that leaves a statement unsure and the database as it is does not, the database is believed: an earlier
/// statement may have failed, or have been run long ago.
pub struct Explaining {
    place: (String, String),
    sight: Sight,
    login: Settings,
    grammar: Processes,
    state: State,
    in_transaction: bool,
    /// Their texts.
    prepared: HashMap<String, String>,
    cursors: HashMap<String, Analysis>,
}

impl std::fmt::Debug for Explaining {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Explaining").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Explaining {
    /// A session at its login.
    #[must_use]
    pub fn new(looked: Looked) -> Self {
        let schema = Arc::new(looked.schema);
        let told = [("search_path".to_owned(), looked.search_path)];
        let login = Settings::at_login(&looked.role, &[], &told, Some(&schema));
        Self {
            place: (String::new(), looked.role),
            sight: Sight { schema: Some(schema), outdated: false },
            state: State::new(login.clone()),
            login,
            grammar: looked.grammar,
            in_transaction: false,
            prepared: HashMap::new(),
            cursors: HashMap::new(),
        }
    }

    /// Forgets what earlier statements did: another session begins.
    pub fn restart(&mut self) {
        self.state = State::new(self.login.clone());
        self.in_transaction = false;
        self.prepared.clear();
        self.cursors.clear();
    }

    /// How the session reads strings: its `standard_conforming_strings`.
    #[must_use]
    pub fn strings_standard(&self) -> bool {
        self.state.settings().strings_standard
    }

    /// What would be recorded of one statement. The session goes on as if it had succeeded.
    pub fn statement(&mut self, text: &str) -> Analysis {
        let mut analysis = self.read(text, self.state.settings());
        let reading = Arc::new(Reading::explained(&analysis));
        self.name_it(text, &analysis);
        let on = match &analysis.effect {
            Effect::ExecutePrepared { name } => {
                self.prepared.get(name).map(|text| self.read(text, self.state.settings()))
            }
            Effect::Fetch { cursor } => self.cursors.get(cursor).cloned(),
            _ => None,
        };
        if let Some(on) = on {
            analysis = Analysis { command: analysis.command, effect: analysis.effect, ..on };
        }
        if analysis.certainty != Certainty::Exact {
            let alone = self.read(text, &self.login);
            if alone.certainty == Certainty::Exact {
                analysis = alone;
            }
        }
        self.go_on(&reading);
        analysis
    }

    fn name_it(&mut self, text: &str, analysis: &Analysis) {
        match &analysis.effect {
            Effect::Prepare { name, text: inside } if self.prepared.len() < MAX_NAMED => {
                let inner = text.get(inside.clone()).map(str::to_owned);
                self.prepared.extend(inner.map(|inner| (name.clone(), inner)));
            }
            Effect::Declare { cursor, .. } if self.cursors.len() < MAX_NAMED => {
                self.cursors.insert(cursor.clone(), analysis.clone());
            }
            _ => {}
        }
    }

    fn go_on(&mut self, reading: &Arc<Reading>) {
        self.state.asked(reading);
        self.state.succeeded(reading, false);
        match reading.effect {
            Effect::Begin => self.in_transaction = true,
            Effect::Commit { chain } | Effect::Rollback { chain } => self.in_transaction = chain,
            Effect::PrepareTransaction => self.in_transaction = false,
            _ => {}
        }
        let status = if self.in_transaction { Status::Transaction } else { Status::Idle };
        self.state.ready(status, false, true);
    }

    fn context(&self, settings: &Settings) -> Context {
        Context::new((&self.place.0, &self.place.1), self.sight.clone(), settings)
    }

    fn read(&self, text: &str, settings: &Settings) -> Analysis {
        self.context(settings).analyze(text.as_bytes(), settings.strings_standard, &self.grammar)
    }
}
