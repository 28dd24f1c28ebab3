//! TLS in front of a plain server, with certificates of an authority that only tests know, valid for a hundred years.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// One of the files of that authority.
pub(crate) fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/tls").join(name)
}

/// The keys of a step that name the files of a client.
pub(crate) fn keys(ca: &str, client: bool) -> String {
    let own = format!(
        "certificate-file = '{}'\nkey-file = '{}'\n",
        file("client.pem").display(),
        file("client.key").display()
    );
    format!("ca-file = '{}'\n{}", file(ca).display(), if client { own } else { String::new() })
}

/// Serves this server by TLS, only to those that show a certificate where it wants one, and says where.
pub(crate) async fn in_front_of(plain: SocketAddr, wants_certificate: bool) -> SocketAddr {
    let provider = Arc::new(default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("ca.pem")).unwrap()).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let chain = vec![CertificateDer::from_pem_file(file("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config =
        if wants_certificate { config.with_client_cert_verifier(clients) } else { config.with_no_client_auth() };
    let config = config.with_single_cert(chain, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let (Ok(mut secret), Ok(mut open)) = (acceptor.accept(stream).await, TcpStream::connect(plain).await)
                {
                    let _ = tokio::io::copy_bidirectional(&mut secret, &mut open).await;
                }
            });
        }
    });
    address
}
