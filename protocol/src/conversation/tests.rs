//! One script per trap: `>` lines are asked by the client, `<` lines answered by the server.

use super::*;

struct Talk {
    conversation: Conversation,
    next: u64,
    /// Text (or "?" if unknown) of each execution, by number.
    texts: Vec<String>,
    told: Vec<String>,
    bytes: Vec<u64>,
    waited: bool,
}

fn bounds() -> Bounds {
    Bounds { message: 1 << 20, names: 100, memory: 1 << 16, pipeline: 1000 }
}

impl Talk {
    fn new() -> Self {
        Talk {
            conversation: Conversation::new(bounds()),
            next: 0,
            texts: vec![],
            told: vec![],
            bytes: vec![],
            waited: false,
        }
    }

    fn exec(&mut self, text: &str) -> ExecId {
        self.texts.push(text.to_owned());
        self.next += 1;
        ExecId(self.next - 1)
    }

    fn ask(&mut self, tag: u8, body: &[u8]) -> &mut Self {
        let frame = Frame { tag, length: body.len(), body };
        self.waited = false;
        match self.conversation.ask(&frame).unwrap() {
            Ask::Query(text) => {
                let text = String::from_utf8(text.to_vec()).unwrap();
                let mut start = 0;
                let mut slices = Vec::new();
                for statement in text.split(';') {
                    if !statement.trim().is_empty() {
                        slices.push(Slice { exec: self.exec(statement.trim()), start });
                    }
                    start += statement.len() + 1;
                }
                self.conversation.started_query(slices);
            }
            Ask::Execute(execution) => {
                let text = execution.prepared.as_ref().map(|p| String::from_utf8_lossy(&p.text).into_owned());
                let exec = self.exec(text.as_deref().unwrap_or("?"));
                self.conversation.started(b'E', &execution.portal, Some(exec));
            }
            Ask::Call(_) => {
                let exec = self.exec("call");
                self.conversation.started(b'F', b"", Some(exec));
            }
            Ask::Wait => self.waited = true,
            Ask::Pass | Ask::Terminate => {}
        }
        self
    }

    fn query(&mut self, text: &str) -> &mut Self {
        self.ask(b'Q', format!("{text}\0").as_bytes())
    }
    fn parse(&mut self, name: &str, text: &str) -> &mut Self {
        self.ask(b'P', format!("{name}\0{text}\0\0\0").as_bytes())
    }
    fn bind(&mut self, portal: &str, statement: &str) -> &mut Self {
        self.ask(b'B', format!("{portal}\0{statement}\0\0\0\0\0\0\0").as_bytes())
    }
    fn execute(&mut self, portal: &str) -> &mut Self {
        self.ask(b'E', format!("{portal}\0\0\0\0\0").as_bytes())
    }
    fn alters(&mut self, alters: Alters) -> &mut Self {
        self.conversation.alters(ExecId(self.next - 1), alters);
        self
    }
    fn close(&mut self, kind: &str, name: &str) -> &mut Self {
        self.ask(b'C', format!("{kind}{name}\0").as_bytes())
    }
    fn sync(&mut self) -> &mut Self {
        self.ask(b'S', b"")
    }

    fn answer(&mut self, tag: u8, body: &[u8]) -> &mut Self {
        let mut events = Vec::new();
        self.conversation.answer(&Frame { tag, length: body.len(), body }, &mut events).unwrap();
        self.tell(events);
        self
    }

    fn tell(&mut self, events: Vec<Event>) {
        for event in events {
            self.told.push(match event {
                Event::Finished(exec, end) => {
                    self.bytes.push(end.bytes);
                    let rows = end.rows.map(|rows| format!(" {rows}")).unwrap_or_default();
                    let origins =
                        end.origins.iter().map(|origin| format!(" {}.{}", origin.table, origin.column));
                    let origins: String = origins.collect();
                    format!("{}: {:?}{rows}{origins}", self.texts[exec.0 as usize], end.how)
                }
                Event::Unannounced(end) => format!("unannounced {}", end.command),
                Event::Ready(status) => format!("{status:?}"),
                Event::TransactionFailed(report) => format!("transaction failed {}", report.code),
                Event::Parameter { .. } => "parameter".to_owned(),
                Event::Fatal(_) => "fatal".to_owned(),
            });
        }
    }

    fn done(&mut self, tag: &str) -> &mut Self {
        self.answer(b'C', format!("{tag}\0").as_bytes())
    }
    fn rows(&mut self, count: usize) -> &mut Self {
        (0..count).for_each(|_| {
            self.answer(b'D', b"\0\0");
        });
        self
    }
    fn error(&mut self, code: &str, position: usize) -> &mut Self {
        self.answer(b'E', format!("VERROR\0C{code}\0Mbad\0P{position}\0\0").as_bytes())
    }
    fn ready(&mut self, status: &str) -> &mut Self {
        self.answer(b'Z', status.as_bytes())
    }

