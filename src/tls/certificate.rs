//! The two facts that are read from a certificate itself: whose it is, and its hash for channel binding.
//!
//! Nothing is trusted for them: rustls has verified what is to be verified. Lengths outside of the
//! certificate are an end, never a panic.
//!
//! Source: RFC 5280 (structure), RFC 4514 (names as text), RFC 5929 section 4.1 (tls-server-end-point).

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const BMP_STRING: u8 = 0x1e;
const EXPLICIT_0: u8 = 0xa0;

/// Longest name that is shown, characters.
const MAX_NAME: usize = 512;

/// One element: its tag, its contents, what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((*tag, contents, rest))
}

fn expect(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    element(bytes).filter(|(tag, ..)| *tag == wanted).map(|(_, contents, rest)| (contents, rest))
}

/// Whose certificate it is, as RFC 4514 writes it: `CN=ann,O=Example`.
pub fn subject(certificate: &[u8]) -> Option<String> {
    let (whole, _) = expect(certificate, SEQUENCE)?;
    let (mut fields, _) = expect(whole, SEQUENCE)?;
    if let Some((_, rest)) = expect(fields, EXPLICIT_0) {
        fields = rest;
    }
    // Serial number, signature algorithm, issuer, validity.
    for _ in 0..4 {
        fields = element(fields)?.2;
    }
    let (mut names, _) = expect(fields, SEQUENCE)?;
    let mut parts = Vec::new();
    while let Some((set, rest)) = expect(names, SET) {
        let (mut pairs, mut values) = (set, Vec::new());
        while let Some((pair, more)) = expect(pairs, SEQUENCE) {
            let (oid, value) = expect(pair, OID)?;
            let (tag, value, _) = element(value)?;
            values.push(format!("{}={}", attribute(oid), escape(&text(tag, value))));
            pairs = more;
        }
        parts.push(values.join("+"));
        names = rest;
    }
    parts.reverse();
    Some(parts.join(",").chars().take(MAX_NAME).collect())
}

fn attribute(oid: &[u8]) -> String {
    let known = match oid {
        [0x55, 4, 3] => "CN",
        [0x55, 4, 5] => "SERIALNUMBER",
        [0x55, 4, 6] => "C",
        [0x55, 4, 7] => "L",
        [0x55, 4, 8] => "ST",
        [0x55, 4, 10] => "O",
        [0x55, 4, 11] => "OU",
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1] => "EMAILADDRESS",
        [9, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1] => "UID",
        [9, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25] => "DC",
        other => return other.iter().fold("OID.x".to_owned(), |text, byte| text + &format!("{byte:02x}")),
    };
    known.to_owned()
}

fn text(tag: u8, value: &[u8]) -> String {
    if tag != BMP_STRING {
        return String::from_utf8_lossy(value).into_owned();
    }
    let units = value.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for character in value.chars() {
        if matches!(character, ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=') {
            out.push('\\');
        }
        out.push(if character.is_control() { '?' } else { character });
    }
    out
}

/// The hash of a certificate that both sides of a connection know: by the algorithm of its signature,
/// SHA-256 in place of weaker ones. `None` for signatures that have no hash of their own (Ed25519).
pub fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    const RSA: [u8; 8] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1];
    const ECDSA: [u8; 6] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 4];
    let (whole, _) = expect(certificate, SEQUENCE)?;
    let (_, rest) = expect(whole, SEQUENCE)?;
    let (algorithm, _) = expect(rest, SEQUENCE)?;
    let (oid, parameters) = expect(algorithm, OID)?;
    let bits = match (oid.strip_prefix(&RSA), oid.strip_prefix(&ECDSA)) {
        (Some([4 | 5 | 11]), _) | (_, Some([1] | [3, 2])) => 256,
        (Some([12]), _) | (_, Some([3, 3])) => 384,
        (Some([13]), _) | (_, Some([3, 4])) => 512,
        (Some([14]), _) | (_, Some([3, 1])) => 224,
        (Some([10]), _) => pss(parameters)?,
        _ => return None,
    };
    Some(match bits {
        224 => Sha224::digest(certificate).to_vec(),
        384 => Sha384::digest(certificate).to_vec(),
        512 => Sha512::digest(certificate).to_vec(),
        _ => Sha256::digest(certificate).to_vec(),
    })
}

/// RSASSA-PSS names its hash in its parameters; none is SHA-1.
fn pss(parameters: &[u8]) -> Option<u32> {
    const SHA2: [u8; 8] = [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2];
    let (parameters, _) = expect(parameters, SEQUENCE)?;
    let Some((hash, _)) = expect(parameters, EXPLICIT_0) else { return Some(256) };
    let (oid, _) = expect(expect(hash, SEQUENCE)?.0, OID)?;
    match oid.strip_prefix(&SHA2) {
        Some([1]) => Some(256),
        Some([2]) => Some(384),
        Some([3]) => Some(512),
        Some([4]) => Some(224),
        _ => None,
    }
}

/// SHA-256 of a certificate, in hex: what people compare.
pub fn fingerprint(certificate: &[u8]) -> String {
    Sha256::digest(certificate).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    fn certificate(name: &str) -> Vec<u8> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls").join(name);
        CertificateDer::from_pem_file(path).unwrap().to_vec()
    }

    #[test]
    fn a_certificate_tells_whose_it_is_and_its_hash() {
        let ann = certificate("client.crt");
        assert_eq!(subject(&ann).as_deref(), Some("CN=ann laptop,O=Example\\, Inc."));
        let server = certificate("server.crt");
        assert_eq!(subject(&server).as_deref(), Some("CN=localhost"));
        assert_eq!(end_point(&server), Some(Sha256::digest(&server).to_vec()));
        assert_eq!(end_point(&certificate("sha512.crt")).map(|hash| hash.len()), Some(64));
        assert_eq!(fingerprint(&server).len(), 64);
    }

    #[test]
    fn no_beginning_of_a_certificate_and_no_changed_byte_is_a_panic() {
        let whole = certificate("client.crt");
        for end in 0..whole.len() {
            subject(&whole[..end]);
            end_point(&whole[..end]);
            let mut changed = whole.clone();
            changed[end] ^= 0xff;
            subject(&changed);
            end_point(&changed);
        }
    }
}
