//! The client.

mod access;
mod answer;
mod error;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use reqwest::{Client, Url};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

pub use self::access::{Access, Credentials, CredentialsError, Sources};
use self::answer::Call;
pub use self::error::RegistryError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// One version of a subject.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Registered {
    /// The schema's id, the same in every subject that has it.
    pub id: u32,
    /// The version's number in its subject.
    pub version: i32,
    /// The schema, as JSON.
    pub schema: String,
}

/// What the registry says about a candidate.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Verdict {
    /// Whether it would be accepted.
    pub is_compatible: bool,
    /// Why not, in the registry's words; Apicurio gives none.
    #[serde(default)]
    pub messages: Vec<String>,
}

/// A client of one registry. Cheap to clone: clones share connections and what was learnt.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    client: Client,
    base: Url,
    /// The address without user and password, for messages.
    shown: String,
    /// Which credentials the registry is sent, for messages.
    told: &'static str,
    /// Only what never changes, and only answers: an outage or a "not registered" is asked again.
    schemas: RwLock<HashMap<u32, Arc<str>>>,
    ids: RwLock<HashMap<(String, String), u32>>,
}

#[derive(Deserialize)]
struct IdAnswer {
    id: u32,
}

#[derive(Deserialize)]
struct SchemaAnswer {
    schema: String,
}

#[derive(Deserialize)]
struct LevelAnswer {
    #[serde(rename = "compatibilityLevel")]
    level: String,
}

impl Registry {
    /// A client of the registry at `address`, for example `http://127.0.0.1:8081/apis/ccompat/v7`, as [`Self::connect`].
    pub fn new(address: &str) -> Result<Self, RegistryError> {
        Self::connect(&Access::to(address))
    }

    /// A client of a registry. Connects when first used; never through a proxy, and never to where it is redirected.
    pub fn connect(access: &Access) -> Result<Self, RegistryError> {
        let base = access.url()?;
        let builder = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .no_proxy();
        Ok(Self(Arc::new(Inner {
            client: access.client(&base, builder)?,
            shown: access.shown(),
            told: access.credentials_shown(&base),
            base,
            schemas: RwLock::default(),
            ids: RwLock::default(),
        })))
    }

    /// The id under which a subject has exactly this schema; none if it has not.
    pub async fn lookup(&self, subject: &str, schema: &str) -> Result<Option<u32>, RegistryError> {
        let key = (subject.to_owned(), schema.to_owned());
        if let Some(id) = read(&self.0.ids).get(&key) {
            return Ok(Some(*id));
        }
        let call = self.call(format!("look up the schema in subject {subject}"));
        let request = self
            .0
            .client
            .post(self.url(&["subjects", subject]))
            .json(&json!({ "schema": schema }));
        let Some(IdAnswer { id }) = call.send(request).await? else {
            return Ok(None);
        };
        write(&self.0.ids).insert(key, id);
        Ok(Some(id))
    }

    /// The schema of an id; none if the registry has no such id.
    pub async fn schema_by_id(&self, id: u32) -> Result<Option<Arc<str>>, RegistryError> {
        if let Some(schema) = read(&self.0.schemas).get(&id) {
            return Ok(Some(schema.clone()));
        }
        let call = self.call(format!("fetch the schema with id {id}"));
        let request = self.0.client.get(self.url(&["schemas", "ids", &id.to_string()]));
        let Some(SchemaAnswer { schema }) = call.send(request).await? else {
            return Ok(None);
        };
        let schema: Arc<str> = schema.into();
        write(&self.0.schemas).insert(id, schema.clone());
        Ok(Some(schema))
    }

    /// All subjects.
    pub async fn subjects(&self) -> Result<Vec<String>, RegistryError> {
        let call = self.call("list the subjects".to_owned());
        call.send_required(self.0.client.get(self.url(&["subjects"]))).await
    }