    #[track_caller]
    fn told(&mut self, expected: &[&str]) -> &mut Self {
        assert_eq!(self.told, expected);
        self.told.clear();
        self
    }
}

#[test]
fn one_parse_and_three_executes_are_three_executions() {
    let mut talk = Talk::new();
    talk.parse("s", "select 1").sync().answer(b'1', b"").ready("I").told(&["Idle"]);
    for _ in 0..3 {
        talk.bind("", "s").execute("").sync();
        talk.answer(b'2', b"").rows(1).done("SELECT 1").ready("I").told(&["select 1: Ok 1", "Idle"]);
    }
}

#[test]
fn a_pipeline_with_an_error_in_the_middle_skips_the_rest() {
    let mut talk = Talk::new();
    for text in ["a", "b", "c", "d", "e"] {
        talk.parse("", text).bind("", "").execute("");
    }
    talk.sync();
    for _ in 0..2 {
        talk.answer(b'1', b"").answer(b'2', b"").done("INSERT 0 1");
    }
    talk.answer(b'1', b"").answer(b'2', b"").error("22012", 0).ready("I");
    talk.told(&["a: Ok 1", "b: Ok 1", "c: Error", "d: Skipped", "e: Skipped", "Idle"]);
    assert!(talk.conversation.is_idle());
}

#[test]
fn a_statement_sent_after_the_error_and_before_the_sync_is_skipped() {
    let mut talk = Talk::new();
    talk.parse("", "a").bind("", "").execute("").error("42601", 0);
    talk.told(&["transaction failed 42601", "a: Error"]);
    talk.parse("", "b").bind("", "").execute("").query("c").sync().ready("I");
    talk.told(&["b: Skipped", "c: Skipped", "Idle"]);
    talk.parse("", "d").bind("", "").execute("").sync();
    talk.answer(b'1', b"").answer(b'2', b"").done("SELECT 0").ready("I").told(&["d: Ok 0", "Idle"]);
}

#[test]
fn a_named_statement_turned_down_leaves_the_older_text_in_force() {
    let mut talk = Talk::new();
    talk.parse("s", "old").sync().answer(b'1', b"").ready("I").told(&["Idle"]);
    talk.parse("s", "new").sync();
    // Its fate is open: a later segment must not guess.
    talk.bind("", "s");
    assert!(talk.waited);
    talk.error("42P05", 0).ready("I");
    talk.bind("", "s").execute("").sync();
    assert!(!talk.waited);
    talk.answer(b'2', b"").done("SELECT 0").ready("I").told(&[
        "transaction failed 42P05",
        "Idle",
        "old: Ok 0",
        "Idle",
    ]);
}

#[test]
fn definitions_of_a_later_segment_survive_the_failure_of_an_earlier_one() {
    let mut talk = Talk::new();
    talk.parse("", "first").bind("", "").execute("").sync();
    talk.parse("", "second").bind("", "").execute("").sync();
    talk.error("42601", 0).ready("I");
    talk.answer(b'1', b"").answer(b'2', b"").done("SELECT 0").ready("I");
    talk.told(&["transaction failed 42601", "first: Error", "Idle", "second: Ok 0", "Idle"]);
}

#[test]
fn a_suspended_portal_is_one_execution_with_its_rows_summed() {
    let mut talk = Talk::new();
    talk.query("begin").done("BEGIN").ready("T").told(&["begin: Ok", "Transaction"]);
    talk.parse("", "q").bind("p", "").execute("p").sync();
    talk.answer(b'1', b"").answer(b'2', b"").rows(2).answer(b's', b"").ready("T").told(&["Transaction"]);
    talk.execute("p").sync().rows(1).done("SELECT 1").ready("T").told(&["q: Ok 3", "Transaction"]);
    talk.execute("p").sync().done("SELECT 0").ready("T").told(&["Transaction"]);
}

#[test]
fn running_a_portal_that_has_failed_is_an_attempt_of_its_own() {
    let mut talk = Talk::new();
    talk.query("begin").done("BEGIN").ready("T").told(&["begin: Ok", "Transaction"]);
    talk.parse("", "q").bind("p", "").execute("p").sync();
    talk.answer(b'1', b"").answer(b'2', b"").error("22012", 0).ready("E").told(&["q: Error", "Failed"]);
    talk.execute("p").sync().error("25P02", 0).ready("E").told(&["q: Error", "Failed"]);
}

#[test]
fn a_suspended_portal_ends_with_its_transaction() {
    let mut talk = Talk::new();
    talk.parse("", "q").bind("p", "").execute("p").sync();
    talk.answer(b'1', b"").answer(b'2', b"").rows(2).answer(b's', b"").ready("I");
    talk.told(&["q: Ok 2", "Idle"]);
    talk.execute("p").sync().error("34000", 0).ready("I").told(&["?: Error", "Idle"]);
}

