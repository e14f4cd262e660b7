//! Signed notes (c2sp.org/signed-note): a text and the lines of those who signed it, with Ed25519.
//!
//! Keys are written as golang.org/x/mod/sumdb/note and the transparency-dev tools write them: a verifier
//! key is `name+key id+base64`, a signer key is that behind `PRIVATE+KEY+`. Signatures of keys or kinds
//! that are not known are kept and not judged, so that witnesses and later algorithms have their lines.
//!
//! Limits: a note is at most 1 MiB with at most 100 signatures.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::Signer as _;
use sha2::{Digest as _, Sha256};

/// Most bytes of a note.
pub const NOTE_BYTES_MAX: usize = 1 << 20;
/// Most signatures of a note.
pub const SIGNATURES_MAX: usize = 100;

const PRIVATE_PREFIX: &str = "PRIVATE+KEY+";
const SIGNATURE_PREFIX: &str = "— ";
/// The kind of key and signature: Ed25519 over the text of the note.
const ED25519: u8 = 1;

/// What is wrong with a key or a note.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// Not a key. Its text is not repeated: it may be a private one.
    #[error("this is not a {0} as signed notes have them")]
    Key(&'static str),
    /// A name no key can have.
    #[error("{0:?} cannot name a key: a name has neither spaces nor plus signs, and is not empty")]
    Name(String),
    /// Not a signed note.
    #[error("this is not a signed note: {0}")]
    Malformed(&'static str),
    /// A known key's signature is wrong.
    #[error("the signature of {0} is wrong: the text was changed, or signed by somebody else")]
    Forged(String),
    /// No known key signed.
    #[error("it is not signed by a known key")]
    Unknown,
}

/// Who signs, as others know them: checks signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    key: ed25519_dalek::VerifyingKey,
}

impl VerifierKey {
    /// The name beside each signature.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Four bytes that tell keys of one name apart.
    pub fn id(&self) -> [u8; 4] {
        let mut hash = Sha256::new();
        hash.update(self.name.as_bytes());
        hash.update([b'\n', ED25519]);
        hash.update(self.key.as_bytes());
        let hash: [u8; 32] = hash.finalize().into();
        [hash[0], hash[1], hash[2], hash[3]]
    }

    fn verifies(&self, text: &str, signature: &[u8]) -> bool {
        ed25519_dalek::Signature::from_slice(signature)
            .is_ok_and(|signature| self.key.verify_strict(text.as_bytes(), &signature).is_ok())
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Encoded { name: &self.name, id: self.id(), key: self.key.as_bytes() })
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let wrong = NoteError::Key("verifier key");
        let (name, key) = decode(text).ok_or_else(|| wrong.clone())?;
        let key = ed25519_dalek::VerifyingKey::from_bytes(&key).map_err(|_| wrong.clone())?;
        let key = Self { name: name.to_owned(), key };
        // The id, and everything else, is as we would write it.
        if key.to_string() == text { Ok(key) } else { Err(wrong) }
    }
}

/// Who signs: a private key. It is never shown by `Debug`.
pub struct SignerKey {
    public: VerifierKey,
    key: ed25519_dalek::SigningKey,
}

impl fmt::Debug for SignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignerKey").field("public", &self.public).finish_non_exhaustive()
    }
}

