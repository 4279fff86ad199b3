//! Listening: ports, addresses, and a Unix socket's files after every kind of end.

use std::path::Path;

use super::*;

#[tokio::test]
async fn tcp_ports() {
    let held = bind(&["127.0.0.1:0".parse().unwrap()], ListenOptions::default()).await.unwrap();
    let port = held[0].tcp_address().unwrap().port();
    let busy = ListenAddress::Tcp { host: "127.0.0.1".to_owned(), port };
    let error = bind(&[busy], ListenOptions::default()).await.unwrap_err().to_string();
    assert!(
        error.contains(&format!("cannot listen on 127.0.0.1:{port}")) && error.contains("another process"),
        "{error}"
    );
    let foreign = ListenAddress::Tcp { host: "192.0.2.1".to_owned(), port: 0 };
    let error = bind(&[foreign], ListenOptions::default()).await.unwrap_err().to_string();
    assert!(error.contains("does not have that address"), "{error}");

    // Both families on one port, and two listeners on one port if asked for.
    let all: ListenAddress = "*:0".parse().unwrap();
    assert!(!bind(&[all], ListenOptions::default()).await.unwrap().is_empty());
    let options = ListenOptions { reuse_port: true, ..ListenOptions::default() };
    let first = bind(&["127.0.0.1:0".parse().unwrap()], options).await.unwrap().remove(0);
    let same = ListenAddress::Tcp { host: "127.0.0.1".to_owned(), port: first.tcp_address().unwrap().port() };
    bind(&[same], options).await.unwrap();
}

#[test]
fn listen_addresses() {
    let tcp = |host: &str, port| Some(ListenAddress::Tcp { host: host.to_owned(), port });
    let cases = [
        ("0.0.0.0:6432", tcp("0.0.0.0", 6432)),
        ("localhost:0", tcp("localhost", 0)),
        ("*:6432", tcp("*", 6432)),
        ("[::1]:6432", tcp("::1", 6432)),
        ("/run/pointsman", Some(ListenAddress::Unix { directory: "/run/pointsman".into() })),
        ("./run", Some(ListenAddress::Unix { directory: "./run".into() })),
        ("::1:6432", None),
        ("[::1:6432", None),
        ("localhost", None),
        (":6432", None),
        ("localhost:65536", None),
        ("", None),
    ];
    for (text, expected) in cases {
        let got = text.parse::<ListenAddress>();
        assert_eq!(got.as_ref().ok(), expected.as_ref(), "{text}");
        match (got, expected) {
            (Ok(address), Some(_)) => assert_eq!(address.to_string(), text),
            (Err(error), None) => assert!(error.to_string().contains("expected host:port"), "{error}"),
            _ => unreachable!(),
        }
    }
}

#[tokio::test]
async fn unix_socket_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let place = [ListenAddress::Unix { directory: directory.path().to_owned() }];
    let options = ListenOptions { unix_port: 7000, ..ListenOptions::default() };
    let socket = directory.path().join(".s.PGSQL.7000");
    let lock = directory.path().join(".s.PGSQL.7000.lock");
    let start = || bind(&place, options);

    let first = start().await.unwrap();
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o7777, 0o777);
    let text = std::fs::read_to_string(&lock).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[3]), (5, std::process::id().to_string().as_str(), "7000"));
    // A second one in the same place, although the lock names our own process.
    let error = start().await.unwrap_err();
    assert!(matches!(error, NetError::SocketInUse { .. }), "{error}");
    assert!(socket.exists() && lock.exists());
    drop(first);
    assert!(!socket.exists() && !lock.exists());

    // What a killed process leaves: the socket and a lock with the number of a process that is gone, or of another one that has it now.
    let gone = {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        pid
    };
    for pid in [gone.to_string(), "1".to_owned(), "garbage".to_owned()] {
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        std::fs::write(&lock, format!("{pid}\n/nowhere\n0\n7000\n\n")).unwrap();
        drop(start().await.unwrap_or_else(|error| panic!("{pid}: {error}")));
        assert!(!socket.exists() && !lock.exists());
    }

    // Between another server's lock and its socket.
    let mut sleeper = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    std::fs::write(&lock, format!("{}\n", sleeper.id())).unwrap();
    let error = start().await.unwrap_err().to_string();
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    assert!(error.contains(&format!("belongs to process {}", sleeper.id())), "{error}");
    std::fs::remove_file(&lock).unwrap();

    // Someone who keeps no lock file is noticed too; and a successor's files survive our end.
    let other = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(matches!(start().await.unwrap_err(), NetError::SocketInUse { .. }));
    assert!(!lock.exists() && socket.exists());
    drop(other);
    let ours = start().await.unwrap();
    std::fs::remove_file(&socket).unwrap();
    let successor = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    drop(ours);
    assert!(socket.exists() && !lock.exists());
    drop(successor);
}

#[tokio::test]
async fn unix_sockets_that_cannot_be() {
    let options = ListenOptions::default();
    let check = async |directory: &Path, words: &str| {
        let place = ListenAddress::Unix { directory: directory.to_owned() };
        let error = bind(&[place], options).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    check(Path::new("/no/such/directory"), "create the directory first").await;
    check(Path::new(&format!("/tmp/{}", "x".repeat(100))), "longer than 103 bytes").await;
}
