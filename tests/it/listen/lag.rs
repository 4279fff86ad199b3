//! What a listener reads from replicas that are behind.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::Listener;
use crate::support::{Gateway, direct};

/// What is told of is committed, and was visible before it was told; and whoever begins to listen finds what he was not told of.
#[tokio::test]
async fn who_is_notified_finds_what_was_committed() {
    if direct() {
        return;
    }
    let cluster = pointsman::demo::Cluster::builder().replicas(1).start(|_| {}).unwrap();
    let gateway = Gateway::in_front_of(&cluster).start();
    let primary = cluster.primary();
    let update = |n: i32| format!("UPDATE t SET n = {n}; SELECT pg_notify('inv', '{n}')");
    primary.psql("demo", "SET ROLE demo; CREATE TABLE t AS SELECT 0 AS n").unwrap();
    cluster.wait_replayed().unwrap();
    let other = gateway.connect("demo").await;
    let read = async |client: &Client| -> (i32, String) {
        let row = client.query_one("SELECT n, current_setting('cluster_name') FROM t", &[]).await.unwrap();
        (row.get(0), row.get(1))
    };
    let from_replica = async |client: &Client| {
        let start = Instant::now();
        while read(client).await.1 != "r1" {
            assert!(start.elapsed() < Duration::from_secs(30), "the replica answers no more");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    from_replica(&other).await;
    let replay =
        |what: &str| cluster.replicas()[0].psql("postgres", &format!("SELECT pg_wal_replay_{what}()")).unwrap();
    replay("pause");
    primary.psql("demo", "UPDATE t SET n = 1").unwrap();
    let mut listener = Listener::connect(&gateway, "demo").await;
    listener.run("LISTEN inv").await;
    assert_eq!(read(&listener.client).await, (1, "primary".into()));
    // One that keeps its server for another reason hears there.
    let mut keeper = Listener::connect(&gateway, "demo").await;
    keeper.run("CREATE TEMP TABLE kept (); LISTEN inv").await;
    replay("resume");
    from_replica(&listener.client).await;
    replay("pause");
    for n in 2..5 {
        primary.psql("demo", &update(n)).unwrap();
        assert_eq!(listener.next().await.1, n.to_string());
        assert_eq!(read(&listener.client).await, (n, "primary".into()));
    }
    // Who was told nothing reads on where he did.
    assert_eq!(read(&other).await, (1, "r1".into()));
    while keeper.next().await.1 != "4" {}
    keeper.run("DROP TABLE kept; UNLISTEN *").await;
    assert_eq!(read(&keeper.client).await, (4, "primary".into()));
    // Once the replica has it all, it answers: each of them, and nobody reads anything older.
    replay("resume");
    for client in [&listener.client, &keeper.client] {
        from_replica(client).await;
        assert_eq!(read(client).await.0, 4);
    }
    // Also what is told of before it has been replayed, but not read before.
    replay("pause");
    primary.psql("demo", &update(5)).unwrap();
    assert_eq!(listener.next().await.1, "5");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(read(&listener.client).await, (5, "primary".into()));
    replay("resume");
    from_replica(&listener.client).await;
    assert_eq!(read(&listener.client).await.0, 5);
}