impl SignerKey {
    /// The key of a name and 32 random bytes (RFC 8032's private key).
    ///
    /// # Errors
    /// No key can have this name.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, NoteError> {
        if !is_name(name) {
            return Err(NoteError::Name(name.into()));
        }
        let key = ed25519_dalek::SigningKey::from_bytes(seed);
        Ok(Self { public: VerifierKey { name: name.to_owned(), key: key.verifying_key() }, key })
    }

    /// Reads a private key.
    ///
    /// # Errors
    /// It is none, or its parts do not belong together.
    pub fn from_private(text: &str) -> Result<Self, NoteError> {
        let wrong = NoteError::Key("signer key");
        let encoded = text.strip_prefix(PRIVATE_PREFIX).ok_or_else(|| wrong.clone())?;
        let (name, seed) = decode(encoded).ok_or_else(|| wrong.clone())?;
        let key = Self::from_seed(name, &seed)?;
        if key.private() == text { Ok(key) } else { Err(wrong) }
    }

    /// The private key as text: a secret.
    pub fn private(&self) -> String {
        let encoded = Encoded { name: &self.public.name, id: self.public.id(), key: self.key.as_bytes() };
        format!("{PRIVATE_PREFIX}{encoded}")
    }

    /// What others check its signatures with.
    pub fn public(&self) -> &VerifierKey {
        &self.public
    }
}

/// One line below a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Who says to have signed.
    pub name: String,
    /// Of their keys, which.
    pub key_id: [u8; 4],
    /// What they made; for Ed25519 64 bytes.
    pub bytes: Vec<u8>,
}

/// A text and who signed it. That it could be read says nothing of the signatures: see [`Note::check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

impl Note {
    /// A text, signed. It must end with a newline.
    ///
    /// # Errors
    /// Not a text of a note.
    pub fn sign(text: String, key: &SignerKey) -> Result<Self, NoteError> {
        if !text.ends_with('\n') || text.len() > NOTE_BYTES_MAX / 2 || has_control(&text) {
            return Err(NoteError::Malformed("its text does not end with a newline, or is not plain"));
        }
        let mut note = Self { text, signatures: Vec::new() };
        note.cosign(key)?;
        Ok(note)
    }

    /// Adds one more signature below those that are there; an earlier one of the same key goes.
    ///
    /// # Errors
    /// There are too many already.
    pub fn cosign(&mut self, key: &SignerKey) -> Result<(), NoteError> {
        let (name, key_id) = (key.public.name.clone(), key.public.id());
        self.signatures.retain(|known| known.name != name || known.key_id != key_id);
        if self.signatures.len() >= SIGNATURES_MAX {
            return Err(NoteError::Malformed("it has too many signatures"));
        }
        let bytes = key.key.sign(self.text.as_bytes()).to_bytes().to_vec();
        self.signatures.push(Signature { name, key_id, bytes });
        Ok(())
    }

    /// Reads a note, and believes nothing of it.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > NOTE_BYTES_MAX {
            return Err(NoteError::Malformed("it is too long"));
        }
        let note = std::str::from_utf8(bytes).map_err(|_| NoteError::Malformed("it is not UTF-8"))?;
        if has_control(note) {
            return Err(NoteError::Malformed("it holds control characters"));
        }
        let (text, lines) = note
            .rfind("\n\n")
            .map(|at| (&note[..=at], &note[at + 2..]))
            .ok_or(NoteError::Malformed("no empty line parts text and signatures"))?;
        let lines =
            lines.strip_suffix('\n').ok_or(NoteError::Malformed("the last signature has no newline"))?;
        let mut signatures = Vec::new();
        for line in lines.split('\n') {
            if signatures.len() >= SIGNATURES_MAX {
                return Err(NoteError::Malformed("it has too many signatures"));
            }
            signatures.push(signature(line).ok_or(NoteError::Malformed("a line is no signature"))?);
        }
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// The signed text, with its last newline.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Who says to have signed.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Which of `keys` signed, by their places; signatures of others are not judged.
    ///
    /// # Errors
    /// None of them signed, or the signature of one of them is wrong.
    pub fn check(&self, keys: &[VerifierKey]) -> Result<Vec<usize>, NoteError> {
        let mut signed = Vec::new();
        for (place, key) in keys.iter().enumerate() {
            let id = key.id();
            let mut own = self.signatures.iter().filter(|line| line.name == key.name && line.key_id == id);
            // More lines of one key must all be right: nobody has a reason to write a wrong one.
            if own.clone().any(|line| !key.verifies(&self.text, &line.bytes)) {
                return Err(NoteError::Forged(key.name.clone()));
            }
            signed.extend(own.next().map(|_| place));
        }
        if signed.is_empty() { Err(NoteError::Unknown) } else { Ok(signed) }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        for Signature { name, key_id, bytes } in &self.signatures {
            writeln!(f, "{SIGNATURE_PREFIX}{name} {}", BASE64.encode([&key_id[..], bytes].concat()))?;
        }
        Ok(())
    }
}

