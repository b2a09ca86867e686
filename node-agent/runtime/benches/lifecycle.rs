//! How long each step of a container's life takes, and what its shim weighs. (`make bench` compares the whole with runc.)
//!
//! `cargo bench -p container-runtime`. Needs root and `/bin/busybox` (busybox-static).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
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
    // As on a node, where /run is a tmpfs.
    let run_dir = tempfile::tempdir_in("/dev/shm")?;
    let runtime = Runtime::new(dir.path().join("containers"), run_dir.path())?;
    let mut times = Times::default();
    for round in 0..ROUNDS {
        run(&runtime, &bundle(&runtime, &cgroups, &image, round)?, &mut times)?;
    }
    report(&mut times);
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

fn run(runtime: &Runtime, bundle: &Bundle, times: &mut Times) -> Result<()> {
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

fn report(times: &mut Times) {
    let mut line = String::new();
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