#[test]
fn the_second_of_three_statements_fails_and_the_third_never_ran() {
    let mut talk = Talk::new();
    talk.query("insert a; select 1/0; insert b").done("INSERT 0 1").error("22012", 0).ready("I");
    talk.told(&["insert a: Ok 1", "select 1/0: Error", "insert b: Skipped", "Idle"]);
}

#[test]
fn an_error_of_the_grammar_belongs_to_the_statement_where_it_stands() {
    let mut talk = Talk::new();
    talk.query("select 1; selec 2; select 3").error("42601", 11).ready("I");
    talk.told(&["select 1: Skipped", "selec 2: Error", "select 3: Skipped", "Idle"]);
}

#[test]
fn whatever_the_grammar_turns_down_belongs_to_the_statement_where_it_stands() {
    // A float of precision 0, a window frame that ends before it begins, a reserved role name.
    for code in ["22023", "42P20", "42939", "0A000", "22025"] {
        let mut talk = Talk::new();
        talk.query("select 1; create table t (a float(0)); select 3").error(code, 35).ready("I");
        talk.told(&["select 1: Skipped", "create table t (a float(0)): Error", "select 3: Skipped", "Idle"]);
    }
    // A statement prepared earlier is at fault: the position is one in that text.
    let mut talk = Talk::new();
    talk.query("execute p; select 2").error("42703", 15).ready("I");
    talk.told(&["execute p: Error", "select 2: Skipped", "Idle"]);
}

#[test]
fn copy_data_that_comes_too_late_is_not_counted_for_the_next_statement() {
    let mut talk = Talk::new();
    talk.query("copy t from stdin").answer(b'G', b"\0\0\0").error("22P02", 0).ready("I");
    talk.ask(b'd', b"late data\n").ask(b'c', b"");
    talk.query("delete").done("DELETE 1").ready("I");
    talk.told(&["copy t from stdin: Error", "Idle", "delete: Ok 1", "Idle"]);
    assert_eq!(talk.bytes, [0, 0]);
}

#[test]
fn a_statement_that_nobody_announced_is_told() {
    let mut talk = Talk::new();
    talk.query("one").done("SELECT 1").done("DELETE 3").ready("I");
    talk.told(&["one: Ok 1", "unannounced DELETE", "Idle"]);
}

#[test]
fn a_sync_among_copy_data_is_not_answered() {
    let mut talk = Talk::new();
    talk.parse("", "copy t from stdin").bind("", "").execute("").sync();
    talk.answer(b'1', b"").answer(b'2', b"").answer(b'G', b"\0\0\0");
    talk.ask(b'd', b"1\n").ask(b'c', b"").sync().done("COPY 1").ready("I");
    talk.told(&["copy t from stdin: Ok 1", "Idle"]);
    assert!(talk.conversation.is_idle());
}

#[test]
fn copy_data_sent_ahead_of_the_servers_word_is_understood() {
    let mut talk = Talk::new();
    talk.parse("", "copy t from stdin").bind("", "").execute("").ask(b'd', b"1\n").ask(b'c', b"").sync();
    talk.answer(b'1', b"").answer(b'2', b"").answer(b'G', b"\0\0\0").done("COPY 1").ready("I");
    talk.told(&["copy t from stdin: Ok 1", "Idle"]);
    assert!(talk.conversation.is_idle());
}

#[test]
fn a_copy_that_fails_while_the_client_still_sends_ends_with_the_ready() {
    let mut talk = Talk::new();
    talk.query("copy t from stdin").answer(b'G', b"\0\0\0").ask(b'd', b"x\n");
    talk.error("22P02", 0).ready("I").ask(b'd', b"y\n").ask(b'c', b"");
    talk.told(&["copy t from stdin: Error", "Idle"]);
    talk.query("select 1").rows(1).done("SELECT 1").ready("I").told(&["select 1: Ok 1", "Idle"]);
    assert!(talk.conversation.is_idle());
}

#[test]
fn a_sync_sent_before_a_copy_was_heard_of_leaves_the_next_outcome_to_its_own_statement() {
    let mut talk = Talk::new();
    talk.query("copy t from stdin").sync().answer(b'G', b"\0\0\0").ask(b'c', b"").done("COPY 0").ready("I");
    assert!(talk.conversation.is_idle());
    talk.query("a").error("22012", 0).ready("I").query("b").done("DELETE 1").ready("I");
    talk.told(&["copy t from stdin: Ok 0", "Idle", "a: Error", "Idle", "b: Ok 1", "Idle"]);
    assert!(talk.conversation.is_idle());
}

