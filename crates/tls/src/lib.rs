//! Whom a TLS client trusts: the system's authorities, or those of a file and no other.
//!
//! The provider is named here, `ring`: there is no process-wide one, for which HTTP and gRPC clients would look and panic.

#[cfg(feature = "testing")]
pub mod testing;

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Who a server must be to be trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Trust {
    /// Whoever an authority of this system answers for.
    #[default]
    System,
    /// Whoever an authority in this file (PEM) answers for.
    File(PathBuf),
    /// Nobody: TLS is not meant to be used.
    Nobody,
}

/// Authorities that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The system has none.
    #[error("the system has no certificate authorities: name a file of them (PEM)")]
    NoSystem,
    /// Those of the file.
    #[error("the authorities in {} cannot be used: {why}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        why: String,
    },
    /// The library refuses its own defaults.
    #[error(transparent)]
    Library(#[from] rustls::Error),
}

impl Trust {
    /// Of whom stands behind an address of this scheme: nobody where that is not `https`; else of the authorities in a file,
    /// or, without one or with an empty path, of the system's.
    pub fn behind(scheme: &str, file: Option<&Path>) -> Self {
        match file.filter(|file| !file.as_os_str().is_empty()) {
            _ if scheme != "https" => Self::Nobody,
            Some(file) => Self::File(file.to_owned()),
            None => Self::System,
        }
    }

    /// A client that trusts so, and shows no certificate of its own. Reads the file, once.
    pub fn client(&self) -> Result<ClientConfig, TlsError> {
        let config = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots()?);
        Ok(config.with_no_client_auth())
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        match self {
            Self::Nobody => {}
            Self::System => {
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
                if roots.is_empty() {
                    return Err(TlsError::NoSystem);
                }
            }
            Self::File(file) => {
                let unusable = |why: String| TlsError::File {
                    file: file.clone(),
                    why,
                };
                for certificate in certificates(file).map_err(unusable)? {
                    roots.add(certificate).map_err(|e| unusable(e.to_string()))?;
                }
            }
        }
        Ok(roots)
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    // Read here: the parser's own error does not tell a file that is missing from one that is broken.
    let pem = std::fs::read(file).map_err(|e| e.to_string())?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err("no certificate in PEM form".to_owned()),
        Ok(certificates) => Ok(certificates),
        Err(e) => Err(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let not_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (name, content, why) in [
            ("none.pem", None, "No such file"),
            ("empty.pem", Some(""), "no certificate in PEM form"),
            ("damaged.pem", Some(not_der), "cannot be used: "),
        ] {
            let file = dir.path().join(name);
            if let Some(content) = content {
                std::fs::write(&file, content).unwrap();
            }
            let error = Trust::behind("https", Some(&file)).client().unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(why), "{error}");
        }
    }

    #[test]
    fn no_file_is_the_system_and_no_tls_nobody() {
        let file = Path::new("ca.pem");
        assert_eq!(Trust::behind("https", Some(Path::new(""))), Trust::System);
        assert_eq!(Trust::behind("https", None), Trust::System);
        assert_eq!(Trust::behind("https", Some(file)), Trust::File(file.to_owned()));
        assert_eq!(Trust::behind("http", Some(file)), Trust::Nobody);
    }
}
