//! How a registry is reached: its address, who asks, and whom we trust to be it.

use std::fmt;
use std::path::PathBuf;

use millrace_tls::Trust;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, ClientBuilder, Url};

use super::RegistryError;

/// Where a registry is and what it is told about us. Shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Access {
    address: String,
    credentials: Credentials,
    ca_file: Option<PathBuf>,
}

/// Who asks.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Nobody, or the user and password of the address.
    #[default]
    None,
    /// HTTP basic authentication. Confluent Cloud's API key and secret are one.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A bearer token.
    Bearer(String),
}

/// Credentials as configuration and flags have them: a secret stands in its own right or in a file.
#[derive(Clone, Default)]
pub struct Sources {
    /// The user; none for a token, or for nobody.
    pub user: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// A file with the password.
    pub password_file: Option<PathBuf>,
    /// The bearer token.
    pub token: Option<String>,
    /// A file with the bearer token.
    pub token_file: Option<PathBuf>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

/// Credentials that do not go together, or a file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {why}")]
pub struct CredentialsError {
    /// The field of [`Sources`].
    pub key: &'static str,
    /// What is wrong with it.
    pub why: String,
}

impl Sources {
    /// Reads the files, once: a secret that changes is seen at the next start.
    ///
    /// | user | password | token | credentials |
    /// |---|---|---|---|
    /// | no | no | no | none |
    /// | yes | one | no | basic |
    /// | no | no | one | bearer |
    /// | yes | no | no | refused |
    /// | no | one or two | any | refused |
    /// | yes | any | one or two | refused |
    /// | any | two | any | refused |
    /// | any | any | two | refused |
    pub fn read(self) -> Result<Credentials, CredentialsError> {
        let refused = |key, why: &str| {
            let why = why.to_owned();
            Err(CredentialsError { key, why })
        };
        let password = one("password_file", self.password, self.password_file)?;
        let token = one("token_file", self.token, self.token_file)?;
        match (self.user, password, token) {
            (None, None, None) => Ok(Credentials::None),
            (Some(user), Some(password), None) => Ok(Credentials::Basic { user, password }),
            (None, None, Some(token)) => Ok(Credentials::Bearer(token)),
            (Some(_), None, None) => refused("user", "must have a password or password_file beside it"),
            (None, Some(_), _) => refused("password", "must have a user beside it"),
            (Some(_), _, Some(_)) => refused("user", "must be left out where a token is given"),
        }
    }
}

/// A secret that stands here or in a file, not in both.
fn one(key: &'static str, here: Option<String>, file: Option<PathBuf>) -> Result<Option<String>, CredentialsError> {
    let refused = |why: String| Err(CredentialsError { key, why });
    let Some(file) = file else { return Ok(here) };
    if here.is_some() {
        return refused("must be left out where the secret itself is given".to_owned());
    }
    match std::fs::read_to_string(&file) {
        Ok(text) if text.trim().is_empty() => refused(format!("{} is empty", file.display())),
        Ok(text) => Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned())),
        Err(e) => refused(format!("{} cannot be read: {e}", file.display())),
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Basic { .. } => "Basic",
            Self::Bearer(_) => "Bearer",
        })
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("address", &self.shown())
            .field("credentials", &self.credentials)
            .field("ca_file", &self.ca_file)
            .finish()
    }
}

impl Access {
    /// The registry at `http://HOST:PORT/PATH` or `https://…`; `USER:PASSWORD@` before the host is basic authentication.
    pub fn to(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            credentials: Credentials::None,
            ca_file: None,
        }
    }

    /// Says who asks.
    #[must_use]
    pub fn with_credentials(self, credentials: Credentials) -> Self {
        Self { credentials, ..self }
    }

    /// Trusts these authorities (PEM) and no other, instead of the system's.
    #[must_use]
    pub fn with_ca_file(self, ca_file: impl Into<PathBuf>) -> Self {
        Self {
            ca_file: Some(ca_file.into()),
            ..self
        }
    }

    /// The address without user and password.
    pub fn shown(&self) -> String {
        Url::parse(&self.address).map_or_else(|_| without_user(&self.address).to_owned(), |url| shown(&url))
    }

    /// The address, if it is one, and if no second user stands in it.
    pub(super) fn url(&self) -> Result<Url, RegistryError> {
        const WANTED: &str = "write http://HOST:PORT/PATH or https://HOST/PATH";
        let url = Url::parse(&self.address).map_err(|e| self.refused(e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(self.refused(WANTED));
        }
        let in_address = !url.username().is_empty() || url.password().is_some();
        if in_address && self.credentials != Credentials::None {
            return Err(self.refused("there are credentials both in the address and beside it: keep one"));
        }
        if url.scheme() == "http" && self.ca_file.is_some() {
            return Err(self.refused("authorities are for https:// only"));
        }
        Ok(url)
    }

    /// What the registry is told about us, for messages.
    pub(super) fn credentials_shown(&self, url: &Url) -> &'static str {
        match self.credentials {
            Credentials::None if url.username().is_empty() => "no credentials were sent",
            Credentials::None | Credentials::Basic { .. } => "a user and password were sent",
            Credentials::Bearer(_) => "a bearer token was sent",
        }
    }

    /// An HTTP client that authenticates every call and follows nobody elsewhere.
    pub(super) fn client(&self, url: &Url, builder: ClientBuilder) -> Result<Client, RegistryError> {
        let tls = Trust::behind(url.scheme(), self.ca_file.as_deref());
        let tls = tls.client().map_err(|e| self.refused(e.to_string()))?;
        builder
            .tls_backend_preconfigured(tls)
            .default_headers(self.headers()?)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| self.refused(e.to_string()))
    }

    fn headers(&self) -> Result<HeaderMap, RegistryError> {
        let text = match &self.credentials {
            Credentials::None => return Ok(HeaderMap::new()),
            Credentials::Basic { user, .. } if user.contains(':') => {
                return Err(self.refused("a user's name cannot hold a colon"));
            }
            Credentials::Basic { user, password } => format!("Basic {}", base64(&format!("{user}:{password}"))),
            Credentials::Bearer(token) => format!("Bearer {token}"),
        };
        // The usual error would not quote the value either, but it would not say which value.
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| self.refused("the token holds characters that no HTTP header can carry"))?;
        value.set_sensitive(true);
        Ok(HeaderMap::from_iter([(AUTHORIZATION, value)]))
    }

    fn refused(&self, why: impl Into<String>) -> RegistryError {
        RegistryError::Address {
            address: self.shown(),
            why: why.into(),
        }
    }
}

fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Fails only where there is no host, and then there is no user either.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.as_str().trim_end_matches('/').to_owned()
}

/// What cannot be parsed may still carry a password before its last `@`.
fn without_user(address: &str) -> &str {
    address.rsplit_once('@').map_or(address, |(_, rest)| rest)
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