#[test]
fn a_copy_that_fails_before_it_reads_leaves_the_sync_its_answer() {
    let mut talk = Talk::new();
    talk.parse("", "copy v from stdin").bind("", "").execute("").alters(Alters::Meaning).sync();
    talk.parse("", "delete");
    assert!(talk.waited, "whether the sync is one is not known yet");
    talk.answer(b'1', b"").answer(b'2', b"").answer(b'G', b"\0\0\0").error("42809", 0);
    talk.parse("", "delete");
    assert!(talk.waited, "the server may ignore everything up to another sync");
    talk.ready("I").parse("", "delete").bind("", "").execute("").sync();
    talk.answer(b'1', b"").answer(b'2', b"").done("DELETE 1").ready("I");
    talk.told(&["copy v from stdin: Error", "Idle", "delete: Ok 1", "Idle"]);
    assert!(talk.conversation.is_idle());
}

#[test]
fn a_sync_taken_for_copy_data_is_not_waited_for_when_the_copy_fails() {
    let mut talk = Talk::new();
    talk.parse("", "copy t from stdin").bind("", "").execute("").alters(Alters::Meaning).sync();
    talk.answer(b'1', b"").answer(b'2', b"").answer(b'G', b"\0\0\0").ask(b'd', b"x\n").ask(b'c', b"");
    talk.error("22P02", 0).sync().ready("I");
    assert!(talk.conversation.is_idle());
    talk.query("select 1").rows(1).done("SELECT 1").ready("I");
    talk.told(&["copy t from stdin: Error", "Idle", "select 1: Ok 1", "Idle"]);
    assert!(talk.conversation.is_idle());
}

#[test]
fn an_end_of_data_sent_to_a_copy_that_had_failed_holds_nobody_up() {
    let mut talk = Talk::new();
    talk.query("copy t from stdin").alters(Alters::Meaning).answer(b'G', b"\0\0\0").sync().ask(b'c', b"");
    talk.error("23505", 0).ask(b'c', b"").ready("I").ask(b'c', b"");
    assert!(talk.conversation.is_idle());
    talk.query("select 1");
    assert!(!talk.waited);
    talk.rows(1).done("SELECT 1").ready("I");
    talk.told(&["copy t from stdin: Error", "Idle", "select 1: Ok 1", "Idle"]);
}

#[test]
fn two_syncs_in_doubt_with_an_end_of_data_behind_them_hold_nobody_up() {
    let mut talk = Talk::new();
    talk.query("copy t from stdin").alters(Alters::Meaning).answer(b'G', b"\0\0\0").sync().sync();
    talk.ask(b'f', b"no\0").error("57014", 0).ask(b'f', b"no\0").ready("I").sync().ready("I");
    assert!(talk.conversation.is_idle());
    talk.query("select 1");
    assert!(!talk.waited);
    talk.rows(1).done("SELECT 1").ready("I");
    talk.told(&["copy t from stdin: Error", "Idle", "Idle", "select 1: Ok 1", "Idle"]);
}

#[test]
fn an_end_of_data_behind_that_of_a_copy_holds_nobody_up() {
    let mut talk = Talk::new();
    talk.parse("", "copy t from stdin").bind("", "").execute("").alters(Alters::Meaning).sync();
    talk.ask(b'c', b"").ask(b'c', b"").answer(b'1', b"").answer(b'2', b"").answer(b'G', b"\0\0\0");
    talk.done("COPY 0").parse("", "select 1");
    assert!(!talk.waited);
    talk.told(&["copy t from stdin: Ok 0"]);
}

#[test]
fn what_follows_a_failed_copy_with_syncs_among_its_data_is_known_to_be_undecided() {
    let mut talk = Talk::new();
    talk.parse("", "copy t from stdin").bind("", "").execute("").alters(Alters::Meaning);
    talk.answer(b'1', b"").answer(b'2', b"").answer(b'G', b"\0\0\0").sync().error("22P02", 0);
    talk.bind("", "");
    assert!(talk.waited && talk.conversation.is_undecided());
    // A Sync that the server heeds for sure settles it.
    talk.sync();
    assert!(!talk.conversation.is_undecided());
    talk.ready("I");
    assert!(talk.conversation.is_idle());
}

#[test]
fn ends_of_copy_data_without_number_make_the_client_wait() {
    let mut talk = Talk::new();
    talk.query("select pg_sleep(10)");
    for _ in 0..1000 {
        talk.ask(b'c', b"");
    }
    assert!(talk.waited);
    assert!(talk.conversation.in_flight() <= 1000);
}

#[test]
fn a_function_call_is_an_execution() {
    let mut talk = Talk::new();
    talk.ask(b'F', b"\0\0\x03\xbb\0\0\0\0\0\x01").answer(b'V', b"\0\0\0\0").ready("I");
    talk.told(&["call: Ok 1", "Idle"]);
}

#[test]
fn parsing_and_describing_is_no_execution() {
    let mut talk = Talk::new();
    talk.parse("s", "select $1").ask(b'D', b"Ss\0").sync();
    talk.answer(b'1', b"").answer(b't', b"\0\x01\0\0\0\x17").answer(b'T', b"\0\0").ready("I").told(&["Idle"]);
    talk.bind("", "s");
    let Ask::Execute(execution) =
        talk.conversation.ask(&Frame { tag: b'E', length: 5, body: b"\0\0\0\0\0" }).unwrap()
    else {
        panic!("not an execution")
    };
    assert_eq!(execution.prepared.unwrap().types, [23]);
}

