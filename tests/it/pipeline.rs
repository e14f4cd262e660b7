//! Pipelines: several executions before the first answer.
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

use serde_json::json;

use super::support::gateway::TestGateway;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_queries_sent_at_once_are_a_hundred_records_in_order() {
    let gateway = TestGateway::start().await;
    let client = gateway.connect("ann@example.com").await;
    let statement = client.prepare("SELECT $1::int4 AS pipelined").await.unwrap();
    let numbers: Vec<i32> = (0..100).collect();
    let answers = numbers.iter().map(|number| {
        let (client, statement) = (&client, &statement);
        async move { client.query_one(statement, &[number]).await.unwrap().get::<_, i32>(0) }
    });
    assert_eq!(futures_util::future::join_all(answers).await, numbers);
    let records = gateway.records("event:query sql:pipelined", 100).await;
    let params: Vec<_> = records.iter().map(|record| record["params"].clone()).collect();
    assert_eq!(params, numbers.iter().map(|number| json!([number])).collect::<Vec<_>>());
    let seqs: Vec<_> = records.iter().map(|record| record["seq"].as_u64().unwrap()).collect();
    assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]));
    gateway.stop().await;
}
