//! What a container may not do.

mod node;

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use container_runtime::{CreateError, Overrides, Refusal, RequestError};
use node::{BASE, Node, sh};

#[test]
fn privileges_are_dropped() {
    let node = Node::new();
    let script = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status";
    let (_, log) = node.run(&node.script("root@1", script));
    let expected = [
        "CapInh:\t0000000000000000",
        "CapPrm:\t00000000800425fb",
        "CapEff:\t00000000800425fb",
        "CapBnd:\t00000000800425fb",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ];
    assert_eq!(log, expected);
    let mut bundle = node.script("web@1", script);
    bundle.user = Some("web".into());
    let (_, log) = node.run(&bundle);
    assert_eq!(
        log[1..4],
        ["CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t00000000800425fb"]
    );
}

#[test]
fn capabilities_can_be_added_and_dropped() {
    let node = Node::new();
    let overrides = Overrides {
        drop_capabilities: vec!["all".into()],
        add_capabilities: vec!["NET_ADMIN".into(), "cap_kill".into()],
        ..sh("grep CapEff /proc/self/status")
    };
    let (_, log) = node.run(&node.bundle("caps@1", &overrides));
    assert_eq!(log, ["CapEff:\t0000000000001020"]);
}

#[test]
fn forbidden_calls_are_refused() {
    let node = Node::new();
    // With every capability of its user namespace only the filter stands against these.
    let overrides = |unconfined| Overrides {
        add_capabilities: vec!["SYS_ADMIN".into(), "SYS_TIME".into()],
        unconfined,
        ..sh("exec 2>&1; mount -t tmpfs x /tmp && echo mounted; unshare -m true && echo unshared; true")
    };
    for name in ["unshare", "mount"] {
        let _there = symlink("busybox", node.image().join("bin").join(name));
    }
    let (_, log) = node.run(&node.bundle("filtered@1", &overrides(false)));
    assert_eq!(
        log,
        ["mount: permission denied (are you root?)", "unshare: unshare(0x20000): Operation not permitted",]
    );
    let (_, log) = node.run(&node.bundle("free@1", &overrides(true)));
    assert_eq!(log, ["mounted", "unshared"], "without the filter they work: the test can fail");
}

#[test]
fn the_kernels_files_are_hidden_or_read_only() {
    let node = Node::new();
    let script = "exec 2>&1; cat /proc/keys | grep -c .; ls /sys/firmware | grep -c .; \
                  echo 1 > /proc/sys/kernel/panic; echo 1 > /proc/irq/default_smp_affinity; mkdir /sys/x; \
                  busybox find /sys/fs/cgroup -name pids.max | while read f; do echo 0 > $f; done";
    let (_, log) = node.run(&node.script("hidden@1", script));
    let expected = [
        "0",
        "0",
        "sh: can't create /proc/sys/kernel/panic: Read-only file system",
        "sh: can't create /proc/irq/default_smp_affinity: Read-only file system",
        "mkdir: can't create directory '/sys/x': Read-only file system",
    ];
    assert_eq!(log[..5], expected);
    assert!(log[5].ends_with("pids.max: Read-only file system"), "its own limit: {}", log[5]);
    assert_eq!(log.len(), 6, "one limit, its own: {log:?}");
}

#[test]
fn a_read_only_root_can_not_be_written_but_tmpfs_can() {
    let node = Node::new();
    let overrides = Overrides {
        read_only_root: true,
        ..sh("exec 2>&1; echo x > /file; echo y > /dev/shm/file && cat /dev/shm/file")
    };
    let (_, log) = node.run(&node.bundle("ro@1", &overrides));
    assert_eq!(log, ["sh: can't create /file: Read-only file system", "y"]);
}