fn signature(line: &str) -> Option<Signature> {
    let (name, encoded) = line.strip_prefix(SIGNATURE_PREFIX)?.split_once(' ')?;
    let bytes = BASE64.decode(encoded).ok()?;
    let (key_id, bytes) = bytes.split_first_chunk()?;
    let signature = Signature { name: name.to_owned(), key_id: *key_id, bytes: bytes.to_vec() };
    (is_name(name) && !bytes.is_empty()).then_some(signature)
}

/// A name and 32 bytes of key: `name+id+base64(kind, key)`.
struct Encoded<'a> {
    name: &'a str,
    id: [u8; 4],
    key: &'a [u8; 32],
}

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = u32::from_be_bytes(self.id);
        write!(f, "{}+{id:08x}+{}", self.name, BASE64.encode([&[ED25519][..], self.key].concat()))
    }
}

/// The name and the key of [`Encoded`]; the id is checked by writing it again.
fn decode(text: &str) -> Option<(&str, [u8; 32])> {
    let mut parts = text.splitn(3, '+');
    let (name, _id, key) = (parts.next()?, parts.next()?, parts.next()?);
    let key = BASE64.decode(key).ok()?;
    let (kind, key) = key.split_first()?;
    let key = key.try_into().ok()?;
    (*kind == ED25519 && is_name(name)).then_some((name, key))
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '+' || c.is_control())
}