/// A description of one column: of this table and number.
fn description(table: u32, column: i16) -> Vec<u8> {
    let mut body = b"\0\x01name\0".to_vec();
    body.extend(table.to_be_bytes());
    body.extend(column.to_be_bytes());
    body.extend([0; 12]);
    body
}

#[test]
fn what_the_server_describes_belongs_to_the_execution_that_it_describes() {
    let mut talk = Talk::new();
    let (one, other) = (description(7, 1), description(8, 2));
    // Two statements of one string; the second shows an expression.
    talk.query("select a from t; select 1").answer(b'T', &one).rows(1).done("SELECT 1");
    talk.answer(b'T', &description(0, 0)).rows(1).done("SELECT 1").ready("I");
    talk.told(&["select a from t: Ok 1 7.1", "select 1: Ok 1", "Idle"]);
    // A portal that is described, fails, and says nothing of what comes next.
    talk.parse("", "select b from u").bind("", "").ask(b'D', b"P\0").execute("").sync();
    talk.answer(b'1', b"").answer(b'2', b"").answer(b'T', &other).error("22012", 0).ready("I");
    talk.query("begin").done("BEGIN").ready("T");
    talk.told(&["select b from u: Error", "Idle", "begin: Ok", "Transaction"]);
    // A statement's description stays with it, and is not one of an execution.
    talk.parse("s", "select b from u").ask(b'D', b"Ss\0").sync();
    talk.answer(b'1', b"").answer(b't', b"\0\0").answer(b'T', &other).ready("T").told(&["Transaction"]);
    let known = talk.conversation.statement(b"s").unwrap();
    assert_eq!(known.origins, [Origin { table: 8, column: 2 }]);
    talk.bind("", "s").execute("").sync();
    talk.answer(b'2', b"")
        .rows(1)
        .done("SELECT 1")
        .ready("T")
        .told(&["select b from u: Ok 1", "Transaction"]);
}

#[test]
fn a_failed_commit_at_sync_is_told() {
    let mut talk = Talk::new();
    talk.parse("", "insert").bind("", "").execute("").sync();
    talk.answer(b'1', b"").answer(b'2', b"").done("INSERT 0 1").error("23503", 0).ready("I");
    talk.told(&["insert: Ok 1", "transaction failed 23503", "Idle"]);
}

#[test]
fn what_was_unanswered_when_the_connection_ended_is_lost() {
    let mut talk = Talk::new();
    talk.query("a; b").rows(2);
    let mut events = Vec::new();
    talk.conversation.abandon(&mut events);
    talk.tell(events);
    talk.told(&["a: Lost 2", "b: Lost"]);
}

#[test]
fn a_hundred_syncs_in_one_write_are_a_hundred_answers() {
    let mut talk = Talk::new();
    (0..100).for_each(|_| {
        talk.sync();
    });
    (0..100).for_each(|_| {
        talk.ready("I");
    });
    assert!(talk.conversation.is_idle());
}

#[test]
fn a_full_pipeline_makes_the_client_wait() {
    let mut talk = Talk::new();
    for _ in 0..1000 {
        talk.sync();
    }
    talk.sync();
    assert!(talk.waited);
}

#[test]
fn names_are_told_apart_by_as_many_bytes_as_the_server_keeps() {
    let name = |last: &str| "n".repeat(63) + last;
    let mut talk = Talk::new();
    talk.parse(&name("1"), "harmless").close("S", &name("2")).parse(&name("3"), "secret").sync();
    talk.answer(b'1', b"").answer(b'3', b"").answer(b'1', b"").ready("I");
    talk.bind("", &name("1")).execute("").sync();
    talk.answer(b'2', b"").done("SELECT 0").ready("I").told(&["Idle", "secret: Ok 0", "Idle"]);
}

#[test]
fn a_close_that_the_server_may_ignore_makes_the_next_segment_wait() {
    let mut talk = Talk::new();
    talk.parse("s", "kept").sync().answer(b'1', b"").ready("I");
    talk.parse("bad", "selec").close("S", "s").sync().bind("", "s");
    assert!(talk.waited);
    talk.error("42601", 0).ready("I").bind("", "s").execute("").sync();
    talk.answer(b'2', b"").done("SELECT 0").ready("I");
    talk.told(&["Idle", "transaction failed 42601", "Idle", "kept: Ok 0", "Idle"]);
}