#[test]
fn bind_mounts_are_mapped_and_can_be_read_only() {
    let node = Node::new();
    let data = node.dir.path().join("data");
    std::fs::create_dir(&data).expect("mkdir");
    std::fs::write(data.join("file"), "hello\n").expect("write");
    let mount = |destination: &str, options: &[&str]| {
        let value = serde_json::json!({
            "destination": destination, "type": "bind", "source": data, "options": options,
        });
        serde_json::from_value(value).expect("a mount")
    };
    let overrides = Overrides {
        mounts: vec![mount("/data", &["rbind", "idmap"]), mount("/ro", &["rbind", "ro", "idmap"])],
        ..sh("exec 2>&1; cat /data/file; echo x > /ro/file; echo new > /data/new; ls -ln /data/file")
    };
    let (exit, log) = node.run(&node.bundle("bind@1", &overrides));
    assert_eq!(exit.code, 0, "{log:#?}");
    assert_eq!(log[..2], ["hello", "sh: can't create /ro/file: Read-only file system"]);
    assert!(log[2].contains(" 0        0 "), "mapped to the container's root: {}", log[2]);
    let new = std::fs::metadata(data.join("new")).expect("written through");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&new), 0, "and back");
}

#[test]
fn a_hostile_image_leads_nowhere() {
    let check = |name: &str, prepare: &dyn Fn(&Node), expected: Option<&str>| {
        let node = Node::new();
        prepare(&node);
        let created = node.runtime.create(&node.script(name, "echo fine"));
        match (created, expected) {
            (Ok(_), None) => {}
            (
                Err(CreateError::Request(RequestError::Refused(Refusal::Program { message, .. }))),
                Some(expected),
            ) => {
                assert_eq!(message, expected);
            }
            (other, _) => panic!("{name}: {other:?}"),
        }
        let outside = node.dir.path().join("outside");
        assert_eq!(
            std::fs::read_dir(outside).map_or(0, Iterator::count),
            0,
            "{name}: something was made outside"
        );
    };
    let link = |from: &'static str, to: &'static str| {
        move |node: &Node| {
            std::fs::create_dir_all(node.dir.path().join("outside")).expect("mkdir");
            symlink(to, node.image().join(from)).expect("link");
        }
    };
    let refused = |path: &str| {
        format!(
            "{path} in the image is, or leads through, a symbolic link: nothing can safely be mounted there"
        )
    };
    check("proc@1", &link("proc", "/etc"), Some(&refused("/proc")));
    check("dev@1", &link("dev", "../../../../tmp"), Some(&refused("/dev")));
    check("sys@1", &link("sys", "/proc"), Some(&refused("/sys")));
    check("plain@1", &link("srv", "../outside"), None);
}

#[test]
fn devices_are_the_harmless_ones_and_belong_to_it() {
    let node = Node::new();
    let script = "exec 2>&1; ls /dev; echo x > /dev/null; dd if=/dev/zero bs=4 count=1 2>/dev/null | wc -c; mknod /dev/sda b 8 0; \
                  mknod /tmp/null c 1 3";
    for name in ["mknod", "wc"] {
        symlink("busybox", node.image().join("bin").join(name)).expect("link");
    }
    let overrides = Overrides { add_capabilities: vec!["MKNOD".into()], ..sh(script) };
    let (_, log) = node.run(&node.bundle("dev@1", &overrides));
    assert_eq!(
        log,
        [
            "fd",
            "full",
            "mqueue",
            "null",
            "ptmx",
            "pts",
            "random",
            "shm",
            "stderr",
            "stdin",
            "stdout",
            "tty",
            "urandom",
            "zero",
            "4",
            "mknod: /dev/sda: Operation not permitted",
            "mknod: /tmp/null: Operation not permitted",
        ]
    );
}

#[test]
fn its_files_on_the_node_belong_to_nobody_else() {
    let node = Node::new();
    let bundle = node.script("owner@1", "echo x > /file; while :; do sleep 1; done");
    let container = node.start(&bundle);
    let init = container.init().expect("ask").expect("runs").pid();
    node::eventually("it has written", || PathBuf::from(format!("/proc/{init}/root/file")).exists());
    let owner = |path: String| std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(path).expect("there"));
    assert_eq!(owner(format!("/proc/{init}/root/file")), BASE, "as the node sees the container");
    assert_eq!(owner(format!("/proc/{init}")), BASE, "the process itself");
}
