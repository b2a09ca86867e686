//! A node for tests: its own directories, its own cgroup root, a busybox image. All removed when it is dropped.
#![allow(dead_code, reason = "every test file uses another part")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use container_runtime::{
    Bundle, CgroupRoot, Container, Event, Exit, IdMap, InstanceId, LOG_FILE, LogLimits, Overrides, Runtime,
    build_spec,
};
use oci_spec::image::ImageConfiguration;

/// The id range of the tests' containers.
pub(crate) const BASE: u32 = 700 * 65536;

/// Nothing here takes longer unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

static NODES: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Node {
    pub(crate) runtime: Runtime,
    pub(crate) cgroups: CgroupRoot,
    pub(crate) dir: tempfile::TempDir,
}

impl Node {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).expect("chmod");
        let number = NODES.fetch_add(1, Ordering::Relaxed);
        let name = format!("dray-test-{}-{number}", std::process::id());
        let cgroups = CgroupRoot::discover(Path::new(&name)).expect("cgroup layout");
        cgroups.ensure().expect("cgroup root");
        make_image(&dir.path().join("image"));
        let runtime = open_runtime(dir.path());
        Self { runtime, cgroups, dir }
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    /// Another agent over the same directories.
    pub(crate) fn other_agent(&self) -> Runtime {
        open_runtime(self.dir.path())
    }

    pub(crate) fn bundle(&self, name: &str, overrides: &Overrides) -> Bundle {
        let instance = InstanceId::new(name).expect("an id");
        Bundle {
            spec: build_spec(&ImageConfiguration::default(), overrides).expect("a specification"),
            user: None,
            idmap: Some(IdMap::at(BASE)),
            layers: vec![self.image()],
            writable_dir: self.runtime.instance_dir(&instance),
            cgroup: self.cgroups.instance(&instance),
            logs: LogLimits::default(),
            files: Vec::new(),
            instance,
        }
    }

    /// A bundle that runs a shell script.
    pub(crate) fn script(&self, name: &str, script: &str) -> Bundle {
        self.bundle(name, &sh(script))
    }

    pub(crate) fn start(&self, bundle: &Bundle) -> Container {
        let container = self.runtime.create(bundle).expect("create");
        container.start().expect("start");
        container
    }

    /// Runs to the end; how it ended and what it wrote.
    pub(crate) fn run(&self, bundle: &Bundle) -> (Exit, Vec<String>) {
        let container = self.start(bundle);
        let exit = wait_exit(&container);
        (exit, self.log(bundle))
    }

    /// The messages in the log, oldest first.
    pub(crate) fn log(&self, bundle: &Bundle) -> Vec<String> {
        let path = self.runtime.instance_dir(&bundle.instance).join("logs").join(LOG_FILE);
        let text = fs::read_to_string(path).expect("a log");
        let message = |line: &str| {
            let value: serde_json::Value = serde_json::from_str(line).expect("a log line");
            value["m"].as_str().expect("a message").to_owned()
        };
        text.lines().map(message).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for instance in self.runtime.list().unwrap_or_default() {
            if let Err(error) = self.runtime.delete(&instance) {
                eprintln!("delete {instance}: {error}");
            }
        }
        if let Err(error) = self.cgroups.cgroup().remove() {
            eprintln!("remove the cgroup root: {error}");
        }
    }
}

fn open_runtime(dir: &Path) -> Runtime {
    let program = Path::new(env!("CARGO_BIN_EXE_dray-container"));
    Runtime::with_program(dir.join("containers"), dir.join("run"), program).expect("a runtime")
}

fn make_image(image: &Path) {
    for dir in ["bin", "etc", "tmp", "root"] {
        fs::create_dir_all(image.join(dir)).expect("mkdir");
    }
    fs::copy("/bin/busybox", image.join("bin/busybox")).expect("busybox-static must be installed");
    for name in
        ["sh", "cat", "id", "sleep", "true", "false", "ls", "grep", "mount", "hostname", "stty", "tty", "dd"]
    {
        symlink("busybox", image.join("bin").join(name)).expect("link");
    }
    fs::write(image.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:101:102::/srv:/bin/sh\n")
        .expect("write");
    fs::write(image.join("etc/group"), "root:x:0:\nweb:x:102:\nlogs:x:200:web\n").expect("write");
}

pub(crate) fn sh(script: &str) -> Overrides {
    Overrides { args: Some(vec!["sh".into(), "-c".into(), script.into()]), ..Overrides::default() }
}

pub(crate) fn wait_exit(container: &Container) -> Exit {
    let mut events = container.events().expect("events");
    loop {
        match events.next_within(PATIENCE).expect("an event in time").expect("a living shim") {
            Event::Exited { exit } => return exit,
            Event::State { state } => match state.exit {
                Some(exit) => return exit,
                None => continue,
            },
            _other => continue,
        }
    }
}

/// Waits for a condition, never sleeps for a fixed time.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
