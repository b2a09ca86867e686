//! How long a container takes from nothing to running, to its end, and to nothing; and what its shim weighs.
//!
//! `cargo bench -p container-runtime`. If `runc` is in `PATH`, it does the same on the same image in turns, so that the
//! figures are a ratio of one run on one machine. Needs root and `/bin/busybox` (busybox-static).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use container_runtime::{
    Bundle, CgroupRoot, Event, IdMap, InstanceId, LogLimits, Overrides, Runtime, build_spec, dispatch,
};
use oci_spec::image::ImageConfiguration;

const ROUNDS: usize = 40;

fn main() -> ExitCode {
    if let Some(code) = dispatch(std::env::args_os()) {
        return code;
    }
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lifecycle: {error}");
            ExitCode::FAILURE
        }
    }
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The times of many rounds, by step.
#[derive(Default)]
struct Times {
    create: Vec<Duration>,
    start: Vec<Duration>,
    end: Vec<Duration>,
    delete: Vec<Duration>,
    /// Create, start and delete, without waiting for the program's own end.
    whole: Vec<Duration>,
}

fn measure() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let image = make_image(&dir.path().join("image"))?;
    let cgroups = CgroupRoot::discover(Path::new(&format!("dray-bench-{}", std::process::id())))?;
    cgroups.ensure()?;
    let runtime = Runtime::new(dir.path().join("containers"), dir.path().join("run"))?;
    let runc = has_runc().then(|| prepare_runc(&dir.path().join("runc"), &image)).transpose()?;
    let (mut ours, mut theirs) = (Times::default(), Times::default());
    for round in 0..ROUNDS {
        run_ours(&runtime, &bundle(&runtime, &cgroups, &image, round)?, &mut ours)?;
        if let Some(bundle) = &runc {
            run_runc(bundle, &format!("dray-bench-{}-{round}", std::process::id()), &mut theirs)?;
        }
    }
    report("dray", &mut ours);
    if runc.is_some() {
        report("runc", &mut theirs);
        let ratio = median(&mut theirs.whole).as_secs_f64() / median(&mut ours.whole).as_secs_f64();
        println!("create + start + delete: {ratio:.1} times as fast as runc");
    }
    weigh_shim(&runtime, &bundle(&runtime, &cgroups, &image, ROUNDS)?)?;
    Ok(cgroups.cgroup().remove()?)
}

fn bundle(runtime: &Runtime, cgroups: &CgroupRoot, image: &Path, round: usize) -> Result<Bundle> {
    let instance = InstanceId::new(format!("bench-0@{round}"))?;
    let overrides = Overrides { args: Some(vec!["true".into()]), ..Overrides::default() };
    Ok(Bundle {
        spec: build_spec(&ImageConfiguration::default(), &overrides)?,
        user: None,
        idmap: Some(IdMap::at(800 * 65536)),
        layers: vec![image.to_owned()],
        writable_dir: runtime.instance_dir(&instance),
        cgroup: cgroups.instance(&instance),
        logs: LogLimits::default(),
        files: Vec::new(),
        instance,
    })
}

fn run_ours(runtime: &Runtime, bundle: &Bundle, times: &mut Times) -> Result<()> {
    let begun = Instant::now();
    let container = runtime.create(bundle)?;
    let created = Instant::now();
    let mut events = container.events()?;
    container.start()?;
    let started = Instant::now();
    while !matches!(events.next()?.ok_or("the shim ended")?, Event::Exited { .. }) {}
    let ended = Instant::now();
    runtime.delete(&bundle.instance)?;
    times.add([begun, created, started, ended, Instant::now()]);
    Ok(())
}

impl Times {
    fn add(&mut self, [begun, created, started, ended, deleted]: [Instant; 5]) {
        self.create.push(created - begun);
        self.start.push(started - created);
        self.end.push(ended - started);
        self.delete.push(deleted - ended);
        self.whole.push((started - begun) + (deleted - ended));
    }
}

fn has_runc() -> bool {
    Command::new("runc").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// The same image, user namespace and limits as ours, with the runtime's own default specification.
fn prepare_runc(bundle: &Path, image: &Path) -> Result<PathBuf> {
    fs::create_dir_all(bundle)?;
    run("runc", &["spec"], bundle)?;
    let path = bundle.join("config.json");
    let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = serde_json::json!(["true"]);
    spec["root"]["path"] = image.display().to_string().into();
    spec["root"]["readonly"] = false.into();
    fs::write(&path, serde_json::to_vec(&spec)?)?;
    Ok(bundle.to_owned())
}

fn run_runc(bundle: &Path, name: &str, times: &mut Times) -> Result<()> {
    let begun = Instant::now();
    run("runc", &["create", name], bundle)?;
    let created = Instant::now();
    run("runc", &["start", name], bundle)?;
    let started = Instant::now();
    loop {
        let state = Command::new("runc").args(["state", name]).output()?;
        if String::from_utf8_lossy(&state.stdout).contains("\"stopped\"") {
            break;
        }
    }
    let ended = Instant::now();
    run("runc", &["delete", name], bundle)?;
    times.add([begun, created, started, ended, Instant::now()]);
    Ok(())
}

fn run(program: &str, args: &[&str], dir: &Path) -> Result<()> {
    // Not `output`: the container keeps what it inherits open.
    let status =
        Command::new(program).args(args).current_dir(dir).stdin(std::process::Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("{program} {args:?}: {status}").into()) }
}

fn report(name: &str, times: &mut Times) {
    let mut line = format!("{name}: ");
    let steps: [(&str, &mut Vec<Duration>); 5] = [
        ("create", &mut times.create),
        ("start", &mut times.start),
        ("end", &mut times.end),
        ("delete", &mut times.delete),
        ("create+start+delete", &mut times.whole),
    ];
    for (step, values) in steps {
        let median = median(values);
        line.push_str(&format!("{step} {:.1} ms, ", median.as_secs_f64() * 1e3));
    }
    println!("{line}median of {ROUNDS}");
}

fn median(values: &mut [Duration]) -> Duration {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn weigh_shim(runtime: &Runtime, bundle: &Bundle) -> Result<()> {
    let container = runtime.create(bundle)?;
    let shim = container.status()?.shim.pid;
    let rollup = fs::read_to_string(format!("/proc/{shim}/smaps_rollup"))?;
    let status = fs::read_to_string(format!("/proc/{shim}/status"))?;
    let find = |text: &str, key: &str| {
        text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim().to_owned()
    };
    println!("shim: RssAnon {}, Pss {}", find(&status, "RssAnon:"), find(&rollup, "Pss:"));
    runtime.delete(&bundle.instance)?;
    Ok(())
}

fn make_image(image: &Path) -> Result<PathBuf> {
    for dir in ["bin", "etc", "proc", "sys", "dev"] {
        fs::create_dir_all(image.join(dir))?;
    }
    fs::copy("/bin/busybox", image.join("bin/busybox"))?;
    std::os::unix::fs::symlink("busybox", image.join("bin/true"))?;
    Ok(image.to_owned())
}