#[test]
fn a_query_that_the_server_may_ignore_has_not_yet_destroyed_the_unnamed_statement() {
    let mut talk = Talk::new();
    talk.parse("", "kept").sync().answer(b'1', b"").ready("I");
    talk.bind("", "missing").query("ignored").sync().bind("", "");
    assert!(talk.waited);
    talk.error("26000", 0).ready("I").bind("", "").execute("").sync();
    talk.answer(b'2', b"").done("SELECT 0").ready("I");
    talk.told(&["Idle", "transaction failed 26000", "ignored: Skipped", "Idle", "kept: Ok 0", "Idle"]);
}

#[test]
fn an_empty_query_leaves_the_unnamed_portal() {
    let mut talk = Talk::new();
    talk.query("begin").done("BEGIN").ready("T").parse("", "kept").bind("", "").query("");
    talk.answer(b'1', b"").answer(b'2', b"").answer(b'I', b"").ready("T").execute("").sync();
    talk.done("SELECT 0").ready("T");
    talk.told(&["begin: Ok", "Transaction", "Transaction", "kept: Ok 0", "Transaction"]);
}

#[test]
fn a_statement_renamed_by_sql_is_not_recorded_under_its_old_text() {
    let mut talk = Talk::new();
    talk.parse("s", "old").sync().answer(b'1', b"").ready("I");
    talk.query("deallocate s; prepare s").alters(Alters::Statement(b"s".to_vec()));
    talk.bind("", "s");
    assert!(talk.waited, "whether s is gone is not known yet");
    talk.done("DEALLOCATE").done("PREPARE").ready("I").bind("", "s").execute("").sync();
    talk.answer(b'2', b"").done("SELECT 0").ready("I");
    talk.told(&["Idle", "deallocate s: Ok", "prepare s: Ok", "Idle", "?: Ok 0", "Idle"]);
}

#[test]
fn within_a_segment_sql_that_forgets_a_statement_is_taken_to_succeed() {
    let mut talk = Talk::new();
    talk.parse("s", "old").sync().answer(b'1', b"").ready("I");
    talk.parse("", "deallocate s").bind("", "").execute("").alters(Alters::Statement(b"s".to_vec()));
    talk.bind("", "s").execute("").parse("s", "new").bind("", "s").execute("").sync();
    assert!(!talk.waited);
    talk.answer(b'1', b"").answer(b'2', b"").done("DEALLOCATE").answer(b'2', b"").done("SELECT 0");
    talk.answer(b'1', b"").answer(b'2', b"").done("SELECT 0").ready("I");
    talk.bind("", "s").execute("").sync().answer(b'2', b"").done("SELECT 0").ready("I");
    talk.told(&["Idle", "deallocate s: Ok", "?: Ok 0", "new: Ok 0", "Idle", "new: Ok 0", "Idle"]);
}

#[test]
fn a_cursor_under_the_name_of_a_portal_is_not_taken_for_it() {
    let mut talk = Talk::new();
    talk.query("begin").done("BEGIN").ready("T");
    talk.parse("", "harmless").bind("c", "").execute("c").sync();
    talk.answer(b'1', b"").answer(b'2', b"").rows(1).done("SELECT 1").ready("T");
    talk.query("close c").alters(Alters::Portal(b"c".to_vec())).done("CLOSE CURSOR").ready("T");
    talk.query("declare c").alters(Alters::Portal(b"c".to_vec())).done("DECLARE CURSOR").ready("T");
    talk.execute("c").sync().rows(5).done("SELECT 5").ready("T");
    talk.told(&[
        "begin: Ok",
        "Transaction",
        "harmless: Ok 1",
        "Transaction",
        "close c: Ok",
        "Transaction",
        "declare c: Ok",
        "Transaction",
        "?: Ok 5",
        "Transaction",
    ]);
}

#[test]
fn a_portal_that_had_ended_and_has_rows_again_is_told() {
    let mut talk = Talk::new();
    talk.query("begin").done("BEGIN").ready("T");
    talk.parse("", "q").bind("c", "").execute("c").sync();
    talk.answer(b'1', b"").answer(b'2', b"").rows(1).done("SELECT 1").ready("T");
    talk.execute("c").sync().rows(5).done("SELECT 5").ready("T");
    talk.execute("c").sync().rows(5).answer(b's', b"").ready("T");
    talk.told(&[
        "begin: Ok",
        "Transaction",
        "q: Ok 1",
        "Transaction",
        "unannounced SELECT",
        "Transaction",
        "unannounced SELECT",
        "Transaction",
    ]);
}

#[test]
fn an_execution_taken_for_empty_that_completes_is_told() {
    let mut talk = Talk::new();
    talk.parse("", "/* ? */").bind("", "");
    let frame = Frame { tag: b'E', length: 5, body: b"\0\0\0\0\0" };
    assert!(matches!(talk.conversation.ask(&frame).unwrap(), Ask::Execute(_)));
    talk.conversation.started(b'E', b"", None);
    talk.sync().answer(b'1', b"").answer(b'2', b"").done("DELETE 1").ready("I");
    talk.told(&["unannounced DELETE", "Idle"]);
}

