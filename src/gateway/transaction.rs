//! How the transaction around each execution ended.
//!
//! Ends of executions gather here until the server's ReadyForQuery says what became of their
//! transaction; those of a transaction that goes on are written as `open` and settled later.
//!
//! Source: PostgreSQL documentation, "Multiple Statements in a Simple Query", "Pipelining" (an
//! implicit transaction lasts up to Sync).

use pgwitness_index::record::{Completion, Outcome, Seq, Settlement, TxnOutcome};
use pgwitness_protocol::backend::Status;

/// Records of one transaction that wait to be settled; beyond, they are written as `unknown`.
const MAX_OPEN: usize = 1_000_000;

/// What a completed statement means for the transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Control {
    /// Nothing.
    None,
    /// COMMIT, END: what was open stands, if the tag says so.
    Commit,
    /// ROLLBACK, ABORT: what was open is undone.
    Rollback,
    /// PREPARE TRANSACTION: its end will not be seen here.
    Prepare,
    /// SAVEPOINT name.
    Savepoint(String),
    /// ROLLBACK TO name: what came after the savepoint is undone.
    RollbackTo(String),
    /// RELEASE name: the savepoint is forgotten.
    Release(String),
}

/// What is to be written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) completions: Vec<Completion>,
    pub(crate) settlements: Vec<Settlement>,
}

/// The present transaction of one session.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    /// Ended, not yet written.
    done: Vec<Completion>,
    /// Written as open, in order.
    open: Vec<Seq>,
    /// Name, and how many records stood before it.
    savepoints: Vec<(String, usize)>,
    failed: bool,
}

impl Transaction {
    /// An execution ended. Its outcome and tag decide whether `control` took effect.
    pub(crate) fn finished(&mut self, completion: Completion, control: Control, ends: &mut Ends) {
        let ok = completion.outcome == Outcome::Ok;
        // COMMIT of a failed transaction answers with the tag ROLLBACK.
        let undone = completion.command == "ROLLBACK";
        self.failed |= matches!(completion.outcome, Outcome::Error | Outcome::Canceled);
        self.done.push(completion);
        if !ok {
            return;
        }
        match control {
            Control::None => {}
            Control::Commit if undone => self.settle_from(0, TxnOutcome::RolledBack, ends),
            Control::Commit => self.settle_from(0, TxnOutcome::Committed, ends),
            Control::Rollback => self.settle_from(0, TxnOutcome::RolledBack, ends),
            Control::Prepare if undone => self.settle_from(0, TxnOutcome::RolledBack, ends),
            Control::Prepare => self.settle_from(0, TxnOutcome::Unknown, ends),
            Control::Savepoint(name) => {
                let mark = self.open.len() + self.done.len();
                self.savepoints.push((name, mark));
            }
            Control::RollbackTo(name) => self.roll_back_to(&name, ends),
            Control::Release(name) => {
                if let Some(at) = self.savepoints.iter().rposition(|(known, _)| *known == name) {
                    self.savepoints.truncate(at);
                }
            }
        }
    }

    fn roll_back_to(&mut self, name: &str, ends: &mut Ends) {
        self.failed = false;
        let Some(at) = self.savepoints.iter().rposition(|(known, _)| known == name) else { return };
        self.savepoints.truncate(at + 1);
        let mark = self.savepoints.get(at).map_or(0, |(_, mark)| *mark);
        // The ROLLBACK TO itself shares the fate of the transaction that goes on.
        let own = self.done.pop();
        self.settle_range(mark, TxnOutcome::RolledBack, ends);
        self.done.extend(own);
    }

    /// It failed outside of any execution: a Bind was turned down, or the commit at Sync.
    pub(crate) fn fail(&mut self) {
        self.failed = true;
    }

