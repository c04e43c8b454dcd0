//! The data folder: one collection per generation, and which generation is served.
//!
//! ```text
//! <data_dir>/lock             held while this process lives: exactly one indexer per folder
//! <data_dir>/serving.json     the model whose index is served, written once by the first vectors that arrive
//! <data_dir>/<generation>/    that model's collection
//! ```

use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millrace_events::Model;
use millrace_failpoints::points;
use tokio::sync::{Mutex, watch};

use super::traced::TracedIndex;
use super::{IndexError, OpenIndex, VectorIndex};

/// Why the data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// Another process holds it.
    #[error(
        "{} is used by another indexer: stop it, or give this one a data_dir of its own (the embedded index allows \
         exactly one process per folder)", path.display()
    )]
    Taken {
        /// The folder.
        path: PathBuf,
    },
    /// Not readable or writable.
    #[error("could not {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// `serving.json` is not a model.
    #[error("{} does not name a model: restore it, or empty the folder and reprocess", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// Vectors of a model other than the one that is served.
    #[error(
        "vectors of model {found} arrived, but the index in {} serves {served}: run the embedder with {served} again, \
         or give the indexer an empty data_dir and reprocess every document", path.display()
    )]
    OtherModel {
        /// Generation of the vectors.
        found: String,
        /// Generation of the index.
        served: String,
        /// The folder.
        path: PathBuf,
    },
    /// A model that cannot have an index.
    #[error("a vector event names no usable model: {0}")]
    NoModel(String),
    /// The engine failed.
    #[error("the index of generation {generation} cannot be opened")]
    Open {
        /// Which one.
        generation: String,
        /// What it said.
        source: IndexError,
    },
}

/// The generation that is served: its model and its collection.
#[derive(Clone)]
pub struct Serving {
    /// The model.
    pub model: Model,
    /// [`Model::generation`].
    pub generation: String,
    /// The collection.
    pub index: Arc<dyn VectorIndex>,
}

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serving")
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// The data folder, held by this process. Clones share it.
#[derive(Clone)]
pub struct Generations(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    engine: Box<dyn OpenIndex>,
    serving: watch::Sender<Option<Serving>>,
    /// Held while a generation is created.
    creating: Mutex<()>,
    // Released by the system when the process ends, however it ends.
    _lock: File,
}

impl std::fmt::Debug for Generations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generations")
            .field("folder", &self.0.folder)
            .finish_non_exhaustive()
    }
}

fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> GenerationError {
    let path = path.to_owned();
    move |source| GenerationError::Io {
        operation,
        path,
        source,
    }
}

impl Generations {
    /// Takes the folder (creating it) and opens the served generation, if there is one. Blocks.
    pub fn open(folder: &Path, engine: impl OpenIndex) -> Result<Self, GenerationError> {
        std::fs::create_dir_all(folder).map_err(io("create", folder))?;
        let path = folder.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(io("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(GenerationError::Taken {
                    path: folder.to_owned(),
                });
            }
            Err(TryLockError::Error(e)) => return Err(io("lock", &path)(e)),
        }
        let serving = match read_serving(folder)? {
            Some(model) => Some(open_generation(folder, &engine, model)?),
            None => None,
        };
        Ok(Self(Arc::new(Inner {
            folder: folder.to_owned(),
            engine: Box::new(engine),
            serving: watch::Sender::new(serving),
            creating: Mutex::new(()),
            _lock: lock,
        })))
    }

    /// What is served; none before the first vectors arrived.
    pub fn serving(&self) -> Option<Serving> {
        self.0.serving.borrow().clone()
    }

    /// What is served, once there is something.
    pub async fn served(&self) -> Serving {
        let mut serving = self.0.serving.subscribe();
        loop {
            if let Some(serving) = serving.borrow_and_update().clone() {
                return serving;
            }
            if serving.changed().await.is_err() {
                // The sender lives as long as `self`.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The collection of this model. The first model that asks becomes the served one; another one is refused.
    pub async fn for_model(&self, model: &Model) -> Result<Serving, GenerationError> {
        if let Some(serving) = self.serving() {
            return self.check(serving, model);
        }
        if model.id.is_empty() || model.revision.is_empty() || model.dimensions <= 0 {
            let of = format!(
                "id {:?}, revision {:?}, {} dimensions",
                model.id, model.revision, model.dimensions
            );
            return Err(GenerationError::NoModel(of));
        }
        let _creating = self.0.creating.lock().await;
        if let Some(serving) = self.serving() {
            return self.check(serving, model);
        }
        let (inner, model) = (Arc::clone(&self.0), model.clone());
        let create = move || {
            let serving = open_generation(&inner.folder, &*inner.engine, model)?;
            points::GENERATION_CREATED.reached();
            // After the collection: the file never names one that does not exist.
            write_serving(&inner.folder, &serving.model)?;
            Ok::<_, GenerationError>(serving)
        };
        let created = tokio::task::spawn_blocking(create).await;
        let serving = created.map_err(|e| io("create a generation in", &self.0.folder)(std::io::Error::other(e)))??;
        tracing::info!(generation = %serving.generation, "first vectors: index created");
        self.0.serving.send_replace(Some(serving.clone()));
        Ok(serving)
    }

    fn check(&self, serving: Serving, model: &Model) -> Result<Serving, GenerationError> {
        if serving.model == *model {
            return Ok(serving);
        }
        Err(GenerationError::OtherModel {
            found: model.generation(),
            served: serving.generation,
            path: self.0.folder.clone(),
        })
    }
}

fn open_generation(folder: &Path, engine: &dyn OpenIndex, model: Model) -> Result<Serving, GenerationError> {
    let generation = model.generation();
    // A model's id comes from a record: it must not lead out of the folder.
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if !generation.bytes().all(plain) || generation.starts_with('.') {
        return Err(GenerationError::NoModel(format!(
            "{generation:?} has characters other than A-Z a-z 0-9 . _ -"
        )));
    }
    match engine.open(&folder.join(&generation), &model) {
        Ok(index) => Ok(Serving {
            model,
            generation,
            index: Arc::new(TracedIndex(index)),
        }),
        Err(source) => Err(GenerationError::Open { generation, source }),
    }
}

fn read_serving(folder: &Path) -> Result<Option<Model>, GenerationError> {
    let path = folder.join("serving.json");
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io("read", &path)(e)),
    };
    let model = serde_json::from_slice(&text);
    model
        .map(Some)
        .map_err(|source| GenerationError::Unreadable { path, source })
}

/// Whole or not at all: a new file takes the old one's place.
fn write_serving(folder: &Path, model: &Model) -> Result<(), GenerationError> {
    let (path, new) = (folder.join("serving.json"), folder.join("serving.json.new"));
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec_pretty(model)?)?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(io("write", &path))
}
