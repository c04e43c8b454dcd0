//! How the registry is reached: credentials and authorities, by flags, files and the environment.

use std::path::PathBuf;

use anyhow::Result;
use millrace_schema::{Access, Registry, Sources};

use crate::exit::Usage;

/// The variables that hold a secret itself. No flag does: flags are seen by everybody on the machine.
const PASSWORD: &str = "MILLRACE_REGISTRY_PASSWORD";
const TOKEN: &str = "MILLRACE_REGISTRY_TOKEN";

/// Who asks the registry, and whom we trust to be it.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Registry")]
pub struct RegistryArgs {
    /// User of basic authentication; the password is in a file or in MILLRACE_REGISTRY_PASSWORD
    #[arg(long, global = true, env = "MILLRACE_REGISTRY_USER", value_name = "USER")]
    registry_user: Option<String>,
    /// File with the user's password
    #[arg(long, global = true, env = "MILLRACE_REGISTRY_PASSWORD_FILE", value_name = "FILE")]
    registry_password_file: Option<PathBuf>,
    /// File with a bearer token; or the token itself in MILLRACE_REGISTRY_TOKEN
    #[arg(long, global = true, env = "MILLRACE_REGISTRY_TOKEN_FILE", value_name = "FILE")]
    registry_token_file: Option<PathBuf>,
    /// Authorities (PEM) that the registry's certificate must come from [default: the system's]
    #[arg(long, global = true, env = "MILLRACE_REGISTRY_CA_FILE", value_name = "FILE")]
    registry_ca_file: Option<PathBuf>,
}

impl RegistryArgs {
    /// A client of the registry at an address.
    pub fn connect(&self, address: &str) -> Result<Registry> {
        let secret = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let sources = Sources {
            user: self.registry_user.clone(),
            password: secret(PASSWORD),
            password_file: self.registry_password_file.clone(),
            token: secret(TOKEN),
            token_file: self.registry_token_file.clone(),
        };
        let unusable = |e: millrace_schema::CredentialsError| Usage(format!("the registry's {}: {}", e.key, e.why));
        let mut access = Access::to(address).with_credentials(sources.read().map_err(unusable)?);
        if let Some(ca_file) = &self.registry_ca_file {
            access = access.with_ca_file(ca_file);
        }
        Ok(Registry::connect(&access).map_err(|e| Usage(e.to_string()))?)
    }
}
