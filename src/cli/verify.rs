//! `pgwitness verify`: reads the journal's files, offline, and says whether anything is missing or
//! changed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use pgwitness_index::journal::Head;
use pgwitness_index::proof::note::{Note, VerifierKey};
use pgwitness_index::proof::{self, Against, TileStore};
use pgwitness_index::record::Seq;
use pgwitness_index::storage::DirStorage;
use serde_json::{Map, Value};

use super::client::DemoFile;

/// Exit code of a command line that asks for something that cannot be.
const USAGE: u8 = 2;

/// `pgwitness verify`
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Folder of the journal [default: the running demo's]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// First record to check
    #[arg(long, value_name = "SEQ", requires = "to")]
    from: Option<u64>,
    /// Last record to check
    #[arg(long, value_name = "SEQ", requires = "from")]
    to: Option<u64>,
    /// A head kept earlier (JSON, as from /api/v1/log/head, or a checkpoint): the journal must continue it
    #[arg(long, value_name = "FILE")]
    head: Option<PathBuf>,
    /// The key that heads must be signed with, or a file that holds it [default: the one beside the journal]
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Write the whole log there as tiles and entry bundles (c2sp.org/tlog-tiles), for other tools
    #[arg(long, value_name = "DIR")]
    tiles: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => match DemoFile::read().ok().flatten() {
            Some(demo) => demo.dir,
            None => {
                eprintln!("pgwitness: name the journal's folder with --dir (no demo is running)");
                return Ok(ExitCode::from(USAGE));
            }
        },
    };
    let against = against(&args)?;
    let report = tokio::task::spawn_blocking(move || {
        let storage = DirStorage::open(&dir).with_context(|| format!("could not open {}", dir.display()))?;
        proof::verify_against(&storage, against).context("could not verify the journal")
    })
    .await??;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    Ok(if report.intact { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn against(args: &VerifyArgs) -> anyhow::Result<Against> {
    let range = args.from.zip(args.to).map(|(from, to)| (Seq(from), Seq(to)));
    let (head, checkpoint) = match &args.head {
        Some(file) => kept(file).with_context(|| format!("{} holds no head", file.display()))?,
        None => (None, None),
    };
    let key = args.key.as_deref().map(key).transpose()?;
    let export = match &args.tiles {
        Some(dir) => {
            let folder =
                DirStorage::create(dir).with_context(|| format!("could not make {}", dir.display()))?;
            Some(TileStore::in_folder(Arc::new(folder)))
        }
        None => None,
    };
    Ok(Against { range, head, checkpoint, key, export })
}

/// The journal's head and the checkpoint in a file: a checkpoint alone, or the API's JSON, which may hold both.
fn kept(file: &Path) -> anyhow::Result<(Option<Head>, Option<Note>)> {
    let bytes = std::fs::read(file)?;
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Ok((None, Some(Note::parse(&bytes)?)));
    }
    let mut fields: Map<String, Value> = serde_json::from_slice(&bytes)?;
    // The key is not taken from the file that it would speak for.
    fields.remove("key");
    let checkpoint = match fields.remove("checkpoint") {
        Some(Value::String(note)) => Some(Note::parse(note.as_bytes())?),
        _ => None,
    };
    Ok((Some(serde_json::from_value(Value::Object(fields))?), checkpoint))
}

/// A key, or the first line of the file that holds it.
fn key(text: &str) -> anyhow::Result<VerifierKey> {
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    let file = std::fs::read_to_string(text)
        .with_context(|| format!("{text:?} is neither a verifier key nor a file that can be read"))?;
    let key = file.lines().next().unwrap_or_default().trim().parse();
    key.with_context(|| format!("{text} holds no verifier key"))
}

#[cfg(test)]
mod tests {
    use pgwitness_index::proof::note::SignerKey;

    use super::*;

    #[test]
    fn a_kept_head_is_the_apis_json_of_any_age_or_a_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("head");
        let kept = |text: &str| {
            std::fs::write(&file, text).unwrap();
            kept(&file)
                .map(|(head, note)| (head.map(|head| head.seq.0), note.map(|note| note.text().to_owned())))
        };
        let signer = SignerKey::from_seed("example.com/log", &[1; 32]).unwrap();
        let note = Note::sign("a text\n".into(), &signer).unwrap().to_string();
        let digest = "a5".repeat(32);
        let old = format!(r#"{{"seq":7,"frames":9,"digest":"{digest}","time":null}}"#);
        assert_eq!(kept(&old).unwrap(), (Some(7), None));
        let mut new: Map<String, Value> = serde_json::from_str(&old).unwrap();
        new.insert("checkpoint".into(), note.clone().into());
        new.insert("key".into(), signer.public().to_string().into());
        let text = Some("a text\n".to_owned());
        assert_eq!(kept(&Value::Object(new.clone()).to_string()).unwrap(), (Some(7), text.clone()));
        new.insert("checkpoint".into(), Value::Null);
        assert_eq!(kept(&Value::Object(new).to_string()).unwrap(), (Some(7), None));
        assert_eq!(kept(&note).unwrap(), (None, text));
        for text in ["", "{}", "null", &note[1..note.len() - 1], r#"{"seq":7}"#] {
            assert!(kept(text).is_err(), "{text}");
        }
        assert_eq!(&key(&signer.public().to_string()).unwrap(), signer.public());
        std::fs::write(&file, format!("{}\n", signer.public())).unwrap();
        assert_eq!(&key(file.to_str().unwrap()).unwrap(), signer.public());
        assert!(key("/nowhere").is_err());
    }
}
