//! Commands run inside of a running container.

mod node;

use std::fs::File;
use std::io::{Read, Write};

use container_runtime::{Container, ExecError, ExecExit, ExecRequest, ExecStdio, Refusal, TerminalSize};
use node::{Node, eventually};

const IDLE: &str = "while :; do sleep 1; done";

fn request(script: &str) -> ExecRequest {
    ExecRequest { args: vec!["sh".into(), "-c".into(), script.into()], ..ExecRequest::default() }
}

/// Feeds `input`, and returns how it ended with what it wrote to both outputs.
fn run(node: &Node, container: &Container, request: &ExecRequest, input: &str) -> (ExecExit, String, String) {
    let mut exec = container.exec(&node.runtime, request).expect("exec");
    let Some(ExecStdio::Pipes { stdin, stdout, stderr }) = exec.take_stdio() else { panic!("no pipes") };
    File::from(stdin).write_all(input.as_bytes()).expect("write");
    let (mut out, mut err) = (String::new(), String::new());
    File::from(stdout).read_to_string(&mut out).expect("read");
    File::from(stderr).read_to_string(&mut err).expect("read");
    (exec.wait().expect("wait"), out, err)
}

#[test]
fn a_command_sees_what_the_container_sees() {
    let node = Node::new();
    let mut bundle = node.script("idle@1", IDLE);
    bundle.user = Some("web".into());
    let container = node.start(&bundle);
    let script = "id -u; cat; echo $EXTRA; pwd; ls -d /proc/1; grep -E 'NoNewPrivs|Seccomp:|CapBnd' /proc/self/status; \
                  cat /proc/self/cgroup | grep -vc ':/$'; echo oops >&2; exit 4";
    let request = ExecRequest { env: vec!["EXTRA=more".into()], cwd: Some("/etc".into()), ..request(script) };
    let (exit, out, err) = run(&node, &container, &request, "input\n");
    assert_eq!(exit, ExecExit { code: 4, signal: None });
    assert_eq!(err, "oops\n");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(
        lines,
        [
            "101",
            "input",
            "more",
            "/etc",
            "/proc/1",
            "CapBnd:\t00000000800425fb",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
            "0",
        ]
    );
    let init = container.init().expect("ask").expect("runs").pid();
    assert!(bundle.cgroup.pids().expect("pids").contains(&init));
}

#[test]
fn a_command_counts_against_the_containers_limits() {
    let node = Node::new();
    let bundle = node.script("idle@1", IDLE);
    let container = node.start(&bundle);
    let exec = container.exec(&node.runtime, &request("while :; do sleep 1; done")).expect("exec");
    eventually("four processes", || bundle.cgroup.pids().expect("pids").len() == 4);
    drop(exec);
    eventually("a dropped command is killed", || bundle.cgroup.pids().expect("pids").len() <= 3);
    assert!(container.init().expect("ask").is_some(), "the container itself is not");
}

#[test]
fn a_command_can_have_a_terminal_and_signals() {
    let node = Node::new();
    let container = node.start(&node.script("idle@1", IDLE));
    let size = TerminalSize { rows: 33, columns: 121 };
    let request = ExecRequest {
        terminal: Some(size),
        ..request("tty; stty size; read line; echo got $line; exec cat")
    };
    let mut exec = container.exec(&node.runtime, &request).expect("exec");
    let Some(ExecStdio::Terminal { master }) = exec.take_stdio() else { panic!("no terminal") };
    let mut master = File::from(master);
    let mut said = String::new();
    let mut until = |master: &mut File, wanted: &str| {
        while !said.contains(wanted) {
            let mut buffer = [0; 1024];
            let length = master.read(&mut buffer).expect("read");
            said.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    };
    until(&mut master, "/dev/pts/0\r\n33 121\r\n");
    master.write_all(b"hello\n").expect("write");
    until(&mut master, "got hello\r\n");
    // Ctrl-C reaches the foreground process of this terminal.
    master.write_all(b"\x03").expect("write");
    assert_eq!(exec.wait().expect("wait"), ExecExit { code: 130, signal: Some(2) });
    let mut exec = container.exec(&node.runtime, &self::request("sleep 100")).expect("exec");
    exec.signal(libc::SIGKILL).expect("signal");
    assert_eq!(exec.wait().expect("wait").signal, Some(9));
}

#[test]
fn what_can_not_be_run_is_said_clearly() {
    let node = Node::new();
    let bundle = node.script("idle@1", IDLE);
    let container = node.runtime.create(&bundle).expect("create");
    let refused = |request: &ExecRequest| match container.exec(&node.runtime, request) {
        Err(ExecError::Refused(refusal)) => refusal.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&request("true")), "exec is not possible: the container isn't running");
    container.start().expect("start");
    let missing = ExecRequest { args: vec!["foo".into()], ..ExecRequest::default() };
    assert!(matches!(
        container.exec(&node.runtime, &missing),
        Err(ExecError::Refused(Refusal::Program { code: 127, .. }))
    ));
    container.pause().expect("pause");
    assert_eq!(refused(&request("true")), "exec is not possible: the container is frozen");
    container.resume().expect("resume");
    let nul = ExecRequest { args: vec!["cat".into(), "\0".into()], ..ExecRequest::default() };
    assert_eq!(refused(&nul), "argument 1 contains a NUL byte");
}
