//! TLS and credentials against a TLS server in this process, with a certificate of an authority made for the test.
// Clippy takes only `#[test]` functions for tests, not what they call.
#![allow(clippy::unwrap_used)]

use millrace_schema::{Access, Credentials, Registry, RegistryError, Sources};
use millrace_tls::testing::Authority;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Lets in who sends `authorization: <expected>`; 401 without one, 403 with another.
struct Server {
    port: u16,
    authority: Authority,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn expecting(expected: &'static str) -> Self {
        let authority = Authority::new();
        let acceptor = authority.acceptor.clone();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // A client that does not trust us breaks off here.
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    if stream.read_buf(&mut request).await.unwrap() == 0 {
                        break;
                    }
                }
                let request = String::from_utf8(request).unwrap();
                let sent = request
                    .lines()
                    .find_map(|line| line.split_once(": ").filter(|(name, _)| *name == "authorization"));
                let (status, body) = match sent {
                    Some((_, sent)) if sent == expected => (200, r#"["AVRO"]"#),
                    Some(_) => (403, r#"{"error_code":40301,"message":"User is denied"}"#),
                    None => (401, ""),
                };
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        Self { port, authority, task }
    }

    fn access(&self) -> Access {
        self.access_as("")
    }

    fn access_as(&self, user: &str) -> Access {
        Access::to(format!("https://{user}localhost:{}/apis/ccompat/v7", self.port))
            .with_ca_file(&self.authority.ca_file)
    }
}

async fn reach(access: &Access) -> Result<(), RegistryError> {
    Registry::connect(access)?.reachable().await
}

fn basic(user: &str, password: &str) -> Credentials {
    Credentials::Basic {
        user: user.to_owned(),
        password: password.to_owned(),
    }
}

/// `user:hunter2`
const BASIC: &str = "Basic dXNlcjpodW50ZXIy";

#[tokio::test]
async fn credentials_open_the_door_and_what_was_sent_is_said_when_they_do_not() {
    let server = Server::expecting(BASIC).await;
    reach(&server.access().with_credentials(basic("user", "hunter2")))
        .await
        .unwrap();
    reach(&server.access_as("user:hunter2@")).await.unwrap();
    for (access, expected) in [
        (
            server.access(),
            "refused with HTTP 401: an empty body; no credentials were sent",
        ),
        (
            server.access().with_credentials(basic("user", "wrong-hunter3")),
            "refused with HTTP 403 (code 40301): User is denied; a user and password were sent",
        ),
        (
            server
                .access()
                .with_credentials(Credentials::Bearer("tok-hunter4".to_owned())),
            "refused with HTTP 403 (code 40301): User is denied; a bearer token was sent",
        ),
    ] {
        let error = reach(&access).await.unwrap_err();
        assert!(!error.is_outage() && error.to_string().contains(expected), "{error}");
        let registry = Registry::connect(&access).unwrap();
        let shown = format!("{error} {error:?} {access:?} {registry:?}");
        assert!(!shown.contains("hunter"), "{shown}");
    }
    let server = Server::expecting("Bearer tok").await;
    reach(&server.access().with_credentials(Credentials::Bearer("tok".to_owned())))
        .await
        .unwrap();
}

#[tokio::test]
async fn who_is_not_of_a_trusted_authority_learns_no_password() {
    let (server, other) = (Server::expecting(BASIC).await, Server::expecting(BASIC).await);
    let access = Access::to(format!("https://localhost:{}", server.port))
        .with_credentials(basic("user", "hunter2"))
        .with_ca_file(&other.authority.ca_file);
    let error = reach(&access).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    // The name must fit, too.
    let by_number = Access::to(format!("https://127.0.0.1:{}", server.port)).with_ca_file(&server.authority.ca_file);
    let error = reach(&by_number).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[test]
fn what_cannot_be_used_is_said_before_anything_is_sent() {
    let dir = TempDir::new().unwrap();
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let https = || Access::to("https://registry");
    for (access, expected) in [
        (
            https().with_ca_file(dir.path().join("none.pem")),
            "none.pem cannot be used: No such file",
        ),
        (
            https().with_ca_file(&empty),
            "empty.pem cannot be used: no certificate in PEM form",
        ),
        (
            Access::to("https://a:hunter2@registry").with_credentials(Credentials::Bearer("hunter3".to_owned())),
            "credentials both in the address and beside it",
        ),
        (
            Access::to("http://registry").with_ca_file(&empty),
            "authorities are for https:// only",
        ),
        (
            https().with_credentials(Credentials::Bearer("hunter\n2".to_owned())),
            "no HTTP header can carry",
        ),
        (https().with_credentials(basic("hunter:x", "")), "cannot hold a colon"),
    ] {
        let error = Registry::connect(&access).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("hunter"), "{error}");
    }
}

#[test]
fn secrets_come_from_one_place() {
    let dir = TempDir::new().unwrap();
    let (file, empty) = (dir.path().join("secret"), dir.path().join("empty"));
    std::fs::write(&file, "hunter2\n").unwrap();
    std::fs::write(&empty, "\n").unwrap();
    let text = |text: &str| Some(text.to_owned());
    let sources = Sources::default;
    let user = || Sources {
        user: text("user"),
        ..sources()
    };
    for (sources, expected) in [
        (sources(), Ok(Credentials::None)),
        (
            Sources {
                password_file: Some(file.clone()),
                ..user()
            },
            Ok(basic("user", "hunter2")),
        ),
        (
            Sources {
                password: text("hunter3"),
                ..user()
            },
            Ok(basic("user", "hunter3")),
        ),
        (
            Sources {
                token_file: Some(file.clone()),
                ..sources()
            },
            Ok(Credentials::Bearer("hunter2".to_owned())),
        ),
        (user(), Err("user")),
        (
            Sources {
                token: text("hunter4"),
                ..user()
            },
            Err("user"),
        ),
        (
            Sources {
                password: text("hunter4"),
                ..sources()
            },
            Err("password"),
        ),
        (
            Sources {
                password: text("hunter4"),
                token: text("t"),
                ..sources()
            },
            Err("password"),
        ),
        (
            Sources {
                password: text("hunter4"),
                password_file: Some(file.clone()),
                ..user()
            },
            Err("password_file"),
        ),
        (
            Sources {
                token: text("hunter4"),
                token_file: Some(file),
                ..sources()
            },
            Err("token_file"),
        ),
        (
            Sources {
                token_file: Some(empty),
                ..sources()
            },
            Err("token_file"),
        ),
        (
            Sources {
                token_file: Some(dir.path().join("none")),
                ..sources()
            },
            Err("token_file"),
        ),
    ] {
        let shown = format!("{sources:?}");
        let read = sources.read();
        assert!(!format!("{shown}{read:?}").contains("hunter"), "{shown}{read:?}");
        assert_eq!(read.map_err(|e| e.key), expected);
    }
}