#[test]
fn a_setting_that_may_fail_makes_the_next_segment_wait_until_all_is_answered() {
    let mut talk = Talk::new();
    talk.query("set role x").alters(Alters::Meaning).query("select");
    assert!(talk.waited);
    talk.error("22023", 0).query("select");
    assert!(talk.waited);
    talk.ready("I").query("select");
    assert!(!talk.waited);
}

#[test]
fn a_bind_that_fails_is_the_end_of_what_ran_before_it() {
    let mut talk = Talk::new();
    talk.parse("", "insert").bind("", "").execute("").bind("", "").execute("").sync();
    talk.answer(b'1', b"").answer(b'2', b"").done("INSERT 0 1").error("22P02", 0).ready("I");
    talk.told(&["insert: Ok 1", "transaction failed 22P02", "insert: Error", "Idle"]);
}

#[test]
fn a_description_that_comes_late_does_not_type_a_statement_made_since() {
    let mut talk = Talk::new();
    talk.parse("s", "a").ask(b'D', b"Ss\0").close("S", "s").parse("s", "b").sync();
    talk.answer(b'1', b"").answer(b't', b"\0\x01\0\0\0\x17").answer(b'T', b"\0\0");
    talk.answer(b'3', b"").answer(b'1', b"").ready("I");
    assert_eq!(talk.conversation.statement(b"s").unwrap().types, [0; 0]);
}

#[test]
fn ends_of_copy_data_that_nobody_wanted_leave_the_session_at_rest() {
    let mut talk = Talk::new();
    talk.query("copy nothing").ask(b'd', b"1\n").ask(b'c', b"").error("42P01", 0).ready("I");
    assert!(talk.conversation.is_idle());
}

#[test]
fn after_an_error_a_pipeline_without_sync_is_skipped_as_it_comes() {
    let mut talk = Talk::new();
    talk.parse("", "bad").error("42601", 0).told(&["transaction failed 42601"]);
    for _ in 0..600 {
        talk.bind("", "").execute("");
        assert!(!talk.waited);
        let mut events = Vec::new();
        talk.conversation.skip_ahead(&mut events);
        talk.tell(events);
        talk.told(&["?: Skipped"]);
    }
    talk.sync().ready("I").told(&["Idle"]);
    assert!(talk.conversation.is_idle());
}

#[test]
fn what_was_not_forwarded_is_taken_back_and_what_was_stays() {
    let mut talk = Talk::new();
    talk.query("running");
    let mark = talk.conversation.mark();
    talk.parse("s", "new").bind("", "s").execute("").sync();
    assert_eq!(talk.conversation.retract(mark), Some(1));
    assert!(talk.conversation.statement(b"s").is_none());
    talk.done("SELECT 0").ready("I").told(&["running: Ok 0", "Idle"]);
    let mark = talk.conversation.mark();
    talk.parse("s", "new");
    assert_eq!(talk.conversation.retract(mark), None);
}

#[test]
fn an_error_at_parse_or_bind_is_the_error_of_the_execution_that_leans_on_it() {
    let mut talk = Talk::new();
    talk.parse("", "a").bind("", "").execute("").parse("", "b").bind("", "").execute("");
    talk.parse("", "c").bind("", "").execute("").sync();
    talk.answer(b'1', b"").answer(b'2', b"").done("INSERT 0 1").error("42P01", 0).ready("I");
    talk.told(&["a: Ok 1", "transaction failed 42P01", "b: Error", "c: Skipped", "Idle"]);
    talk.parse("", "d").bind("", "").ask(b'D', b"P\0").execute("").sync();
    talk.answer(b'1', b"").error("42501", 0).ready("I");
    talk.told(&["transaction failed 42501", "d: Error", "Idle"]);
}

#[test]
fn an_error_at_parse_is_not_the_error_of_an_execution_of_something_else() {
    let mut talk = Talk::new();
    talk.parse("s", "kept").sync().answer(b'1', b"").ready("I").told(&["Idle"]);
    talk.parse("t", "wrong").bind("", "s").execute("").sync().error("42601", 0).ready("I");
    talk.told(&["transaction failed 42601", "kept: Skipped", "Idle"]);
}

#[test]
fn copy_data_of_two_copies_in_one_string_is_counted_apart_however_early_it_comes() {
    let two = |talk: &mut Talk| {
        talk.query("copy a from stdin; copy b from stdin");
    };
    let (one, other): (&[u8], &[u8]) = (b"1234", b"12");
    // All ahead of the server's word.
    let mut talk = Talk::new();
    two(&mut talk);
    talk.ask(b'd', one).ask(b'c', b"").ask(b'd', other).ask(b'c', b"");
    talk.answer(b'G', b"\0\0\0").done("COPY 1").answer(b'G', b"\0\0\0").done("COPY 1").ready("I");
    assert_eq!(talk.bytes, [4, 2]);
    // The second ahead of the end of the first.
    let mut talk = Talk::new();
    two(&mut talk);
    talk.answer(b'G', b"\0\0\0").ask(b'd', one).ask(b'c', b"").ask(b'd', other).done("COPY 1");
    talk.answer(b'G', b"\0\0\0").ask(b'd', other).ask(b'c', b"").done("COPY 2").ready("I");
    assert_eq!(talk.bytes, [4, 4]);
    assert!(talk.conversation.is_idle());
}

