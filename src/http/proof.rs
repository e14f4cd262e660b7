//! Proofs about the log: its signed head, that one tree continues another, that a record is in it.
//!
//! Everything in an answer can be checked without us: hashes and entries as RFC 6962 and C2SP have them,
//! base64; how an entry's bytes follow from the record is told by `pgwitness_index::proof::leaf`.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use pgwitness_index::proof::{LeafProof, RecordProof, TreeError};
use pgwitness_index::record::{Digest, Event, Seq};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Api;
use super::api::{Answer, failed, searching};
use super::audit::{self, Reading, Repeated};
use super::auth::Caller;
use super::params::Params;
use super::problem::Problem;

/// Parameters of a proof of consistency.
pub(super) const CONSISTENCY: &[&str] = &["from", "to"];

/// `GET /log/head`: the journal's head, and the last checkpoint with the key that signed it.
pub(super) async fn head(State(api): State<Arc<Api>>, _caller: Caller, RawQuery(query): RawQuery) -> Answer {
    Params::from_url(query.as_deref(), &[])?;
    Ok(Json(whole_head(&api)))
}

/// The same for whoever keeps it beside something else.
pub(super) fn whole_head(api: &Api) -> Value {
    let mut head = api.witness.head();
    if let Some(head) = head.as_object_mut() {
        let checkpoint = api.proofs.reader().published().map(|published| published.note.to_string());
        head.insert("checkpoint".into(), checkpoint.into());
        head.insert("key".into(), api.proofs.key().to_string().into());
    }
    head
}

/// `GET /log/consistency`: `from` and `to` are sizes of trees; `to` is the signed one if it is left out.
pub(super) async fn consistency(
    State(api): State<Arc<Api>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Answer {
    let params = Params::from_url(query.as_deref(), CONSISTENCY)?;
    let signed = api.proofs.reader().published().map_or(0, |published| published.tree.size);
    let from = params.number("from", 0, u64::MAX)?;
    let from = from.ok_or_else(|| Problem::bad_request("from must be the size of an earlier tree"))?;
    let to = params.number("to", 0, u64::MAX)?.unwrap_or(signed);
    searching(&api, &caller.clone(), move |api| {
        let proof = api.proofs.reader().consistency(from, to).map_err(|error| unproven(&error))?;
        let proof = proof.ok_or_else(|| {
            Problem::bad_request(format!(
                "from must not be larger than to, and to not than {signed}, which is signed"
            ))
        })?;
        Ok(Json(json!({
            "from": proof.from,
            "from_root": encoded(&proof.from_root),
            "to": proof.to,
            "to_root": encoded(&proof.to_root),
            "proof": hashes(&proof.hashes),
            "checkpoint": proof.checkpoint.to_string(),
            "key": api.proofs.key().to_string(),
        })))
    })
    .await
}

/// `GET /events/{id}/proof`: for whoever may see the record. Reading it is recorded like reading the record.
pub(super) async fn record(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    Params::from_url(query.as_deref(), &[])?;
    let id = Uuid::parse_str(&id).map_err(|_| Problem::not_found())?;
    let began = Instant::now();
    searching(&api, &caller.clone(), move |api| {
        let item = api.search.get(id, &caller.scope()).map_err(|error| failed(&error))?;
        let seq = item.as_ref().and_then(|item| item.get("seq")?.as_u64()).ok_or_else(Problem::not_found)?;
        let proof = api.proofs.reader().record(Seq(seq)).map_err(|error| unproven(&error))?;
        let proof = proof.ok_or_else(|| {
            Problem::unavailable("the record is not covered by a signed head yet. Try again in a second")
        })?;
        let reading = Reading {
            event: Event::AuditSearch,
            asked: format!("id:{id} proof"),
            repeated: Repeated::No,
            found: Some(1),
            began,
        };
        audit::read(api, &caller, reading)?;
        Ok(Json(told(id, &proof, &api.proofs.key().to_string())))
    })
    .await
}

fn told(id: Uuid, proof: &RecordProof, key: &str) -> Value {
    let checkpoint = proof.leaves.first().map(|leaf| leaf.inclusion.checkpoint.to_string());
    json!({
        "id": id,
        "seq": proof.seq.0,
        "final": proof.is_final,
        "key": key,
        "checkpoint": checkpoint,
        "leaves": proof.leaves.iter().map(leaf).collect::<Vec<_>>(),
    })
}

fn leaf(leaf: &LeafProof) -> Value {
    let values: Map<String, Value> = leaf
        .openings
        .iter()
        .map(|opening| {
            let open = json!({ "salt": BASE64.encode(opening.salt), "value": BASE64.encode(&opening.bytes) });
            (opening.value.as_str().to_owned(), open)
        })
        .collect();
    let erased: Map<String, Value> =
        leaf.erased.iter().map(|(value, by)| (value.as_str().to_owned(), by.0.into())).collect();
    json!({
        "kind": leaf.kind.as_str(),
        "index": leaf.inclusion.index,
        "hash": encoded(&leaf.hash()),
        "entry": BASE64.encode(&leaf.entry),
        "values": values,
        "erased": erased,
        "proof": hashes(&leaf.inclusion.hashes),
    })
}

fn hashes(hashes: &[Digest]) -> Vec<String> {
    hashes.iter().map(encoded).collect()
}

fn encoded(digest: &Digest) -> String {
    BASE64.encode(digest.0)
}

fn unproven(error: &TreeError) -> Problem {
    tracing::error!(%error, "a proof could not be made");
    Problem::internal()
}
