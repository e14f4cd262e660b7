//! Arbitrary bytes where the second reader's tree should be: decoded, lowered and resolved, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgwitness::catalog::Schema;
use pgwitness::sql::{Grammar, Own, Settings, analyze};

#[derive(Debug)]
struct Bytes<'a>(&'a [u8]);

impl Grammar for Bytes<'_> {
    fn raw_tree(&self, _text: &str, _standard: bool) -> Result<Vec<u8>, String> {
        Ok(self.0.to_vec())
    }

    fn is_first(&self) -> bool {
        true
    }
}

fuzz_target!(|data: &[u8]| {
    let path = ["pg_catalog".to_owned(), "public".to_owned()];
    let own = Own::default();
    let bytes = Bytes(data);
    let settings = Settings::new(&path, &own, &bytes);
    std::hint::black_box(analyze("select 1", &Schema::default(), &settings));
});