    /// ReadyForQuery.
    pub(crate) fn ready(&mut self, status: Status, ends: &mut Ends) {
        if status == Status::Idle {
            let outcome = if self.failed { TxnOutcome::RolledBack } else { TxnOutcome::Committed };
            self.settle_from(0, outcome, ends);
        } else {
            self.flush(ends);
        }
    }

    /// Writes what has ended, though its transaction has not.
    pub(crate) fn flush(&mut self, ends: &mut Ends) {
        for mut completion in self.done.drain(..) {
            if self.open.len() < MAX_OPEN {
                completion.txn_outcome = TxnOutcome::Open;
                self.open.push(completion.seq);
            } else {
                completion.txn_outcome = TxnOutcome::Unknown;
            }
            ends.completions.push(completion);
        }
    }

    /// The session is over. `clean`: nothing was unanswered, so the server rolls back what is open.
    pub(crate) fn end(&mut self, clean: bool, ends: &mut Ends) {
        let outcome = if clean { TxnOutcome::RolledBack } else { TxnOutcome::Unknown };
        self.settle_from(0, outcome, ends);
    }

    fn settle_from(&mut self, mark: usize, outcome: TxnOutcome, ends: &mut Ends) {
        self.settle_range(mark, outcome, ends);
        self.savepoints.clear();
        self.failed = false;
    }

