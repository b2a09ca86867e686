//! Containers on the real kernel: what they see, and how they end.

mod node;

use container_runtime::{CreateError, Refusal, RequestError};
use node::{Node, sh};

#[test]
fn exit_codes_and_signals_are_recorded() {
    let node = Node::new();
    let check = |name: &str, script: &str, code, signal| {
        let bundle = node.script(name, script);
        let (exit, _) = node.run(&bundle);
        assert_eq!((exit.code, exit.signal, exit.oom), (code, signal, false), "{script}");
        let state = node.runtime.last_state(&bundle.instance).expect("read").expect("a record");
        assert_eq!(state.exit, Some(exit), "the record on disk");
    };
    check("true@1", "exit 0", 0, None);
    check("false@1", "exit 1", 1, None);
    check("seven@1", "exit 7", 7, None);
    check("segv@1", "sh -c 'kill -SEGV $$'; exit $?", 139, None);
}

#[test]
fn it_sees_only_itself() {
    let node = Node::new();
    let mut overrides = sh(
        "echo pid $$; echo /proc/[0-9]*; hostname; cat /proc/self/cgroup; cat /proc/net/dev | grep -c :; \
                            id -u; cat /proc/self/uid_map; ls -ld /proc/1/cwd/ | grep -c root; umask",
    );
    overrides.hostname = Some("box".into());
    let (exit, log) = node.run(&node.bundle("view@1", &overrides));
    assert_eq!(exit.code, 0, "{log:#?}");
    assert_eq!(log[..3], ["pid 1", "/proc/1", "box"]);
    println!("{log:#?}");
}

#[test]
fn a_missing_command_is_the_images_fault() {
    let node = Node::new();
    let bundle = node.bundle(
        "none@1",
        &container_runtime::Overrides { args: Some(vec!["foo".into()]), ..Default::default() },
    );
    let refusal = match node.runtime.create(&bundle) {
        Err(CreateError::Request(RequestError::Refused(refusal))) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(refusal, Refusal::Program { message: "command not found in image: foo".into(), code: 127 });
    let state = node.runtime.last_state(&bundle.instance).expect("read").expect("a record");
    let exit = state.exit.expect("exited");
    assert_eq!((exit.code, exit.error.as_deref()), (127, Some("command not found in image: foo")));
}
