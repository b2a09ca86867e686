//! One container from creation to deletion, beside `runc run` of the same
//! program in the same root file system, in turns.

use crate::report::Report;
use anyhow::{Context, Result, bail, ensure};
use container_runtime::{
    Bundle, CgroupRoot, Container, Event, IdMap, InstanceId, LogLimits, Overrides, Runtime, build_spec,
};
use oci_spec::image::ImageConfiguration;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Where the measured containers' ids begin: beyond any cluster's.
const BASE: u32 = 60_000 * 65_536;
const PATIENCE: Duration = Duration::from_secs(20);

/// Creates, starts, waits for and deletes `count` containers.
pub(crate) fn measure(count: u32, report: &mut Report) -> Result<()> {
    let bench = Bench::new()?;
    let with_runc = Command::new("runc").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !with_runc {
        eprintln!("runc is not installed: no baseline for containers");
    }
    let (mut ours, mut runc) = (Vec::new(), Vec::new());
    for number in 0..count {
        ours.push(timed(|| bench.ours(number))?);
        if with_runc {
            runc.push(timed(|| bench.runc(number))?);
        }
    }
    report.add_spread("container.create_start_delete", &ours, &runc);
    Ok(())
}

/// Milliseconds.
fn timed(run: impl FnOnce() -> Result<()>) -> Result<f64> {
    let began = Instant::now();
    run()?;
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

/// The two runtimes, ready to run `/bin/true`.
struct Bench {
    dir: tempfile::TempDir,
    runtime: Runtime,
    cgroups: CgroupRoot,
}

impl Bench {
    fn new() -> Result<Bench> {
        let dir = tempfile::tempdir().context("a directory")?;
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711))?;
        crate::image::unpack("busybox", &dir.path().join("rootfs"))?;
        let cgroups = CgroupRoot::discover(Path::new("dray-bench"))?;
        cgroups.ensure()?;
        let runtime = Runtime::new(dir.path().join("containers"), dir.path().join("run"))?;
        write_runc_config(dir.path())?;
        Ok(Bench { dir, runtime, cgroups })
    }

    fn bundle(&self, number: u32) -> Result<Bundle> {
        let instance = InstanceId::new(format!("bench-{number}@1"))?;
        let overrides = Overrides { args: Some(vec!["/bin/true".into()]), ..Overrides::default() };
        Ok(Bundle {
            spec: build_spec(&ImageConfiguration::default(), &overrides)?,
            user: None,
            idmap: Some(IdMap::at(BASE)),
            layers: vec![self.rootfs()],
            writable_dir: self.runtime.instance_dir(&instance),
            cgroup: self.cgroups.instance(&instance),
            logs: LogLimits::default(),
            files: Vec::new(),
            instance,
        })
    }

    fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    fn ours(&self, number: u32) -> Result<()> {
        let bundle = self.bundle(number)?;
        let container = self.runtime.create(&bundle)?;
        let events = container.events()?;
        container.start()?;
        wait_for_exit(&container, events)?;
        Ok(self.runtime.delete(&bundle.instance)?)
    }

    fn runc(&self, number: u32) -> Result<()> {
        let mut command = Command::new("runc");
        command
            .arg("--root")
            .arg(self.dir.path().join("runc"))
            .args(["run", "--bundle"])
            .arg(self.dir.path());
        let output = command.arg(format!("bench-{number}")).stdin(Stdio::null()).output().context("runc")?;
        ensure!(output.status.success(), "runc: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for instance in self.runtime.list().unwrap_or_default() {
            if let Err(error) = self.runtime.delete(&instance) {
                eprintln!("delete {instance}: {error}");
            }
        }
        if let Err(error) = self.cgroups.cgroup().remove() {
            eprintln!("remove the cgroup: {error}");
        }
    }
}

fn wait_for_exit(container: &Container, mut events: container_runtime::Events) -> Result<()> {
    let code = loop {
        match events.next_within(PATIENCE)? {
            Some(Event::Exited { exit }) => break exit.code,
            Some(Event::State { state }) => match state.exit {
                Some(exit) => break exit.code,
                None => continue,
            },
            Some(_other) => continue,
            None => bail!("the shim of {} ended", container.instance()),
        }
    };
    ensure!(code == 0, "it ended with {code}");
    Ok(())
}

/// What `runc spec` writes, but for the program and the terminal.
fn write_runc_config(dir: &Path) -> Result<()> {
    if Command::new("runc").arg("spec").current_dir(dir).status().is_err() {
        return Ok(());
    }
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    config["process"]["args"] = json!(["/bin/true"]);
    config["process"]["terminal"] = json!(false);
    std::fs::write(&path, config.to_string()).context("write runc's configuration")
}
