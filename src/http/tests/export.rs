//! Exports: whole, recorded twice, and with a manifest that says what the file is.

use pgwitness_index::record::Event;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{ANA, House, MARIA, TOM};

/// An export and its manifest: media type, file, manifest.
async fn export(house: &House, token: &str, query: &str) -> (String, Vec<u8>, Value) {
    let url = house.at(&format!("/api/v1/export?{query}"));
    let answer = house.http.get(url).bearer_auth(token).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{query}");
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    let (kind, link) = (header("content-type"), header("link"));
    let path = link.split(['<', '>']).nth(1).unwrap().to_owned();
    let file = answer.bytes().await.unwrap().to_vec();
    let (status, manifest) = house.get(token, &path).await;
    assert_eq!(status, 200, "{path}: {manifest}");
    (kind, file, manifest)
}

fn lines(file: &[u8]) -> Vec<Value> {
    file.split_inclusive(|&byte| byte == b'\n').map(|line| serde_json::from_slice(line).unwrap()).collect()
}

#[tokio::test]
async fn an_export_holds_all_records_in_every_format() {
    let house = House::open().await;
    let maria = house.token(MARIA).await;
    let (kind, file, _) = export(&house, &maria, "q=table:orders&format=jsonl&fields=id,sql").await;
    assert_eq!((kind.as_str(), lines(&file).len()), ("application/x-ndjson", 40));
    assert_eq!(lines(&file)[0].as_object().unwrap().len(), 2);
    let (kind, file, _) = export(&house, &maria, "q=table:orders&format=csv&fields=seq,user").await;
    let table = String::from_utf8(file).unwrap();
    assert_eq!(kind, "text/csv; charset=utf-8");
    assert!(table.starts_with("seq,user\r\n") && table.lines().count() == 41, "{table}");
    let (kind, file, _) = export(&house, &maria, "q=table:orders&format=parquet").await;
    assert_eq!(kind, "application/vnd.apache.parquet");
    assert!(file.starts_with(b"PAR1") && file.ends_with(b"PAR1"));
    let (kind, file, _) = export(&house, &maria, "q=table:orders&format=ocsf").await;
    assert_eq!(kind, "application/x-ndjson");
    assert_eq!(lines(&file).len(), 40);
    assert!(lines(&file).iter().all(|event| event["class_uid"] == 6005));
    assert_eq!(house.get(&maria, "/api/v1/export?format=xlsx").await.0, 400);
    assert_eq!(house.get(&maria, "/api/v1/export?format=ocsf&fields=sql").await.0, 400);
}

#[tokio::test]
async fn a_manifest_says_what_the_file_is_and_who_took_it() {
    let house = House::open().await;
    let maria = house.token(MARIA).await;
    for (format, schema) in [
        ("csv", Value::Null),
        ("jsonl", Value::Null),
        ("parquet", Value::Null),
        ("ocsf", json!("OCSF 1.5.0")),
    ] {
        let head = house.book.head_seq();
        let query = format!("q=table:orders&from=-2h&format={format}");
        let (_, file, manifest) = export(&house, &maria, &query).await;
        let digest: String = Sha256::digest(&file).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(manifest["file"]["sha256"], digest, "{format}");
        assert_eq!((&manifest["file"]["bytes"], &manifest["rows"]), (&json!(file.len()), &json!(40)));
        assert_eq!((&manifest["file"]["format"], &manifest["file"]["schema"]), (&json!(format), &schema));
        assert_eq!(manifest["seq"], json!({ "first": 1, "last": 40 }));
        assert_eq!((&manifest["query"], &manifest["scope"]), (&json!("table:orders"), &json!("own")));
        assert_eq!(manifest["asked"], "table:orders [from -2h]");
        assert_eq!(
            (&manifest["head"]["seq"], &manifest["exported_by"]["user"]),
            (&json!(head), &json!(MARIA))
        );
        assert!(manifest["began"].as_str() <= manifest["ended"].as_str(), "{manifest}");
    }
    let (_, file, manifest) = export(&house, &maria, "q=table:nothing&format=jsonl").await;
    assert_eq!((file.len(), &manifest["rows"], &manifest["seq"]), (0, &json!(0), &Value::Null));
}

#[tokio::test]
async fn an_export_is_recorded_when_it_begins_and_when_it_ended_for_everybody() {
    let house = House::open().await;
    let maria = house.token(MARIA).await;
    let (_, _, manifest) = export(&house, &maria, "q=table:orders&format=csv").await;
    let sha256 = manifest["file"]["sha256"].as_str().unwrap();
    let [(who, began), (again, ended)] = &house.book.readings(Event::AuditExport)[..] else {
        panic!("two records")
    };
    assert_eq!((who.as_str(), again.as_str()), (MARIA, MARIA));
    assert_eq!(began, "exported table:orders [format csv]");
    assert!(ended.contains("40 rows") && ended.contains("seq 1..40") && ended.contains(sha256), "{ended}");
    let (_, found) = house.get(&maria, &format!("/api/v1/events/{}", manifest["id"].as_str().unwrap())).await;
    assert_eq!(found["event"], "audit.export");
}

#[tokio::test]
async fn a_manifest_is_for_who_exported_and_for_auditors() {
    let house = House::open().await;
    let (maria, ana, tom) = (house.token(MARIA).await, house.token(ANA).await, house.token(TOM).await);
    let (_, _, manifest) = export(&house, &maria, "q=table:orders").await;
    let path = format!("/api/v1/export/{}/manifest", manifest["id"].as_str().unwrap());
    assert_eq!(house.get(&ana, &path).await.0, 200);
    assert_eq!(house.get(&tom, &path).await.0, 404);
    assert_eq!(house.get(&maria, "/api/v1/export/nothing/manifest").await.0, 404);
}
