//! Commands of the replication protocol: read as the server reads them, before SQL.
//!
//! Source: `exec_replication_command` in `src/backend/replication/walsender.c`; `repl_scanner.l`: the
//! first word decides, in capitals, and a comment before it makes it SQL.

/// What a command lets out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Facts about the server and its slots.
    Facts,
    /// What tables hold, without naming one.
    Everything,
}

/// A command of the replication protocol.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) name: &'static str,
    pub(super) reach: Reach,
}

const COMMANDS: [Command; 9] = [
    Command { name: "IDENTIFY_SYSTEM", reach: Reach::Facts },
    Command { name: "READ_REPLICATION_SLOT", reach: Reach::Facts },
    Command { name: "TIMELINE_HISTORY", reach: Reach::Facts },
    Command { name: "CREATE_REPLICATION_SLOT", reach: Reach::Facts },
    Command { name: "ALTER_REPLICATION_SLOT", reach: Reach::Facts },
    Command { name: "DROP_REPLICATION_SLOT", reach: Reach::Facts },
    Command { name: "UPLOAD_MANIFEST", reach: Reach::Facts },
    Command { name: "START_REPLICATION", reach: Reach::Everything },
    Command { name: "BASE_BACKUP", reach: Reach::Everything },
];

/// The command that a query string on a replication connection is; `None` if it is SQL (SHOW, which is
/// both, reads the same).
pub(super) fn command(text: &[u8]) -> Option<&'static Command> {
    let word = text.trim_ascii_start();
    let end = word.iter().position(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_'));
    let word = word.get(..end.unwrap_or(word.len()))?;
    COMMANDS.iter().find(|command| command.name.as_bytes() == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_decides_as_the_server_decides() {
        let name = |text: &str| command(text.as_bytes()).map(|command| command.name);
        assert_eq!(name("IDENTIFY_SYSTEM"), Some("IDENTIFY_SYSTEM"));
        assert_eq!(name(" \n\tBASE_BACKUP(LABEL 'a;b')"), Some("BASE_BACKUP"));
        assert_eq!(
            name("START_REPLICATION SLOT \"s\" LOGICAL 0/0 (proto_version '1')"),
            Some("START_REPLICATION")
        );
        for sql in [
            "identify_system",
            "/* c */ IDENTIFY_SYSTEM",
            "SHOW work_mem",
            "IDENTIFY_SYSTEMS",
            "select 1",
            "",
        ] {
            assert_eq!(name(sql), None, "{sql}");
        }
    }
}
