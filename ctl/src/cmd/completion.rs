//! `completion`: scripts for shells.

use crate::args::Cli;
use crate::output::Out;
use clap::CommandFactory;
use clap_complete::Shell;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  source <(clusterctl completion bash)
  clusterctl completion zsh > \"${fpath[1]}/_clusterctl\"
  clusterctl completion fish > ~/.config/fish/completions/clusterctl.fish";

/// For which shell.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(args: &Args, out: &mut Out) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "clusterctl", &mut script);
    out.bytes(&script)?;
    Ok(ExitCode::SUCCESS)
}
