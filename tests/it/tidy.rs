//! The rules of the house that a program can check.
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Which module may use which: the table of the house. `cli` may use everything.
const MAY_USE: &[(&str, &[&str])] = &[
    (
        "service",
        &[
            "clock",
            "config",
            "gateway",
            "http",
            "identity",
            "indexing",
            "proving",
            "recorder",
            "retention",
            "tls",
        ],
    ),
    ("gateway", &["catalog", "clock", "config", "grammar", "identity", "policy", "recorder", "sql", "tls"]),
    ("http", &["clock", "config", "identity", "policy", "proving"]),
    ("demo", &["config"]),
    ("indexing", &["config"]),
    ("proving", &["config", "recorder"]),
    ("retention", &["clock", "config", "proving", "recorder"]),
    ("recorder", &["clock", "config"]),
    ("policy", &["config", "identity"]),
    ("identity", &["config"]),
    ("tls", &["config"]),
    ("grammar", &["sql"]),
    ("sql", &["catalog"]),
    ("catalog", &[]),
    ("config", &[]),
    ("clock", &[]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && name != "fuzz" {
            found.extend(sources(&path));
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
    found
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs")
}

/// A file without its test modules, which may use anything.
fn product_text(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    match text.find("\n#[cfg(test)]\nmod ").or(text.find("\n#[cfg(all(test")) {
        Some(tests) => text[..tests].to_owned(),
        None => text,
    }
}

fn module_of(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn knowledge_points_only_the_way_the_house_says() {
    let table: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    let mut wrong = Vec::new();
    for path in sources(&root().join("src")) {
        let module = module_of(&path);
        if is_test(&path) || matches!(module.as_str(), "main" | "lib" | "cli") {
            continue;
        }
        let allowed = table.get(module.as_str()).unwrap_or_else(|| panic!("{module} is not in the table"));
        for line in product_text(&path).lines().filter(|line| !line.trim_start().starts_with("//")) {
            for (at, _) in line.match_indices("crate::") {
                let used: String =
                    line[at + 7..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if used != module && !allowed.contains(&used.as_str()) && table.contains_key(used.as_str()) {
                    wrong.push(format!("{}: {module} must not use {used}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_crates_below_do_not_know_each_other_or_the_gateway() {
    for (name, forbidden) in
        [("protocol", ["pgwitness", "tokio", "index"]), ("index", ["pgwitness", "tokio", "protocol"])]
    {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap();
        for word in forbidden {
            let names = dependencies.lines().filter_map(|line| line.split([' ', '.', '=']).next());
            assert!(!names.into_iter().any(|known| known.contains(word)), "{name} depends on {word}");
        }
    }
}

#[test]
fn production_has_no_path_to_the_demo() {
    for path in sources(&root().join("src")) {
        let module = module_of(&path);
        if is_test(&path) || module == "demo" || path.ends_with("cli/demo.rs") {
            continue;
        }
        assert!(!product_text(&path).contains("crate::demo"), "{} reaches the demo", path.display());
    }
}

#[test]
fn nothing_is_left_unfinished_in_the_code() {
    let markers = ["todo!(", "unimplemented!(", concat!("FIX", "ME"), concat!("// XX", "X")];
    for folder in ["src", "protocol/src", "index/src"] {
        for path in sources(&root().join(folder)) {
            let text = fs::read_to_string(&path).unwrap();
            for marker in markers {
                assert!(!text.contains(marker), "{} holds {marker}", path.display());
            }
        }
    }
}

#[test]
fn every_module_says_what_it_is() {
    for folder in ["src", "protocol/src", "index/src"] {
        for path in sources(&root().join(folder)) {
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.starts_with("//!"), "{} does not open with //!", path.display());
        }
    }
}