fn has_control(text: &str) -> bool {
    text.bytes().any(|byte| byte < b' ' && byte != b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    // The examples of golang.org/x/mod/sumdb/note and of c2sp.org.
    const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const PETER_PRIVATE: &str =
        "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    const ENOCH: &str = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop";
    const TEXT: &str = "If you think cryptography is the answer to your problem,\n\
                        then you don't know what your problem is.\n";
    const PETER_LINE: &str = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
    const ENOCH_LINE: &str = "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n";

    fn key(text: &str) -> VerifierKey {
        text.parse().unwrap()
    }

    #[test]
    fn keys_are_written_as_they_were_read() {
        assert_eq!(key(PETER).to_string(), PETER);
        let private = SignerKey::from_private(PETER_PRIVATE).unwrap();
        assert_eq!((private.private().as_str(), private.public()), (PETER_PRIVATE, &key(PETER)));
        assert!(!format!("{private:?}").contains("AYEKFALV"));
    }

    #[test]
    fn a_key_with_anything_changed_or_left_out_is_refused() {
        for text in [PETER, PETER_PRIVATE] {
            let read = |bytes: &[u8]| {
                let text = std::str::from_utf8(bytes).unwrap();
                if text.starts_with("PRIVATE") {
                    SignerKey::from_private(text).is_ok()
                } else {
                    text.parse::<VerifierKey>().is_ok() || SignerKey::from_private(text).is_ok()
                }
            };
            assert!(read(text.as_bytes()));
            for from in 0..text.len() {
                for to in from..=text.len() {
                    assert!(
                        text[from..to] == *text
                            || text[from..to] == *PETER
                            || !read(&text.as_bytes()[from..to])
                    );
                }
                let mut changed = text.as_bytes().to_vec();
                changed[from] += 1;
                assert!(!read(&changed), "{from}");
            }
        }
        for text in [
            "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
            "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        ] {
            assert!(text.parse::<VerifierKey>().is_err(), "{text}");
        }
        for name in ["", "a b", "a+b", "a\u{a0}b", "a\nb"] {
            assert!(SignerKey::from_seed(name, &[1; 32]).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_signed_text_is_the_note_that_other_tools_write() {
        let private = SignerKey::from_private(PETER_PRIVATE).unwrap();
        let mut note = Note::sign(TEXT.into(), &private).unwrap();
        assert_eq!(note.to_string(), format!("{TEXT}\n{PETER_LINE}"));
        note.cosign(&private).unwrap();
        assert_eq!(note.to_string(), format!("{TEXT}\n{PETER_LINE}"), "one signature for each key");
        assert!(Note::sign("no newline".into(), &private).is_err());
        assert!(Note::sign("a\tb\n".into(), &private).is_err());
    }

    #[test]
    fn known_keys_are_judged_and_others_left_alone() {
        let both = format!("{TEXT}\n{PETER_LINE}{ENOCH_LINE}");
        let note = Note::parse(both.as_bytes()).unwrap();
        assert_eq!((note.text(), note.to_string()), (TEXT, both));
        let names: Vec<&str> = note.signatures().iter().map(|line| line.name.as_str()).collect();
        assert_eq!(names, ["PeterNeumann", "EnochRoot"]);
        assert_eq!(note.check(&[key(PETER)]).unwrap(), [0]);
        assert_eq!(note.check(&[key(ENOCH), key(PETER)]).unwrap(), [0, 1]);
        assert_eq!(note.check(&[]), Err(NoteError::Unknown));
        let stranger = SignerKey::from_seed("PeterNeumann", &[1; 32]).unwrap();
        assert_eq!(note.check(&[stranger.public().clone()]), Err(NoteError::Unknown));
        assert_eq!(note.check(&[stranger.public().clone(), key(ENOCH)]).unwrap(), [1]);
    }

    #[test]
    fn one_wrong_signature_of_a_known_key_spoils_the_note() {
        let forged = Note::parse(format!("{TEXT} \n\n{PETER_LINE}{ENOCH_LINE}").as_bytes()).unwrap();
        assert_eq!(forged.check(&[key(PETER)]), Err(NoteError::Forged("PeterNeumann".into())));
        let wrong = PETER_LINE.replace("x08go/ZJ", "x08go/ZK");
        for lines in [format!("{wrong}{ENOCH_LINE}"), format!("{PETER_LINE}{wrong}")] {
            let note = Note::parse(format!("{TEXT}\n{lines}").as_bytes()).unwrap();
            assert_eq!(note.check(&[key(PETER), key(ENOCH)]), Err(NoteError::Forged("PeterNeumann".into())));
        }
    }

    #[test]
    fn the_example_of_the_specification_is_a_note_with_three_lines_of_text() {
        let text =
            "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n";
        let line = "— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";
        let note = Note::parse(format!("{text}\n{line}").as_bytes()).unwrap();
        assert_eq!(note.text(), text);
        assert_eq!(note.signatures()[0].key_id, [0x36, 0x7b, 0xa0, 0x4b]);
    }

    #[test]
    fn what_is_no_note_is_refused() {
        let bad = [
            TEXT.to_owned(),
            format!("{TEXT}\n"),
            format!("{TEXT}\n{}", PETER_LINE.trim_end()),
            format!("\u{1}{TEXT}\n{PETER_LINE}"),
            format!("{TEXT}\n{}", PETER_LINE.replace("PeterNeumann", "Bad Name")),
            format!("{TEXT}\n{}", PETER_LINE.replace("PeterNeumann", "Bad+Name")),
            format!("{TEXT}\n{PETER_LINE}Unexpected line.\n"),
            format!("{TEXT}\n— PeterNeumann x08goo==\n"),
            format!("{TEXT}\n{}", PETER_LINE.repeat(SIGNATURES_MAX + 1)),
        ];
        for note in bad {
            assert!(Note::parse(note.as_bytes()).is_err(), "{note}");
        }
        assert!(Note::parse(b"\xff\n\n").is_err());
        assert!(Note::parse(&vec![b'\n'; NOTE_BYTES_MAX + 1]).is_err());
    }
}
