//! Which device: an id for "this person, from there, with this".
//!
//! PostgreSQL's clients bring no identity of a device. What can be told apart without asking for one: the
//! certificate that a client shows, if it shows one; else its address and what it calls itself. The id is a hash of
//! that with the person's key (iss, sub), so it is the same after a restart and on every gateway, can be computed by
//! whoever has the record, and says nothing of one person to another. It is no proof of a device: two programs of
//! one name behind one address are one.

use std::fmt::Write as _;
use std::net::IpAddr;

use sha2::{Digest, Sha256};

use super::Principal;

/// Bytes of the hash that are kept.
const KEPT: usize = 8;

/// By what a device is told apart.
#[derive(Debug, Clone, Copy)]
pub enum Machine<'a> {
    /// The certificate's SHA-256, as the record shows it.
    Certificate(&'a str),
    /// Address and program.
    Seat(IpAddr, &'a str),
}

impl Machine<'_> {
    /// The id of a person's device: 16 hex digits.
    pub fn id_for(self, person: &Principal) -> String {
        let address;
        let parts = match self {
            Self::Certificate(sha256) => ["certificate", sha256, ""],
            Self::Seat(from, program) => {
                address = from.to_canonical().to_string();
                ["seat", &address, program]
            }
        };
        let mut hash = Sha256::new();
        for part in [person.iss(), person.sub()].into_iter().chain(parts) {
            // Lengths keep ("ab", "c") and ("a", "bc") apart.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finalize().iter().take(KEPT).fold(String::new(), |mut id, byte| {
            // Writing to a string cannot fail.
            let _ = write!(id, "{byte:02x}");
            id
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_a_person_a_place_and_a_program() {
        let (ann, bob) = (Principal::for_test("ann", &[]), Principal::for_test("bob", &[]));
        let here: IpAddr = [10, 0, 0, 1].into();
        let id = Machine::Seat(here, "psql").id_for(&ann);
        assert_eq!(id, Machine::Seat("::ffff:10.0.0.1".parse().unwrap(), "psql").id_for(&ann));
        assert_eq!(id.len(), 16);
        for other in [
            Machine::Seat(here, "psql").id_for(&bob),
            Machine::Seat(here, "pgbench").id_for(&ann),
            Machine::Seat([10, 0, 0, 2].into(), "psql").id_for(&ann),
            Machine::Certificate("ab").id_for(&ann),
        ] {
            assert_ne!(id, other);
        }
    }
}
