//! What users do every day: apply, look, exec, logs, scale, delete; and
//! containers that end.

use crate::THREE;
use anyhow::{Context, Result, ensure};
use dray_e2e::cluster::{Cluster, with};
use dray_e2e::manifest::{COUNT, shell};
use dray_e2e::wait;
use std::io::{BufRead, BufReader};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_workload_from_apply_to_delete() -> Result<()> {
    with("lifecycle", THREE, |cluster| {
        cluster.import("busybox")?;
        let manifest = shell("counter", 1, COUNT);
        cluster.apply(&manifest)?;
        cluster.running("counter-0")?;
        let again = cluster.ctl_with(&["apply", "-f", "-"], manifest.as_bytes())?;
        ensure!(again.contains("unchanged"), "a second apply: {again:?}");
        exec(cluster)?;
        logs_follow_a_migration(cluster)?;
        scale(cluster)?;
        a_new_revision(cluster)?;
        cluster.ctl(&["delete", "workload", "counter", "--wait", "--timeout", "30s"])?;
        ensure!(cluster.tasks()?.is_empty(), "tasks are left");
        Ok(())
    })
}

fn exec(cluster: &Cluster) -> Result<()> {
    let run = |command: &[&str], input: &[u8]| {
        let arguments = [&["exec", "-i", "counter-0", "--"], command].concat();
        cluster.ctl_output(&arguments, input)
    };
    let output = run(&["sh", "-c", "echo out; echo err >&2; exit 7"], b"")?;
    let seen = (output.stdout.as_slice(), output.stderr.as_slice(), output.status.code());
    ensure!(seen == (b"out\n", b"err\n", Some(7)), "{output:?}");
    let output = run(&["wc", "-c"], &vec![b'x'; 300_000])?;
    ensure!(String::from_utf8_lossy(&output.stdout).trim() == "300000", "{output:?}");
    // In the container's own namespaces, and with its own root.
    let output = run(&["sh", "-c", "hostname; id -u; ls /proc | grep -c '^[0-9]'"], b"")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    ensure!(lines.first() == Some(&"counter-0"), "{text:?}");
    let processes: u32 = lines.last().and_then(|n| n.parse().ok()).context("no number of processes")?;
    ensure!(processes < 10, "it sees {processes} processes");
    Ok(())
}

/// `logs -f` loses and repeats no line while the task moves.
fn logs_follow_a_migration(cluster: &Cluster) -> Result<()> {
    let source = cluster.task("counter-0")?.node;
    let target = cluster.node_names().into_iter().find(|node| *node != source).context("nodes")?;
    let mut child = cluster.command(&["logs", "-f", "counter-0"])?.spawn()?;
    let stdout = child.stdout.take().context("a pipe was asked for")?;
    let lines = std::thread::spawn(move || -> Result<u64> {
        let mut last = 0;
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            let number: u64 = line.rsplit(' ').next().and_then(|n| n.parse().ok()).context(line.clone())?;
            ensure!(number == last + 1, "{number} follows {last}");
            last = number;
        }
        Ok(last)
    });
    let moved = cluster.moved("counter-0", &target);
    // The target's log begins with the first line after the move.
    let told = wait::until("a line after the move", Duration::from_secs(30), || {
        let line = cluster.ctl(&["logs", "counter-0", "--tail", "1"])?;
        Ok(line.trim().rsplit(' ').next().and_then(|n| n.parse::<u64>().ok()))
    });
    std::thread::sleep(Duration::from_secs(1));
    child.kill()?;
    child.wait()?;
    moved?;
    let last = lines.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    let told = told?;
    ensure!(last >= told, "followed to {last}, but {told} was there before");
    Ok(())
}

fn scale(cluster: &Cluster) -> Result<()> {
    cluster.ctl(&["scale", "workload", "counter", "--replicas", "5", "--wait", "--timeout", "30s"])?;
    cluster.audit().context("five replicas")?;
    let nodes: std::collections::BTreeSet<_> = cluster.tasks()?.into_iter().map(|task| task.node).collect();
    ensure!(nodes.len() == 3, "five replicas on {nodes:?}");
    cluster.ctl(&["scale", "workload", "counter", "--replicas", "2", "--wait", "--timeout", "30s"])?;
    cluster.audit().context("two replicas")?;
    ensure!(cluster.tasks()?.len() == 2, "{:?}", cluster.tasks()?);
    Ok(())
}

fn a_new_revision(cluster: &Cluster) -> Result<()> {
    let script = COUNT.replace("echo count", "echo again");
    cluster.ctl_with(
        &["apply", "-f", "-", "--wait", "--timeout", "30s"],
        shell("counter", 2, &script).as_bytes(),
    )?;
    wait::settled("the new script's lines", SOON, || {
        for task in cluster.tasks()? {
            let log = cluster.ctl(&["logs", &task.name, "--tail", "1"])?;
            ensure!(log.starts_with("again "), "{}: {log:?}", task.name);
        }
        Ok(())
    })
}

#[test]
fn containers_that_end_are_restarted_ever_more_slowly() -> Result<()> {
    with("restarts", THREE, |cluster| {
        cluster.import("busybox")?;
        cluster.apply(&shell("fails", 1, "echo here; exit 3"))?;
        wait::settled("three restarts", SOON, || {
            let task = cluster.task("fails-0")?;
            ensure!(task.restarts >= 3, "{task:?}");
            let code = task.last_exit.as_ref().map(|exit| exit.code);
            ensure!(code == Some(3), "{task:?}");
            Ok(())
        })?;
        wait::settled("back-off to be told", SOON, || {
            let task = cluster.task("fails-0")?;
            ensure!(task.phase == "backOff", "{task:?}");
            Ok(())
        })?;
        let log = cluster.ctl(&["logs", "fails-0"])?;
        ensure!(log.contains("here"), "its log: {log:?}");
        killed_for_memory(cluster)?;
        root_file_system(cluster)?;
        cluster.ctl(&["delete", "workload", "fails", "hog", "plain", "--wait", "--timeout", "30s"]).map(drop)
    })
}

/// A limit that binds, and says so.
fn killed_for_memory(cluster: &Cluster) -> Result<()> {
    cluster.apply(&shell("hog", 1, "head -c 200m /dev/zero | tail; echo survived"))?;
    wait::settled("the hog to be killed", SOON, || {
        let task = cluster.task("hog-0")?;
        ensure!(task.last_exit.as_ref().is_some_and(|exit| exit.oom_killed), "{task:?}");
        Ok(())
    })
}

/// A plain tar of a root file system is an image, too.
fn root_file_system(cluster: &Cluster) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (root, archive) = (dir.path().join("root"), dir.path().join("plain.tar"));
    std::fs::create_dir_all(root.join("bin"))?;
    std::fs::create_dir_all(root.join("tmp"))?;
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).context("busybox-static must be installed")?;
    std::os::unix::fs::symlink("busybox", root.join("bin/sh"))?;
    let status =
        std::process::Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&root).arg(".").status()?;
    ensure!(status.success(), "tar: {status}");
    cluster.ctl(&["image", "import", &archive.to_string_lossy(), "--name", "plain:1"])?;
    let manifest =
        shell("plain", 1, "echo from a plain root; /bin/busybox sleep 600").replace("busybox:1", "plain:1");
    cluster.apply(&manifest)?;
    cluster.running("plain-0")?;
    wait::settled("its line", SOON, || {
        let log = cluster.ctl(&["logs", "plain-0"])?;
        ensure!(log.contains("from a plain root"), "{log:?}");
        Ok(())
    })
}