    fn settle_range(&mut self, mark: usize, txn_outcome: TxnOutcome, ends: &mut Ends) {
        let open = self.open.len();
        if mark < open {
            ends.settlements.push(Settlement { seqs: self.open.split_off(mark), txn_outcome });
        }
        let first = mark.saturating_sub(open).min(self.done.len());
        let told = ends.completions.len();
        ends.completions.extend(self.done.drain(first..));
        for completion in ends.completions.iter_mut().skip(told) {
            completion.txn_outcome = txn_outcome;
        }
        // Savepoints after the mark are gone with what they marked.
        let left = self.open.len() + self.done.len();
        for (_, at) in &mut self.savepoints {
            *at = (*at).min(left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(seq: u64, outcome: Outcome, tag: &'static str) -> Completion {
        Completion { seq: Seq(seq), command: tag.into(), ..Completion::new(outcome, TxnOutcome::Open) }
    }

    /// What each record was told last, by seq.
    #[track_caller]
    fn check(steps: impl FnOnce(&mut Transaction, &mut Ends), expected: &[(u64, &str)]) {
        let (mut transaction, mut ends) = (Transaction::default(), Ends::default());
        steps(&mut transaction, &mut ends);
        let mut told = std::collections::BTreeMap::new();
        for completion in &ends.completions {
            told.insert(completion.seq.0, completion.txn_outcome.as_str());
        }
        for settlement in &ends.settlements {
            for seq in &settlement.seqs {
                assert_eq!(told.insert(seq.0, settlement.txn_outcome.as_str()), Some("open"));
            }
        }
        assert_eq!(told.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_single_statement_commits_with_its_ready() {
        check(
            |t, e| {
                t.finished(done(1, Outcome::Ok, "INSERT"), Control::None, e);
                t.ready(Status::Idle, e);
            },
            &[(1, "committed")],
        );
    }

    #[test]
    fn an_implicit_transaction_is_rolled_back_by_its_error() {
        check(
            |t, e| {
                t.finished(done(1, Outcome::Ok, "INSERT"), Control::None, e);
                t.finished(done(2, Outcome::Error, ""), Control::None, e);
                t.finished(done(3, Outcome::Skipped, ""), Control::None, e);
                t.ready(Status::Idle, e);
                t.finished(done(4, Outcome::Ok, "SELECT"), Control::None, e);
                t.ready(Status::Idle, e);
            },
            &[(1, "rolled_back"), (2, "rolled_back"), (3, "rolled_back"), (4, "committed")],
        );
    }

    #[test]
    fn an_open_transaction_is_settled_by_its_commit() {
        check(
            |t, e| {
                t.finished(done(1, Outcome::Ok, "BEGIN"), Control::None, e);
                t.ready(Status::Transaction, e);
                t.finished(done(2, Outcome::Ok, "INSERT"), Control::None, e);
                t.ready(Status::Transaction, e);
                t.finished(done(3, Outcome::Ok, "COMMIT"), Control::Commit, e);
                t.ready(Status::Idle, e);
            },
            &[(1, "committed"), (2, "committed"), (3, "committed")],
        );
    }

    #[test]
    fn a_commit_that_became_a_rollback_is_a_rollback() {
        check(
            |t, e| {
                t.finished(done(1, Outcome::Error, ""), Control::None, e);
                t.ready(Status::Failed, e);
                t.finished(done(2, Outcome::Ok, "ROLLBACK"), Control::Commit, e);
                t.ready(Status::Idle, e);
            },
            &[(1, "rolled_back"), (2, "rolled_back")],
        );
    }

    #[test]
    fn a_transaction_that_had_failed_is_rolled_back_by_its_prepare() {
        check(
            |t, e| {
                t.finished(done(1, Outcome::Error, ""), Control::None, e);
                t.ready(Status::Failed, e);
                t.finished(done(2, Outcome::Ok, "ROLLBACK"), Control::Prepare, e);
                t.ready(Status::Idle, e);
            },
            &[(1, "rolled_back"), (2, "rolled_back")],
        );
    }

    #[test]
    fn rolling_back_to_a_savepoint_undoes_only_what_came_after() {
        check(
            |t, e| {
                t.finished(done(1, Outcome::Ok, "INSERT"), Control::None, e);
                t.ready(Status::Transaction, e);
                t.finished(done(2, Outcome::Ok, "SAVEPOINT"), Control::Savepoint("a".into()), e);
                t.ready(Status::Transaction, e);
                t.finished(done(3, Outcome::Error, ""), Control::None, e);
                t.ready(Status::Failed, e);
                t.finished(done(4, Outcome::Ok, "ROLLBACK"), Control::RollbackTo("a".into()), e);
                t.ready(Status::Transaction, e);
                t.finished(done(5, Outcome::Ok, "COMMIT"), Control::Commit, e);
                t.ready(Status::Idle, e);
            },
            &[(1, "committed"), (2, "committed"), (3, "rolled_back"), (4, "committed"), (5, "committed")],
        );
    }

    #[test]
    fn a_deferred_constraint_that_fails_at_commit_rolls_back() {
        check(
            |t, e| {
                t.finished(done(1, Outcome::Ok, "INSERT"), Control::None, e);
                t.ready(Status::Transaction, e);
                t.finished(done(2, Outcome::Error, ""), Control::Commit, e);
                t.ready(Status::Idle, e);
                t.finished(done(3, Outcome::Ok, "INSERT"), Control::None, e);
                t.fail();
                t.ready(Status::Idle, e);
            },
            &[(1, "rolled_back"), (2, "rolled_back"), (3, "rolled_back")],
        );
    }

    #[test]
    fn a_string_with_its_own_commit_keeps_what_was_committed() {
        check(
            |t, e| {
                t.finished(done(1, Outcome::Ok, "INSERT"), Control::None, e);
                t.finished(done(2, Outcome::Ok, "COMMIT"), Control::Commit, e);
                t.finished(done(3, Outcome::Error, ""), Control::None, e);
                t.ready(Status::Idle, e);
            },
            &[(1, "committed"), (2, "committed"), (3, "rolled_back")],
        );
    }

    #[test]
    fn what_is_open_when_the_session_ends_is_rolled_back_or_unknown() {
        let open = |clean| {
            move |t: &mut Transaction, e: &mut Ends| {
                t.finished(done(1, Outcome::Ok, "INSERT"), Control::None, e);
                t.ready(Status::Transaction, e);
                t.end(clean, e);
            }
        };
        check(open(true), &[(1, "rolled_back")]);
        check(open(false), &[(1, "unknown")]);
    }
}
