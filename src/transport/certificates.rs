//! Certificates from files of the operator's: the authority that a server is judged by in place of the machine's, and the
//! certificate with its key that is shown to a server that asks for one.
//!
//! Some are renewed every few hours, so they are read anew for each use. Nothing of a file is ever shown but its name.

use super::KeyError;
use super::exchange::{ExchangeError, TlsConfig};
use crate::view::error_text;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ClientConfig, InconsistentKeys, RootCertStore};

/// The most that is read of a file: a bundle of every authority in the world is a quarter of it.
const MOST: u64 = 1 << 20;

/// Files that hold certificates; without any, the machine's authorities count and nothing is shown to servers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct CertificateFiles {
    ca: Option<PathBuf>,
    own: Option<ClientCertificate>,
}

/// What is shown to a server that asks who we are.
#[derive(Clone, PartialEq, Eq, Debug)]
struct ClientCertificate {
    certificate: PathBuf,
    key: PathBuf,
}

impl CertificateFiles {
    /// Those of `ca-file`, `certificate-file` and `key-file`.
    ///
    /// # Errors
    /// The key that is wrong: a path that is not absolute, or one of a pair without the other.
    pub(crate) fn new(ca: Option<&Path>, certificate: Option<&Path>, key: Option<&Path>) -> Result<Self, KeyError> {
        let wrong = |key: &str, message: &str| KeyError { key: key.to_owned(), message: message.to_owned() };
        for (name, path) in [("ca-file", ca), ("certificate-file", certificate), ("key-file", key)] {
            if path.is_some_and(|path| !path.is_absolute()) {
                return Err(wrong(name, "is no absolute path of a file, as /etc/ssl/private/ca.pem is"));
            }
        }
        let own = match (certificate, key) {
            (Some(certificate), Some(key)) => {
                Some(ClientCertificate { certificate: certificate.into(), key: key.into() })
            }
            (None, None) => None,
            (Some(_), None) => return Err(wrong("certificate-file", "needs `key-file` beside it")),
            (None, Some(_)) => return Err(wrong("key-file", "needs `certificate-file` beside it")),
        };
        Ok(Self { ca: ca.map(Into::into), own })
    }

    /// The first key that names a file.
    pub(crate) const fn first_key(&self) -> Option<&'static str> {
        match (&self.ca, &self.own) {
            (Some(_), _) => Some("ca-file"),
            (None, Some(_)) => Some("certificate-file"),
            (None, None) => None,
        }
    }

    /// Reads them. It may block.
    pub(super) fn load(&self) -> Result<TlsConfig, ExchangeError> {
        let roots = match &self.ca {
            Some(path) => authorities(path).map_err(ExchangeError::Tls)?,
            None => authorities_of_the_machine()?,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| ExchangeError::Tls(error.to_string()))?.with_root_certificates(roots);
        let Some(own) = &self.own else { return Ok(Arc::new(builder.with_no_client_auth())) };
        let (chain, key) = own.read().map_err(ExchangeError::Tls)?;
        match builder.with_client_auth_cert(chain, key) {
            Ok(config) => Ok(Arc::new(config)),
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(ExchangeError::Tls(format!(
                "the private key in {} does not belong to the certificate in {}",
                own.key.display(),
                own.certificate.display()
            ))),
            Err(error) => Err(ExchangeError::Tls(format!("the key in {} cannot be used: {error}", own.key.display()))),
        }
    }

    /// Whether everybody on this machine may read the private key, as a sentence. It may block.
    pub(super) fn exposure(&self) -> Option<String> {
        let key = &self.own.as_ref()?.key;
        let is_open = std::fs::metadata(key).is_ok_and(|file| file.mode() & 0o004 != 0);
        is_open
            .then(|| format!("everybody on this machine may read the private key {0} (chmod o-r {0})", key.display()))
    }
}

impl ClientCertificate {
    fn read(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
        let chain = certificates(&self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&contents(&self.key)?).map_err(|_| {
            format!("{} holds no private key in PEM form (one with a passphrase cannot be read)", self.key.display())
        })?;
        Ok((chain, key))
    }
}

fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        let wrong = |error| format!("{} holds a certificate that cannot be used: {error}", path.display());
        roots.add(certificate).map_err(wrong)?;
    }
    Ok(roots)
}

fn authorities_of_the_machine() -> Result<RootCertStore, ExchangeError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
        return Err(ExchangeError::NoRoots(why));
    }
    Ok(roots)
}

/// All certificates in a file; at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&contents(path)?).collect();
    match read {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => Err(format!("{} holds no certificate in PEM form", path.display())),
    }
}

/// A regular file, whole: a pipe in its place would hold us up.
fn contents(path: &Path) -> Result<Vec<u8>, String> {
    let not_blocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let read = |file: File| {
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        let mut bytes = Vec::new();
        file.take(MOST + 1).read_to_end(&mut bytes)?;
        if u64::try_from(bytes.len()).is_ok_and(|length| length <= MOST) {
            Ok(bytes)
        } else {
            Err(io::Error::other("it is longer than 1 MiB"))
        }
    };
    let opened = OpenOptions::new().read(true).custom_flags(not_blocking).open(path);
    opened.and_then(read).map_err(|error| format!("{} cannot be read: {}", path.display(), error_text(&error)))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    /// A file among those that tests share.
    fn shared(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/tls").join(name)
    }

    fn loaded(ca: &Path, certificate: &Path, key: &Path) -> Result<(), String> {
        let files = CertificateFiles::new(Some(ca), Some(certificate), Some(key)).unwrap();
        files.load().map(drop).map_err(|trouble| trouble.at("h").to_string())
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_name_and_nothing_of_it() {
        let place = tempfile::tempdir().unwrap();
        let (ca, certificate, key) = (shared("ca.pem"), shared("client.pem"), shared("client.key"));
        assert_eq!(loaded(&ca, &certificate, &key), Ok(()));
        let odd = |name: &str, text: &str| {
            let path = place.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (hunter, empty) = (odd("odd.pem", "hunter2"), odd("empty.pem", ""));
        let broken = odd("broken.pem", "-----BEGIN CERTIFICATE-----\nhunter2!\n-----END CERTIFICATE-----\n");
        let long = odd("long.pem", &"x".repeat(1 << 21));
        let missing = place.path().join("missing.pem");
        for (ca, certificate, key, words) in [
            (&missing, &certificate, &key, "missing.pem cannot be read: no such file or directory"),
            (&place.path().to_owned(), &certificate, &key, "cannot be read: it is no regular file"),
            (&hunter, &certificate, &key, "odd.pem holds no certificate in PEM form"),
            (&long, &certificate, &key, "long.pem cannot be read: it is longer than 1 MiB"),
            (&broken, &certificate, &key, "broken.pem holds"),
            (&ca, &empty, &key, "empty.pem holds no certificate in PEM form"),
            (&ca, &certificate, &hunter, "odd.pem holds no private key in PEM form"),
            (&ca, &certificate, &certificate, "client.pem holds no private key in PEM form"),
            (&ca, &certificate, &missing, "missing.pem cannot be read"),
            (&ca, &certificate, &shared("server.key"), "server.key does not belong to the certificate in"),
        ] {
            let said = loaded(ca, certificate, key).unwrap_err();
            assert!(said.contains(words) && !said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn files_are_named_in_pairs_and_by_their_whole_path() {
        let (one, other) = (Path::new("/a.pem"), Path::new("a.pem"));
        for (ca, certificate, key, wrong) in [
            (Some(other), None, None, "ca-file"),
            (None, Some(one), None, "certificate-file"),
            (None, None, Some(one), "key-file"),
            (None, Some(one), Some(other), "key-file"),
        ] {
            assert_eq!(CertificateFiles::new(ca, certificate, key).unwrap_err().key, wrong);
        }
        assert_eq!(CertificateFiles::new(None, None, None).unwrap().first_key(), None);
    }
}
