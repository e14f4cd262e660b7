//! [`Asked`]: what a waiting client says of itself, made fit to be shown to whoever approves.
//!
//! All of it but the address is the client's own word. It is cut, and what could hide, reorder or
//! overwrite text becomes visible, so that no place which shows it has to think of that again.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::SystemTime;

use super::Machine;

/// Longest text shown, characters.
const MAX_SHOWN: usize = 128;

/// What a login is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The client's address.
    pub address: IpAddr,
    /// What the client calls itself.
    pub program: String,
    /// The startup user: a database role, or a person's own name.
    pub role: String,
    /// The database.
    pub database: String,
    /// The certificate that the client showed, if it did.
    pub certificate: Option<Certificate>,
    /// What an approval opens.
    pub opens: Opens,
    /// When.
    pub at: SystemTime,
    /// The program as records call it.
    app: String,
}

/// A client's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it says it is.
    pub subject: String,
    /// Its SHA-256, in hex.
    pub sha256: String,
}

/// What an approval opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opens {
    /// The connection that waits, and nothing else.
    Connection,
    /// Every connection with the same secret, until the login ends.
    Secret,
}

impl Asked {
    /// A request from an address, with nothing said yet.
    pub fn from(address: IpAddr) -> Self {
        Self {
            address: address.to_canonical(),
            program: String::new(),
            role: String::new(),
            database: String::new(),
            certificate: None,
            opens: Opens::Connection,
            at: SystemTime::now(),
            app: String::new(),
        }
    }

    /// What the startup message says.
    #[must_use]
    pub fn saying(mut self, program: &str, role: &str, database: &str) -> Self {
        (self.program, self.role, self.database) = (inert(program), inert(role), inert(database));
        program.clone_into(&mut self.app);
        self
    }

    /// The certificate shown.
    #[must_use]
    pub fn showing(mut self, certificate: Option<Certificate>) -> Self {
        let shown = |it: Certificate| Certificate { subject: inert(&it.subject), ..it };
        self.certificate = certificate.map(shown);
        self
    }

    /// What the approval opens.
    #[must_use]
    pub fn opening(mut self, opens: Opens) -> Self {
        self.opens = opens;
        self
    }

    /// Which device this is, if it is a person's.
    pub fn machine(&self) -> Machine<'_> {
        match &self.certificate {
            Some(certificate) => Machine::Certificate(&certificate.sha256),
            None => Machine::Seat(self.address, &self.app),
        }
    }
}

/// One line of at most [`MAX_SHOWN`] characters; what is not seen, or changes how the rest is seen, stands as its
/// code point.
pub fn inert(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars().take(MAX_SHOWN) {
        if is_unseen(c) {
            // Writing to a string cannot fail.
            let _ = write!(shown, "<U+{:04X}>", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    if text.chars().nth(MAX_SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// Control characters, and those that hide or reorder text.
pub(super) fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_or_reorders_text_is_shown_as_what_it_is() {
        let asked = Asked::from([127, 0, 0, 1].into()).saying(
            "psql\u{1b}[2J\n\u{202e}evil\u{200b}",
            "<b>app</b>",
            "größe",
        );
        assert_eq!(asked.program, "psql<U+001B>[2J<U+000A><U+202E>evil<U+200B>");
        assert_eq!((asked.role.as_str(), asked.database.as_str()), ("<b>app</b>", "größe"));
    }

    #[test]
    fn a_long_text_is_cut_where_one_sees_it() {
        assert_eq!(inert(&"ä".repeat(MAX_SHOWN)).chars().count(), MAX_SHOWN);
        assert!(inert(&"ä".repeat(MAX_SHOWN + 1)).ends_with("ä…"));
    }

    #[test]
    fn an_ipv4_client_of_an_ipv6_socket_has_its_ipv4_address() {
        assert_eq!(Asked::from("::ffff:10.0.0.7".parse().unwrap()).address.to_string(), "10.0.0.7");
    }
}
