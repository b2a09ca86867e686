//! Containers on the real kernel: how they begin and end, and what they see.

mod node;

use container_runtime::{CreateError, Overrides, Phase, Refusal, RequestError, SeedFile};
use node::{Node, sh};

#[test]
fn exit_codes_and_signals_are_recorded() {
    let node = Node::new();
    let check = |name: &str, script: &str, code, signal| {
        let bundle = node.script(name, script);
        let (exit, _) = node.run(&bundle);
        assert_eq!((exit.code, exit.signal, exit.oom), (code, signal, false), "{script}");
        let state = node.runtime.last_state(&bundle.instance).expect("read").expect("a record");
        assert_eq!((state.phase, state.exit), (Phase::Exited, Some(exit)), "the record on disk");
    };
    check("zero@1", "exit 0", 0, None);
    check("one@1", "exit 1", 1, None);
    check("seven@1", "exit 7", 7, None);
    check("segv@1", "sh -c 'kill -SEGV $$'; exit $?", 139, None);
}

#[test]
fn it_is_alone_and_by_itself() {
    let node = Node::new();
    let mut overrides = sh("echo $$ /proc/[0-9]*; hostname; id; cat /proc/self/uid_map; \
                            grep -vc :/$ /proc/self/cgroup; ls /sys/class/net; grep -c . /proc/net/unix");
    overrides.hostname = Some("box".into());
    let (exit, log) = node.run(&node.bundle("view@1", &overrides));
    assert_eq!(exit.code, 0, "{log:#?}");
    let expected = [
        "1 /proc/1",
        "box",
        "uid=0(root) gid=0(root) groups=0(root)",
        "         0   45875200      65536",
        "0",
        "lo",
        "1",
    ];
    assert_eq!(log, expected);
}

#[test]
fn it_runs_as_the_user_it_is_told() {
    let node = Node::new();
    let check = |name: &str, user: &str, expected: [&str; 2]| {
        let mut bundle = node.script(name, "id; echo $HOME; echo reopened > /dev/stdout");
        bundle.user = Some(user.into());
        let (exit, log) = node.run(&bundle);
        assert_eq!((exit.code, &log[..2]), (0, &expected.map(str::to_owned)[..]), "{user}");
        assert_eq!(log[2], "reopened", "another user may reopen its output");
    };
    check("web@1", "web", ["uid=101(web) gid=102(web) groups=102(web),200(logs)", "/srv"]);
    check("number@1", "4000:4001", ["uid=4000 gid=4001 groups=4001", "/"]);
}

#[test]
fn what_can_not_be_run_is_said_clearly() {
    let node = Node::new();
    let check = |name: &str, overrides: Overrides, user: Option<&str>, message: &str, code| {
        let mut bundle = node.bundle(name, &overrides);
        bundle.user = user.map(str::to_owned);
        let refusal = match node.runtime.create(&bundle) {
            Err(CreateError::Request(RequestError::Refused(refusal))) => refusal,
            other => panic!("{other:?}"),
        };
        assert_eq!(refusal, Refusal::Program { message: message.into(), code });
        let exit = node.runtime.last_state(&bundle.instance).expect("read").expect("a record").exit;
        let exit = exit.expect("exited");
        assert_eq!((exit.code, exit.error.as_deref()), (code, Some(message)));
    };
    let args = |args: &[&str]| Overrides {
        args: Some(args.iter().map(|&arg| arg.into()).collect()),
        ..Overrides::default()
    };
    check("none@1", args(&["foo"]), None, "command not found in image: foo", 127);
    check("path@1", args(&["/bin/foo", "x"]), None, "command not found in image: /bin/foo", 127);
    check("dir@1", args(&["/etc"]), None, "command is not executable in image: /etc", 126);
    check("empty@1", args(&[]), None, "no command: neither the image nor the workload names one", 125);
    check("nul@1", args(&["echo", "a\0b"]), None, "command not found in image: echo", 127);
    check("nul@2", args(&["cat", "a\0b"]), None, "argument 1 contains a NUL byte", 125);
    let message = "user not found in image: nobody (no such name in /etc/passwd)";
    check("user@1", sh("true"), Some("nobody"), message, 125);
}