/// Asks a command of the replication protocol.
fn replicate(talk: &mut Talk, command: &str) {
    let exec = talk.exec(command);
    talk.conversation.started_replication(exec);
}

#[test]
fn a_replication_command_is_one_execution_however_many_results_it_has() {
    let mut talk = Talk::new();
    replicate(&mut talk, "BASE_BACKUP");
    for (tag, body) in [
        (b'T', &b"\0\0"[..]),
        (b'D', b"\0\0"),
        (b'C', b"SELECT\0"),
        (b'H', b"\0\0\0"),
        (b'd', b"wal!"),
        (b'c', b""),
        (b'D', b"\0\0"),
        (b'C', b"BASE_BACKUP\0"),
    ] {
        talk.answer(tag, body);
    }
    talk.told(&[]);
    talk.answer(b'Z', b"I");
    talk.told(&["BASE_BACKUP: Ok 2", "Idle"]);
    assert!(talk.conversation.is_idle());
}

#[test]
fn the_rest_of_a_copy_that_failed_is_counted_nowhere() {
    let mut talk = Talk::new();
    talk.query("copy a from stdin").answer(b'G', b"\0\0\0").ask(b'd', b"bad").error("22P02", 0);
    talk.ask(b'd', b"late").ready("I").ask(b'd', b"later").ask(b'c', b"");
    talk.query("copy b from stdin")
        .answer(b'G', b"\0\0\0")
        .ask(b'd', b"12")
        .ask(b'c', b"")
        .done("COPY 1")
        .ready("I");
    assert_eq!(talk.bytes, [3, 2]);
}

#[test]
fn texts_are_counted_as_they_come_go_and_come_back() {
    let mut talk = Talk::new();
    let parse = |name: &str, length: usize| format!("{name}\0{}\0\0\0", "x".repeat(length)).into_bytes();
    let ask = |talk: &mut Talk, body: &[u8]| {
        let refused = talk.conversation.ask(&Frame { tag: b'P', length: body.len(), body }).is_err();
        !refused
    };
    let half = 1 << 15;
    assert!(ask(&mut talk, &parse("a", half)) && ask(&mut talk, &parse("b", half)));
    assert!(!ask(&mut talk, &parse("c", 1)), "there is no room");
    assert!(ask(&mut talk, &parse("b", 10)), "what it replaces is gone");
    // The server turns all down: nothing is left.
    talk.sync().error("42601", 0).ready("I");
    assert!(ask(&mut talk, &parse("c", 3 * half)), "one alone may be larger");
    assert!(!ask(&mut talk, &parse("d", 1)));
    talk.close("S", "c");
    assert!(ask(&mut talk, &parse("d", half)) && ask(&mut talk, &parse("e", half)));
}

#[test]
fn a_pipeline_that_never_rests_forgets_the_names_it_closed() {
    let mut talk = Talk::new();
    talk.parse("first", "kept");
    for number in 0..5000 {
        let name = format!("s{number}");
        talk.parse(&name, "x").close("S", &name);
        assert!(!talk.waited);
        // Answered one step behind: something is always unanswered.
        talk.answer(if number == 0 { b'1' } else { b'3' }, b"").answer(b'1', b"");
    }
    assert!(talk.conversation.closing.len() <= 1001, "{}", talk.conversation.closing.len());
}

#[test]
fn a_stream_of_wal_runs_until_both_sides_have_ended_it() {
    let mut talk = Talk::new();
    replicate(&mut talk, "START_REPLICATION");
    talk.answer(b'W', b"\0\0\0").answer(b'd', b"w12345678").ask(b'd', b"r1");
    assert!(talk.conversation.awaits_client() && !talk.conversation.is_idle());
    talk.ask(b'c', b"").answer(b'd', b"w").answer(b'c', b"").answer(b'C', b"COPY 0\0").answer(b'Z', b"I");
    talk.told(&["START_REPLICATION: Ok", "Idle"]);
    replicate(&mut talk, "START_REPLICATION");
    talk.answer(b'E', b"SERROR\0VERROR\0C42704\0Mno slot\0\0").answer(b'Z', b"I");
    talk.told(&["START_REPLICATION: Error", "Idle"]);
    replicate(&mut talk, "START_REPLICATION");
    talk.answer(b'W', b"\0\0\0").answer(b'd', b"w");
    let mut events = Vec::new();
    talk.conversation.abandon(&mut events);
    assert!(matches!(&events[..], [Event::Finished(_, End { how: How::Lost, bytes: 1, .. })]), "{events:?}");
}
