//! Splitting, keys, fingerprints and redaction of arbitrary bytes: all of the text, in order, and never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgwitness::sql::{Scan, fingerprint, redact, split};

fuzz_target!(|data: (bool, &[u8])| {
    let (standard, text) = data;
    let mut from = 0;
    for range in split(text, standard) {
        assert!(from <= range.start && range.start < range.end && range.end <= text.len());
        from = range.end;
    }
    let scan = Scan::new(text, standard);
    assert_eq!(scan.iter().map(|(range, _)| range).collect::<Vec<_>>(), split(text, standard));
    std::hint::black_box(fingerprint(text, standard));
    std::hint::black_box(redact(text, standard));
});