    /// The numbers of a subject's versions; empty if there is no such subject.
    pub async fn versions(&self, subject: &str) -> Result<Vec<i32>, RegistryError> {
        let call = self.call(format!("list the versions of subject {subject}"));
        let request = self.0.client.get(self.url(&["subjects", subject, "versions"]));
        Ok(call.send(request).await?.unwrap_or_default())
    }

    /// One version of a subject; none if it does not exist.
    pub async fn version(&self, subject: &str, version: i32) -> Result<Option<Registered>, RegistryError> {
        let call = self.call(format!("fetch version {version} of subject {subject}"));
        let request = self
            .0
            .client
            .get(self.url(&["subjects", subject, "versions", &version.to_string()]));
        call.send(request).await
    }

    /// A subject's versions, oldest first; empty if there is no such subject.
    pub async fn registered(&self, subject: &str) -> Result<Vec<Registered>, RegistryError> {
        let mut numbers = self.versions(subject).await?;
        numbers.sort_unstable();
        let mut registered = Vec::new();
        for number in numbers {
            // None: deleted since it was listed.
            registered.extend(self.version(subject, number).await?);
        }
        Ok(registered)
    }

    /// Registers a schema as the next version of a subject, or finds it there. Returns its id.
    pub async fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let call = self.call(format!("register the schema in subject {subject}"));
        let url = self.url(&["subjects", subject, "versions"]);
        let IdAnswer { id } = call
            .send_required(self.0.client.post(url).json(&json!({ "schema": schema })))
            .await?;
        Ok(id)
    }

    /// Asks what registering would say, against all versions that the subject's level asks for.
    pub async fn check(&self, subject: &str, schema: &str) -> Result<Verdict, RegistryError> {
        let call = self.call(format!("check the schema against subject {subject}"));
        // Without a version: `latest` would look at one version even at a transitive level.
        let mut url = self.url(&["compatibility", "subjects", subject, "versions"]);
        url.query_pairs_mut().append_pair("verbose", "true");
        let answer = call
            .send(self.0.client.post(url).json(&json!({ "schema": schema })))
            .await?;
        // Karapace says 404 for a subject that is not there; the others say that everything fits it.
        Ok(answer.unwrap_or(Verdict {
            is_compatible: true,
            messages: Vec::new(),
        }))
    }

    /// Sets a subject's compatibility level, for example `FULL_TRANSITIVE`.
    pub async fn set_compatibility(&self, subject: &str, level: &str) -> Result<(), RegistryError> {
        let call = self.call(format!("set the compatibility of subject {subject} to {level}"));
        let request = self
            .0
            .client
            .put(self.url(&["config", subject]))
            .json(&json!({ "compatibility": level }));
        call.send_required::<IgnoredAny>(request).await?;
        Ok(())
    }

    /// A subject's own compatibility level; none if it has none of its own.
    pub async fn compatibility(&self, subject: &str) -> Result<Option<String>, RegistryError> {
        let call = self.call(format!("read the compatibility of subject {subject}"));
        let answer: Option<LevelAnswer> = call.send(self.0.client.get(self.url(&["config", subject]))).await?;
        Ok(answer.map(|a| a.level))
    }

    /// Whether the registry answers.
    pub async fn reachable(&self) -> Result<(), RegistryError> {
        let call = self.call("reach the registry".to_owned());
        call.send_required::<Vec<String>>(self.0.client.get(self.url(&["schemas", "types"])))
            .await?;
        Ok(())
    }

    /// The registry's address, without user and password.
    pub fn address(&self) -> &str {
        &self.0.shown
    }

    fn call(&self, operation: String) -> Call<'_> {
        Call {
            operation,
            registry: &self.0.shown,
            told: self.0.told,
        }
    }

    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.0.base.clone();
        // Only an address that cannot be a base has no segments; `new` refuses those.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("address", &self.0.shown)
            .finish_non_exhaustive()
    }
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