#[test]
fn a_script_without_its_interpreter_fails_at_the_start() {
    let node = Node::new();
    let script = node.image().join("bin/script");
    std::fs::write(&script, "#!/bin/no-such-shell\n").expect("write");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    let bundle =
        node.bundle("script@1", &Overrides { args: Some(vec!["script".into()]), ..Overrides::default() });
    let container = node.runtime.create(&bundle).expect("it is there and executable");
    match container.start() {
        Err(RequestError::Refused(Refusal::Program { message, code: 127 })) => {
            assert!(message.starts_with("the interpreter of /bin/script is not in the image"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(container.status().expect("status").exit.expect("exited").code, 127);
}

#[test]
fn its_network_can_be_set_up_before_it_starts() {
    let node = Node::new();
    let bundle = node.script("net@1", "cat /sys/class/net/lo/operstate");
    let container = node.runtime.create(&bundle).expect("create");
    let init = container.init().expect("ask").expect("init waits");
    let own = std::fs::read_link("/proc/self/ns/net").expect("own");
    let theirs = std::fs::read_link(format!("/proc/{}/ns/net", init.pid())).expect("theirs");
    assert_ne!(own, theirs);
    assert_eq!(container.status().expect("status").phase, Phase::Created);
    assert!(node.log(&bundle).is_empty(), "nothing runs before the start");
    container.start().expect("start");
    assert_eq!(node::wait_exit(&container).code, 0);
}

#[test]
fn files_are_written_into_its_own_layer() {
    let node = Node::new();
    let mut bundle = node.script("files@1", "cat /etc/hosts; ls -ln /etc/hosts /deep/er/file");
    let file =
        |path: &str, content: &str| SeedFile { path: path.into(), content: content.into(), mode: 0o644 };
    bundle.files = vec![file("/etc/hosts", "10.88.0.1 me\n"), file("/deep/er/file", "x")];
    let (exit, log) = node.run(&bundle);
    assert_eq!((exit.code, log[0].as_str()), (0, "10.88.0.1 me"), "{log:#?}");
    assert!(log[1].contains(" 0        0 "), "owned by the container's root: {}", log[1]);
    let upper = bundle.upper_dir().join("etc/hosts");
    let owner =
        std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&upper).expect("in the upper directory"));
    assert_eq!(owner, 0, "plain ids on disk");
    assert!(!node.image().join("etc/hosts").exists(), "the image is untouched");
}

#[test]
fn the_nodes_own_user_namespace_is_possible() {
    let node = Node::new();
    let mut bundle =
        node.script("host@1", "cat /proc/self/uid_map; echo x > /made; grep CapEff /proc/self/status");
    bundle.idmap = None;
    let (exit, log) = node.run(&bundle);
    assert_eq!(exit.code, 0, "{log:#?}");
    assert_eq!(log, ["         0          0 4294967295", "CapEff:\t00000000800425fb"]);
}

#[test]
fn layers_lie_on_top_of_each_other() {
    let node = Node::new();
    let mut bundle =
        node.script("layers@1", "cat /which; ls /etc/gone /etc/passwd; echo own > /which; cat /which");
    for number in 1..=40 {
        let layer = node.dir.path().join(format!("layer-{number}"));
        std::fs::create_dir_all(layer.join("etc")).expect("mkdir");
        std::fs::write(layer.join("which"), format!("layer {number}\n")).expect("write");
        if number == 1 {
            std::fs::write(layer.join("etc/gone"), "").expect("write");
        }
        bundle.layers.push(layer);
    }
    // A whiteout: a device 0:0.
    let gone = node.dir.path().join("layer-40/etc/gone");
    nix::sys::stat::mknod(&gone, nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::empty(), 0)
        .expect("mknod");
    let (_, log) = node.run(&bundle);
    let (mut stdout, stderr): (Vec<_>, Vec<_>) = log.into_iter().partition(|line| !line.starts_with("ls:"));
    stdout.sort();
    assert_eq!(stdout, ["/etc/passwd", "layer 40", "own"]);
    assert_eq!(stderr, ["ls: /etc/gone: No such file or directory"]);
}
