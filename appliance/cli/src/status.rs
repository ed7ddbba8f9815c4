//! `bulla status`: what the box says of itself.

use crate::client::{BoxClient, BoxOptions};
use crate::exit::{Exit, Failure};
use crate::output;
use clap::Args;

/// Arguments of `bulla status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    connection: BoxOptions,
    /// Print the box's own JSON
    #[arg(long)]
    json: bool,
}

/// Fetches and prints the status.
pub fn run(args: &StatusArgs) -> Result<Exit, Failure> {
    let client = BoxClient::new(&args.connection)?;
    let status = client.get("/v1/status", "application/json").and_then(|answer| answer.json());
    let status = status.map_err(|error| error.into_failure("status"))?;
    if args.json {
        output::print_json(&status);
    } else {
        output::print(&format!("box: {}\n{}", client.url(), output::tree(&status)));
    }
    Ok(Exit::Ok)
}
