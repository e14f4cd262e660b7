//! `pgwitness show ID --proof`: the proof of a record, checked here before it is shown, and as files for
//! other tools (c2sp.org/tlog-proof).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use pgwitness_index::proof::inclusion::InclusionProof;
use pgwitness_index::proof::leaf::{Salt, commitment};
use pgwitness_index::proof::merkle::leaf_hash;
use pgwitness_index::proof::note::{Note, VerifierKey};
use pgwitness_index::record::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::client::{Client, ClientError};
use super::table::printable;

/// The API's answer.
#[derive(Deserialize)]
struct Answer {
    seq: u64,
    #[serde(rename = "final")]
    is_final: bool,
    key: String,
    checkpoint: String,
    leaves: Vec<Leaf>,
}

#[derive(Deserialize)]
struct Leaf {
    kind: String,
    index: u64,
    entry: String,
    values: Map<String, Value>,
    /// Values that are gone, with the records that say why.
    #[serde(default)]
    erased: BTreeMap<String, u64>,
    proof: Vec<String>,
}

#[derive(Deserialize)]
struct Opening {
    salt: String,
    value: String,
}

/// What a proof file has beside the proof: the leaf, and what opens its commitments.
#[derive(Serialize)]
struct Extra<'a> {
    entry: &'a str,
    values: &'a Map<String, Value>,
}

/// A leaf that was checked.
struct Checked {
    file: InclusionProof,
    kind: String,
    values: usize,
}

/// Asks for the proof of a record.
pub(super) async fn ask(client: &Client, id: &str) -> Result<Value, ClientError> {
    client.get(&format!("/api/v1/events/{id}/proof"), &[]).await
}

/// Checks a proof and tells what it shows; with a folder, writes its files there.
pub(super) fn tell(answer: Value, folder: Option<&Path>) -> Result<String, ClientError> {
    let broken = |what: &str| ClientError::NotFound(format!("the proof does not hold: {what}"));
    let answer: Answer = serde_json::from_value(answer)
        .map_err(|_| ClientError::Unreachable("the answer is not a proof".into()))?;
    let key: VerifierKey = answer.key.parse().map_err(|_| broken("its key is none"))?;
    let checkpoint =
        Note::parse(answer.checkpoint.as_bytes()).map_err(|_| broken("its checkpoint is none"))?;
    let mut text = String::new();
    for leaf in &answer.leaves {
        let Checked { file, kind, values } = check(leaf, &checkpoint, &key).map_err(|what| broken(&what))?;
        let _ = writeln!(text, "{:<15} entry {}, {values} values", printable(&kind), file.index);
        for (name, by) in &leaf.erased {
            let _ = writeln!(
                text,
                "{:<15} {}, as record {by} says; its commitment is proven",
                "erased",
                printable(name)
            );
        }
        if let Some(folder) = folder {
            let path = folder.join(format!("{}-{kind}.tlog-proof", answer.seq));
            fs::create_dir_all(folder)
                .and_then(|()| fs::write(&path, file.to_string()))
                .map_err(ClientError::local(format!("write {}", path.display())))?;
            let _ = writeln!(text, "{:<15} {}", "", path.display());
        }
    }
    let head = checkpoint.text().lines().nth(1).unwrap_or_default();
    let _ = writeln!(text, "{:<15} {} entries, {}", "signed tree", printable(head), printable(key.name()));
    let _ = writeln!(text, "{:<15} {key}", "key");
    if !answer.is_final {
        let _ = writeln!(text, "{:<15} its end is not known, or not signed yet", "not final");
    }
    Ok(text)
}

fn check(leaf: &Leaf, checkpoint: &Note, key: &VerifierKey) -> Result<Checked, String> {
    if !["record", "completion", "settlement"].contains(&leaf.kind.as_str()) {
        return Err("it holds something unknown".into());
    }
    let decode = |text: &str| BASE64.decode(text).map_err(|_| "it is not base64".to_owned());
    let entry = decode(&leaf.entry)?;
    for (name, opening) in &leaf.values {
        let Opening { salt, value } =
            serde_json::from_value(opening.clone()).map_err(|_| "a value is incomplete".to_owned())?;
        let salt: Salt = decode(&salt)?.try_into().map_err(|_| "a salt is too short".to_owned())?;
        let committed = commitment(&salt, &decode(&value)?).0;
        if !entry.windows(committed.len()).any(|window| window == committed) {
            return Err(format!("{} is not what was recorded", printable(name)));
        }
    }
    let hash = |text: &String| Some(Digest(BASE64.decode(text).ok()?.try_into().ok()?));
    let hashes: Option<Vec<Digest>> = leaf.proof.iter().map(hash).collect();
    let extra = Extra { entry: &leaf.entry, values: &leaf.values };
    let file = InclusionProof {
        extra: Some(serde_json::to_vec(&extra).map_err(|error| error.to_string())?),
        index: leaf.index,
        hashes: hashes.ok_or_else(|| "its hashes are none".to_owned())?,
        checkpoint: checkpoint.clone(),
    };
    file.verify(&leaf_hash(&entry), std::slice::from_ref(key)).map_err(|error| error.to_string())?;
    Ok(Checked { file, kind: leaf.kind.clone(), values: leaf.values.len() })
}
