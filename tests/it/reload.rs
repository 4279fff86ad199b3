//! The configuration file, replaced under a running gateway: what changes is said by name, what cannot be used changes nothing.

use std::fs;

use crate::support::{Gateway, database, direct, eventually};

/// Counts lines of the log that hold all of `words`.
fn lines(gateway: &Gateway<'_>, words: &[&str]) -> usize {
    gateway.log().lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

#[track_caller]
fn logged(gateway: &Gateway<'_>, words: &[&str]) {
    eventually(&format!("{words:?} in the log"), || lines(gateway, words) > 0);
}

fn nodes_that_answer(gateway: &Gateway<'_>, database: &str) -> Vec<String> {
    let mut nodes: Vec<String> =
        (0..8).map(|_| gateway.query(database, "SELECT current_setting('cluster_name')")).collect();
    nodes.sort();
    nodes.dedup();
    nodes
}

#[tokio::test]
async fn a_changed_file_is_put_to_work_and_said() {
    if direct() {
        return;
    }
    let database = database("reload");
    let gateway = Gateway::setup().file("empty", "").start();
    let file = gateway.path("pointsman.toml");
    let original = fs::read_to_string(&file).unwrap();
    let put = |text: &str| {
        let new = gateway.path("pointsman.toml.new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, &file).unwrap();
    };
    eventually("both replicas answer", || nodes_that_answer(&gateway, &database) == ["r1", "r2"]);
    // A session in a transaction sees nothing of all this.
    let session = gateway.connect(&database).await;
    session.batch_execute("CREATE TABLE t (n int); BEGIN; INSERT INTO t VALUES (1)").await.unwrap();

    // One replica less.
    let at = original.find(", { name = \"r2\"").unwrap();
    let end = at + original[at..].find('}').unwrap() + 1;
    let fewer = [&original[..at], &original[end..]].concat();
    put(&fewer);
    logged(&gateway, &["removed", "nodes[r2]"]);
    assert_eq!(lines(&gateway, &["setting=", "nodes"]), 1, "{}", gateway.log());
    assert_eq!(nodes_that_answer(&gateway, &database), ["r1"]);
    // And back, by writing into the file itself.
    fs::write(&file, &original).unwrap();
    logged(&gateway, &["added", "nodes[r2]"]);
    eventually("both replicas answer again", || nodes_that_answer(&gateway, &database) == ["r1", "r2"]);

    // What cannot be used changes nothing, and says where.
    put(&original.replace("[pool]", "[pool]\nsize = \"many\""));
    logged(&gateway, &["pointsman.toml:", "pool.size"]);
    assert_eq!(nodes_that_answer(&gateway, &database), ["r1", "r2"]);

    // What needs a restart is named as long as it does.
    let other = original.replace(&format!("127.0.0.1:{}\"", gateway.port), "127.0.0.1:1\"");
    put(&other);
    logged(&gateway, &["next start", "server.listen[0]"]);
    let told = lines(&gateway, &["next start"]);
    put(&original.replace("[pool]", "[pool]\nsize = 7"));
    logged(&gateway, &["changed", "pool.size"]);
    assert_eq!(lines(&gateway, &["next start"]), told, "{}", gateway.log());

    // A file that goes, or that is empty, is no configuration; it is said once.
    fs::remove_file(&file).unwrap();
    logged(&gateway, &["cannot be read", "pointsman.toml"]);
    assert_eq!(nodes_that_answer(&gateway, &database), ["r1", "r2"]);
    put(&original.replace("[pool]", "[pool]\nsize = 8"));
    eventually("the next change is seen", || lines(&gateway, &["changed", "pool.size"]) == 2);
    assert_eq!(lines(&gateway, &["cannot be read", "pointsman.toml"]), 1, "{}", gateway.log());

    session.batch_execute("INSERT INTO t VALUES (2); COMMIT").await.unwrap();
    assert_eq!(gateway.query(&database, "SELECT count(*) FROM t"), "2");
}
