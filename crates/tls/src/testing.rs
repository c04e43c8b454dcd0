//! A TLS server in this process, with a certificate of an authority that was made for it. Panics where it cannot be made: tests
//! have nothing to do without it.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// An authority, and a server's certificate of it for `localhost`.
pub struct Authority {
    /// What whoever trusts it has to read.
    pub ca_file: PathBuf,
    /// Takes connections with the certificate.
    pub acceptor: TlsAcceptor,
    _dir: TempDir,
}

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &authority).unwrap();
        let dir = TempDir::new().unwrap();
        let ca_file = dir.path().join("ca.pem");
        std::fs::write(&ca_file, authority.pem()).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        Self {
            ca_file,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            _dir: dir,
        }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

/// TLS before a server that has none. Dropped, it is gone.
pub struct Front {
    /// Where it listens, for whoever calls it `localhost`.
    pub port: u16,
    authority: Authority,
    _serving: JoinSet<()>,
}

impl Front {
    /// Before this server.
    pub async fn before(server: SocketAddr) -> Self {
        let authority = Authority::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = authority.acceptor.clone();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    // A client that does not trust us breaks off here, one that leaves breaks off below.
                    if let Ok(mut client) = acceptor.accept(stream).await {
                        let mut behind = TcpStream::connect(server).await.unwrap();
                        let _ = copy_bidirectional(&mut client, &mut behind).await;
                    }
                });
            }
        });
        Self {
            port,
            authority,
            _serving: serving,
        }
    }

    /// What whoever trusts it has to read.
    pub fn ca_file(&self) -> &Path {
        &self.authority.ca_file
    }
}
