//! Bad input: a clear error that names the place, and nothing changed.

use crate::THREE;
use anyhow::{Context, Result, ensure};
use dray_e2e::cluster::{Cluster, with};
use dray_e2e::manifest::{COUNT, shell};
use sha2::{Digest, Sha256};
use std::io::Write;

#[test]
fn bad_input_is_refused_and_changes_nothing() -> Result<()> {
    with("inputs", THREE, |cluster| {
        cluster.import("busybox")?;
        cluster.apply(&shell("good", 1, COUNT))?;
        cluster.running("good-0")?;
        let before = state(cluster)?;
        manifests(cluster)?;
        large_manifests(cluster)?;
        names(cluster)?;
        migrations(cluster)?;
        images(cluster)?;
        let unknown = shell("bad", 1, COUNT).replace("busybox:1", "missing:1");
        refused(cluster, &["apply", "-f", "-"], unknown.as_bytes(), &["stdin:10", "image", "missing:1"])?;
        ensure!(state(cluster)? == before, "something changed: {before} became {}", state(cluster)?);
        Ok(())
    })
}

/// Workloads, tasks and images, without anything that changes by itself.
fn state(cluster: &Cluster) -> Result<String> {
    let of = |kind| cluster.ctl(&["get", kind, "-o", "name"]);
    Ok([of("workloads")?, of("tasks")?, of("images")?, of("migrations")?].concat())
}

/// What is wrong with a manifest, and what the error must say.
fn manifests(cluster: &Cluster) -> Result<()> {
    let good = shell("bad", 1, COUNT);
    let edit = |from: &str, to: &str| -> Result<String> {
        ensure!(good.contains(from), "{from} is not in the manifest");
        Ok(good.replacen(from, to, 1))
    };
    let twice = format!("{good}---\n{good}");
    let table = [
        (edit("replicas:", "replica:")?, &["stdin:6", "replica", "did you mean \"replicas\""][..]),
        (edit("  kind: service", "  kind: service\n  colour: red")?, &["stdin:6", "colour", "unknown field"]),
        (edit("replicas: 1", "replicas: three")?, &["stdin:6", "spec.replicas", "number"]),
        (edit("replicas: 1", "replicas: -1")?, &["stdin:6", "spec.replicas"]),
        (edit("replicas: 1", "replicas: 4000000")?, &["stdin:6", "spec.replicas", "10000"]),
        (edit("kind: service", "kind: servcie")?, &["stdin:5", "spec.kind", "service"]),
        (edit("command: [/bin/sh, -c]", "command: sh")?, &["command", "a list"]),
        (edit("memory: 8Mi", "memory: 0")?, &["requests.memory", "out of range"]),
        (edit("memory: 8Mi", "memory: 900Pi")?, &["requests.memory"]),
        (edit("cpu: 10m", "cpu: 0")?, &["requests.cpu", "out of range"]),
        (edit("cpu: 10m", "cpu: lots")?, &["requests.cpu", "lots"]),
        (edit("memory: 8Mi", "memory: 100Mi")?, &["requests.memory", "more than limits.memory"]),
        (edit("cpu: 10m", "cpu: 900")?, &["containers[0].resources", "no node is large enough", "cpu"]),
        (edit("        image: busybox:1\n", "")?, &["containers[0].image", "is missing"]),
        (edit("busybox:1", "Not An Image")?, &["image", "Not An Image"]),
        (edit("stopGrace: 1s", "stopGrace: soon")?, &["stopGrace", "soon"]),
        (edit("dray/v1", "dray/v9")?, &["stdin:1", "apiVersion", "dray/v1"]),
        (edit("name: bad", "name: Bad_Name")?, &["metadata.name", "Bad_Name"]),
        (edit("spec:", "spec")?, &["stdin:"]),
        (twice, &["metadata.name", "already"]),
        (String::new(), &["no document"]),
    ];
    for (manifest, words) in table {
        refused(cluster, &["apply", "-f", "-"], manifest.as_bytes(), words)?;
    }
    Ok(())
}

fn large_manifests(cluster: &Cluster) -> Result<()> {
    let huge = vec![b'#'; 100 << 20];
    refused(cluster, &["apply", "-f", "-"], &huge, &["stdin", "larger than", "MiB"])?;
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let one = format!("*a{}", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", vec![one; 9].join(", "));
    }
    refused(cluster, &["apply", "-f", "-"], bomb.as_bytes(), &["stdin"])?;
    let deep = format!("a: {}{}\n", "[".repeat(100_000), "]".repeat(100_000));
    refused(cluster, &["apply", "-f", "-"], deep.as_bytes(), &["stdin"])
}

fn names(cluster: &Cluster) -> Result<()> {
    for arguments in [
        &["logs", "none-0"][..],
        &["exec", "none-0", "--", "true"],
        &["describe", "task", "none-0"],
        &["delete", "workload", "none"],
        &["scale", "workload", "none", "--replicas", "2"],
        &["cordon", "none"],
        &["drain", "none"],
    ] {
        refused(cluster, arguments, b"", &["none"])?;
    }
    Ok(())
}

