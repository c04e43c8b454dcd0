//! `millrace schema`: schemas checked without a network, and brought into a registry.

use anyhow::Result;

use crate::client::Target;
use crate::registry::RegistryArgs;

mod compat;
mod offline;
mod remote;

/// Check schemas before they are published, and publish them
///
/// For every repository of schemas laid out as <topic>/vN.avsc, not only Millrace's: docs/schemas.md.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millrace schema check schemas                            in CI, offline
  millrace schema check schemas --format github            as annotations of a pull request
  millrace schema compat --mode BACKWARD --candidate v3.avsc --previous v1.avsc v2.avsc
  millrace schema golden schemas && millrace schema lock schemas       before a new version is merged
  millrace schema diff schemas --registry https://registry.example.com
  millrace schema apply schemas --registry https://registry.example.com --registry-token-file token

Exit codes:
  0   clean, compatible, done, or nothing to do
  1   findings, not compatible, or different
  2   the command line is not understood, or names what is not there
  69  the registry does not answer")]
pub struct Schema {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    access: RegistryArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Compat(compat::Compat),
    Check(offline::Check),
    Lock(offline::Lock),
    Golden(offline::Golden),
    Diff(remote::Diff),
    Apply(remote::Apply),
    List(remote::List),
}

/// Runs one of them.
pub async fn run(command: Schema, target: &Target) -> Result<()> {
    let registry = || command.access.connect(&target.registry_address()?);
    match command.action {
        Action::Compat(compat) => compat::run(&compat),
        Action::Check(check) => offline::check(&check),
        Action::Lock(lock) => offline::lock(&lock),
        Action::Golden(golden) => offline::golden(&golden),
        Action::Diff(diff) => remote::diff(&diff, &registry()?).await,
        Action::Apply(apply) => remote::apply(&apply, &registry()?).await,
        Action::List(list) => remote::list(&list, &registry()?).await,
    }
}
