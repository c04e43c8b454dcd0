//! `millrace`: the local stack, and a client of the services wherever they run.
//!
//! [`commands`] has a file a command, [`demo`] and [`bench`] a folder; [`stack`] brings the local stack up and keeps it
//! alive; [`traces`] keeps the last traces of it; [`client`] finds the services; [`topics`] is what `up` and `topics apply` share; [`output`] is what people and
//! programs see; [`exit`] says what the exit codes mean. A library, so that a second program can be built of it: as it will be
//! after the next change of the schemas.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod client;
mod commands;
mod demo;
mod exit;
mod files;
mod output;
mod registry;
mod retry;
mod stack;
mod stages;
mod top;
mod topics;
mod traces;

/// Documents into searchable vectors, through Kafka: run it here, or talk to it elsewhere
#[derive(Debug, Parser)]
#[command(name = "millrace", version, after_help = AFTER_HELP, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    target: client::Target,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Demo),
    Up(commands::up::Up),
    Fetch(commands::fetch::Fetch),
    Submit(commands::submit::Submit),
    Search(commands::search::Search),
    Status(commands::document::StatusOf),
    Watch(commands::document::Watch),
    Delete(commands::document::Delete),
    Dlq(commands::dlq::Dlq),
    Audit(commands::audit::Audit),
    Trace(commands::trace::TraceOf),
    Stage(commands::stage::StageOf),
    Top(commands::top::Top),
    Topics(commands::topics::Topics),
    Schema(commands::schema::Schema),
    Bench(commands::bench::Bench),
    Chaos(commands::chaos::Chaos),
    Run(commands::run::Run),
}

const AFTER_HELP: &str = "Begin with:
  millrace demo                           the whole pipeline on real prose, or
  millrace up                             and, in another terminal:
  millrace submit README.md --wait
  millrace search \"what is a revision\"

Exit codes:
  0   done
  1   it failed, or part of it: a document refused or FAILED, nothing known of a document, a stack that cannot
      start, an index that an audit found something in, a schema that does not fit
  2   the command line is not understood, or names what is not there
  64  a service's configuration is not usable
  69  a service, broker or registry does not answer
  78  a service was fenced: another process has its instance name";

/// The program: from its arguments to its exit code.
pub fn main() -> ExitCode {
    // An embedder that runs in this program starts it once more for its GPU.
    millrace_embedder::model::worker::main().unwrap_or_else(command)
}

#[tokio::main]
async fn command() -> ExitCode {
    let cli = Cli::parse();
    let target = &cli.target;
    let outcome = match cli.command {
        Command::Run(run) => return commands::run::run(run).await,
        Command::Demo(demo) => demo::run(demo, target).await,
        Command::Up(up) => commands::up::run(up, target).await,
        Command::Fetch(fetch) => commands::fetch::run(fetch).await,
        Command::Submit(submit) => commands::submit::run(submit, target).await,
        Command::Search(search) => commands::search::run(search, target).await,
        Command::Status(status) => commands::document::status(status, target).await,
        Command::Watch(watch) => commands::document::watch(watch, target).await,
        Command::Delete(delete) => commands::document::delete(delete, target).await,
        Command::Dlq(dlq) => commands::dlq::run(dlq, target).await,
        Command::Audit(audit) => commands::audit::run(audit, target).await,
        Command::Top(top) => commands::top::run(top, target).await,
        Command::Stage(stage) => commands::stage::run(stage, target).await,
        Command::Trace(trace) => commands::trace::run(trace, target).await,
        Command::Bench(bench) => commands::bench::run(bench).await,
        Command::Chaos(chaos) => commands::chaos::run(chaos).await,
        Command::Topics(topics) => commands::topics::run(topics, target).await,
        Command::Schema(schema) => commands::schema::run(schema, target).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => exit::report(&e),
    }
}
