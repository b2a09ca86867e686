//! What may be asked: the command tree.

use crate::cmd::{
    apply, cluster, completion, cordon, delete, describe, drain, exec, get, image, logs, migrate, scale,
    version,
};
use crate::connection::Connection;
use crate::local;
use clap::{Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  clusterctl local up                          start a cluster on this machine
  clusterctl apply -f redis.yaml --wait        run what a manifest describes
  clusterctl get tasks                         see what runs where
  clusterctl migrate redis-0 --to node-2 --wait
  clusterctl logs -f redis-0
  clusterctl drain node-1 --wait               empty a node, moving what runs

Without --server or --socket the local cluster's schedulers are used
(in $DRAY_LOCAL_DIR, /var/lib/dray/local if not set), then /run/dray/scheduler.sock.
Exit codes: 0 done, 1 failed, 2 not understood.";

/// Runs containers on a cluster, and moves them between nodes while they run
#[derive(Debug, Parser)]
#[command(name = "clusterctl", version, after_help = EXAMPLES, subcommand_required = true)]
#[command(arg_required_else_help = true, max_term_width = 100, infer_subcommands = false)]
pub(crate) struct Cli {
    /// Where the cluster is.
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create or update workloads from manifests
    Apply(apply::Args),
    /// Show what applying manifests would change
    Diff(apply::DiffArgs),
    /// List workloads, tasks, nodes, migrations, images or events
    #[command(visible_alias = "ls")]
    Get(get::Args),
    /// Show everything about one thing, with its recent events
    Describe(describe::Args),
    /// Delete workloads
    #[command(visible_alias = "rm")]
    Delete(delete::Args),
    /// Change a workload's number of replicas
    Scale(scale::Args),
    /// Print a task's output
    Logs(logs::Args),
    /// Run a command in a task's container
    Exec(exec::Args),
    /// Move a running task to another node
    Migrate(migrate::Args),
    /// Cancel a migration that isn't committed
    Cancel(migrate::CancelArgs),
    /// Keep new tasks away from a node
    Cordon(cordon::Args),
    /// Let new tasks onto a node again
    Uncordon(cordon::UncordonArgs),
    /// Empty a node: cordon it and move its tasks away, one by one
    Drain(drain::Args),
    /// Import and list images
    Image(image::Args),
    /// How the cluster is
    Cluster(cluster::Args),
    /// A whole cluster on this machine
    Local(local::Args),
    /// Print a shell's completion script
    Completion(completion::Args),
    /// Print versions
    Version(version::Args),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let leaf = !command.has_subcommands();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(!leaf || help.contains("Examples:"), "no examples in {path}");
            command.get_subcommands().for_each(|sub| check(sub, &path));
        }
        check(&Cli::command(), "");
    }

    #[test]
    fn lines_that_are_understood() {
        for line in [
            "apply -f a.yaml -f - --dry-run --diff --wait --timeout 30s",
            "get tasks -o wide -w -l app=redis --no-headers",
            "get wl redis -o json",
            "describe task/redis-0",
            "delete workload redis --wait",
            "delete -f dir",
            "scale workload redis --replicas 3",
            "logs redis-0 -f --tail 10 --timestamps",
            "logs redis-0 -p",
            "exec -it redis-0 -- sh -c ls",
            "exec redis-0 -- ls -l",
            "migrate redis-0 --to node-2 --wait",
            "migrate redis-0 --dry-run",
            "cancel m-3",
            "drain node-1 --wait --dry-run",
            "image import redis.tar --name redis:7",
            "image list -o json",
            "cluster status",
            "local up --schedulers 3 --nodes 3",
            "local down",
            "completion bash",
            "version -o json",
            "get tasks --server a:1 --server b:2,c:3 --context /c",
        ] {
            let words = std::iter::once("clusterctl").chain(line.split_whitespace());
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn lines_that_are_not_understood_are_usage_errors() {
        for line in [
            "",
            "apply",
            "get",
            "get tasks -o xml",
            "scale workload redis",
            "scale workload redis --replicas -1",
            "exec redis-0",
            "migrate",
            "logs redis-0 --tail x",
            "logs redis-0 -f --previous",
            "frobnicate",
            "get tasks --timeout soon",
        ] {
            let words = std::iter::once("clusterctl").chain(line.split_whitespace());
            let error = Cli::try_parse_from(words).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
