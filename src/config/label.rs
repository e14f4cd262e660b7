//! `upstream.application_name`: how the database is told who is there.

/// PostgreSQL shows this many bytes of it (NAMEDATALEN - 1).
const MAX_LABEL: usize = 63;

/// Of a session's id this much is shown: its time and 12 random bits, enough to find it by its beginning.
const SESSION_PREFIX: usize = 18;

/// The template of the application_name that the database sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppLabel(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    App,
    User,
    Session,
}

impl Default for AppLabel {
    fn default() -> Self {
        let space = || Part::Text(" ".into());
        Self(vec![Part::App, space(), Part::User, space(), Part::Session])
    }
}

impl AppLabel {
    /// Reads a template with `{app}`, `{user}` and `{session}`.
    ///
    /// # Errors
    /// Another placeholder, or text that PostgreSQL would change or cut; the text says what to write.
    pub(super) fn read(template: &str) -> Result<Self, String> {
        const KNOWN: &str = "write {app}, {user} and {session}, for example \"{app} {user} {session}\"";
        if !template.bytes().all(is_kept) {
            return Err(format!(
                "{template:?} holds characters that PostgreSQL replaces; use printable ASCII"
            ));
        }
        let (mut parts, mut rest) = (Vec::new(), template);
        while let Some((text, after)) = rest.split_once('{') {
            let (name, after) =
                after.split_once('}').ok_or_else(|| format!("{template:?} has no closing brace; {KNOWN}"))?;
            if !text.is_empty() {
                parts.push(Part::Text(text.into()));
            }
            parts.push(match name {
                "app" => Part::App,
                "user" => Part::User,
                "session" => Part::Session,
                other => return Err(format!("\"{{{other}}}\" is not known; {KNOWN}")),
            });
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        let label = Self(parts);
        match label.fixed() {
            0..=MAX_LABEL if !label.0.is_empty() => Ok(label),
            _ => {
                Err(format!("{template:?} is empty or too long: PostgreSQL shows {MAX_LABEL} bytes; {KNOWN}"))
            }
        }
    }

    /// The client's own name, untouched.
    pub fn own() -> Self {
        Self(vec![Part::App])
    }

    /// What to send; `None`: the client's own name, as the client sent it. What does not fit is taken
    /// from the program's name first, then from the session, last from the person.
    pub fn compose(&self, app: &str, user: &str, session: &str) -> Option<String> {
        if self.0 == [Part::App] {
            return None;
        }
        let count = |part: &Part| self.0.iter().filter(|known| *known == part).count();
        let mut values = [
            (Part::App, clean(app)),
            (Part::Session, clean(session.get(..SESSION_PREFIX).unwrap_or(session))),
            (Part::User, clean(user)),
        ];
        let length = |values: &[(Part, String); 3]| -> usize {
            self.fixed() + values.iter().map(|(part, text)| count(part) * text.len()).sum::<usize>()
        };
        for at in 0..values.len() {
            let over = length(&values).saturating_sub(MAX_LABEL);
            if let Some((part, text)) = values.get_mut(at)
                && over > 0
            {
                let each = over.div_ceil(count(part).max(1));
                text.truncate(text.len().saturating_sub(each));
                text.truncate(text.trim_end().len());
            }
        }
        let value =
            |part: &Part| values.iter().find(|(known, _)| known == part).map(|(_, text)| text.as_str());
        let label: String = self
            .0
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.as_str(),
                part => value(part).unwrap_or_default(),
            })
            .collect();
        Some(label.trim().to_owned())
    }

    /// Bytes of the template's own text.
    fn fixed(&self) -> usize {
        let length = |part: &Part| if let Part::Text(text) = part { text.len() } else { 0 };
        self.0.iter().map(length).sum()
    }
}

/// Whether PostgreSQL keeps a byte of an application_name (`pg_clean_ascii`).
fn is_kept(byte: u8) -> bool {
    matches!(byte, 32..=126)
}

/// As PostgreSQL would show it: one `?` for each other byte, so nothing is ever half a character.
fn clean(text: &str) -> String {
    text.bytes().map(|byte| if is_kept(byte) { char::from(byte) } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: &str = "019ac0de-1234-7abc-8def-0123456789ab";

    #[track_caller]
    fn check(template: &str, app: &str, user: &str, expected: Option<&str>) {
        let label = AppLabel::read(template).unwrap();
        let composed = label.compose(app, user, SESSION);
        assert!(composed.as_ref().is_none_or(|text| text.len() <= MAX_LABEL), "{composed:?}");
        assert_eq!(composed.as_deref(), expected, "{template}");
    }

    #[test]
    fn the_clients_own_name_stands_first_and_gives_way_first() {
        let usual = "{app} {user} {session}";
        assert_eq!(AppLabel::read(usual).unwrap(), AppLabel::default());
        check(usual, "psql", "ann@example.com", Some("psql ann@example.com 019ac0de-1234-7abc"));
        check(usual, "", "ann@example.com", Some("ann@example.com 019ac0de-1234-7abc"));
        check(
            usual,
            "a program with a very long name indeed",
            "ann@example.com",
            Some("a program with a very long n ann@example.com 019ac0de-1234-7abc"),
        );
        let long = "somebody.with.a.long.name@subsidiary.example.com";
        check(usual, "psql", long, Some("somebody.with.a.long.name@subsidiary.example.com 019ac0de-1234"));
        let longer = "x".repeat(80);
        check(usual, "psql", &longer, Some(&longer[..61]));
    }

    #[test]
    fn what_is_not_ascii_is_shown_as_postgresql_shows_it() {
        check("{app}/{user}", "caf\u{e9}\n", "j\u{f6}rg", Some("caf???/j??rg"));
        check("{user}", &"\u{e9}".repeat(100), "ann", Some("ann"));
        check("{app}", "caf\u{e9}", "ann", None);
    }

    #[test]
    fn a_template_that_cannot_be_is_refused_with_what_to_write() {
        for template in ["{ap}", "{app", "", "caf\u{e9} {user}", &"x".repeat(64)] {
            let told = AppLabel::read(template).unwrap_err();
            assert!(told.contains("{user}") || told.contains("ASCII"), "{told}");
        }
    }
}
