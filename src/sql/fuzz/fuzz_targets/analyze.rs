//! The first reader, lowering and resolution of arbitrary text, by a real catalog. The second reader is C, which this
//! would not see into: it answers nothing here.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pgwitness::catalog::{self, Schema};
use pgwitness::sql::{Grammar, Own, Settings, analyze, spans};

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let rows: Vec<Vec<Option<String>>> = include_str!("../../corpus/catalog.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).expect("a row of the corpus"))
        .collect();
    catalog::read(&rows).expect("the catalog of the corpus")
});

#[derive(Debug)]
struct Nothing;

impl Grammar for Nothing {
    fn raw_tree(&self, _text: &str, _standard: bool) -> Result<Vec<u8>, String> {
        Err("not understood".to_owned())
    }
}

fuzz_target!(|data: (bool, &str)| {
    let (standard, text) = data;
    let path = ["pg_catalog", "shop", "public"].map(str::to_owned);
    let mut own = Own::default();
    // Twice: the second time with what the first has made.
    for _ in 0..2 {
        let settings =
            Settings { standard_conforming_strings: standard, ..Settings::new(&path, &own, &Nothing) };
        let analysis = analyze(text, &SCHEMA, &settings);
        std::hint::black_box(spans(text, &analysis, standard));
        analysis.changes.iter().for_each(|change| own.apply(change));
    }
});