fn migrations(cluster: &Cluster) -> Result<()> {
    let here = cluster.task("good-0")?.node;
    let others: Vec<String> = cluster.node_names().into_iter().filter(|node| *node != here).collect();
    refused(cluster, &["migrate", "none-0", "--to", &others[0]], b"", &["none-0"])?;
    refused(cluster, &["migrate", "good-0", "--to", "node-9"], b"", &["node-9"])?;
    refused(cluster, &["migrate", "good-0", "--to", &here], b"", &["good-0", &here])?;
    cluster.ctl(&["cordon", &others[0]])?;
    refused(cluster, &["migrate", "good-0", "--to", &others[0]], b"", &[&others[0], "cordoned"])?;
    cluster.ctl(&["uncordon", &others[0]])?;
    cluster.kill(&others[1])?;
    dray_e2e::wait::settled("the node to be lost", std::time::Duration::from_secs(60), || {
        let lost = cluster.nodes()?.iter().any(|node| node.name == others[1] && node.liveness == "lost");
        ensure!(lost, "it is still ready");
        Ok(())
    })?;
    refused(cluster, &["migrate", "good-0", "--to", &others[1]], b"", &[&others[1], "lost"])?;
    cluster.up()?;
    cluster.apply(&shell("ended", 1, "exit 1").replace("backoff: 200ms", "mode: never, backoff: 200ms"))?;
    dray_e2e::wait::settled("the task to end", std::time::Duration::from_secs(30), || {
        let task = cluster.task("ended-0")?;
        ensure!(matches!(task.phase.as_str(), "exited" | "failed"), "{task:?}");
        Ok(())
    })?;
    let node = cluster.task("ended-0")?.node;
    let target = cluster.node_names().into_iter().find(|name| *name != node).context("nodes")?;
    refused(cluster, &["migrate", "ended-0", "--to", &target], b"", &["ended-0"])?;
    cluster.ctl(&["delete", "workload", "ended", "--wait", "--timeout", "30s"]).map(drop)
}

/// Archives that are broken or hostile.
fn images(cluster: &Cluster) -> Result<()> {
    let good = std::fs::read(dray_e2e::cluster::repository().join("target/images/busybox.tar"))?;
    let dir = tempfile::tempdir()?;
    let import = |name: &str, bytes: &[u8], words: &[&str]| -> Result<()> {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes)?;
        refused(cluster, &["image", "import", &path.to_string_lossy(), "--name", "bad:1"], b"", words)
            .with_context(|| name.to_owned())
    };
    import("empty.tar", b"", &["empty.tar"])?;
    import("noise.tar", &[7; 4096], &["noise.tar", "archive"])?;
    import("truncated.tar", &good[..good.len() / 2], &["truncated.tar", "archive"])?;
    import("digest.tar", &damaged(&good)?, &["digest.tar", "digest"])?;
    for (name, archive, entry) in hostile()? {
        import(name, &archive, &[name, entry])?;
    }
    ensure!(!std::path::Path::new("/dray-e2e-escape").exists(), "an archive wrote outside of the store");
    Ok(())
}

/// The archive with one byte of its largest file, a layer, changed.
fn damaged(good: &[u8]) -> Result<Vec<u8>> {
    let magic = good.windows(3).position(|bytes| bytes == [0x1f, 0x8b, 8]).context("no gzip layer")?;
    let mut bytes = good.to_vec();
    bytes[magic + 2_000] ^= 1;
    Ok(bytes)
}

/// Docker archives whose layer climbs out, and the entry that does: by its name, and by a hard link to what a symbolic
/// link leads to. (Symbolic links themselves lead within the layer, wherever they point.)
fn hostile() -> Result<Vec<(&'static str, Vec<u8>, &'static str)>> {
    let climbing = entry("../../../../dray-e2e-escape", b'0', "", b"out")?;
    let mut through = entry("link", b'2', "../../../../../etc", b"")?;
    through.extend(entry("stolen", b'1', "link/passwd", b"")?);
    Ok(vec![
        ("climbing.tar", docker_archive(climbing)?, "dray-e2e-escape"),
        ("through-a-link.tar", docker_archive(through)?, "stolen"),
    ])
}

/// An image of one layer, as `docker save` writes it.
fn docker_archive(mut layer: Vec<u8>) -> Result<Vec<u8>> {
    layer.extend([0; 1024]);
    let digest = Sha256::digest(&layer).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["sha256:{digest}"]}}}}"#
    );
    let manifest = r#"[{"Config":"config.json","RepoTags":["bad:1"],"Layers":["layer.tar"]}]"#;
    let mut archive = entry("manifest.json", b'0', "", manifest.as_bytes())?;
    archive.extend(entry("config.json", b'0', "", config.as_bytes())?);
    archive.extend(entry("layer.tar", b'0', "", &layer)?);
    archive.extend([0; 1024]);
    Ok(archive)
}

/// One entry of a tar archive: header and padded content.
fn entry(name: &str, kind: u8, link: &str, content: &[u8]) -> Result<Vec<u8>> {
    let mut header = [0_u8; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", content.len()));
    put(136, "00000000000\0");
    put(148, "        ");
    put(157, link);
    put(257, "ustar\x0000");
    header[156] = kind;
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut bytes = header.to_vec();
    bytes.write_all(content)?;
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    Ok(bytes)
}

/// Refused, with an error that has all the words in it.
fn refused(cluster: &Cluster, arguments: &[&str], input: &[u8], words: &[&str]) -> Result<()> {
    let shown = || String::from_utf8_lossy(input).chars().take(800).collect::<String>();
    let said = cluster.ctl_refused(arguments, input).with_context(shown)?;
    for word in words {
        ensure!(
            said.contains(word),
            "{arguments:?} should say {word:?}, but says:\n{said}\nof:\n{}",
            shown()
        );
    }
    Ok(())
}
