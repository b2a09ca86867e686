//! Whole clusters of placeholder processes, on the real kernel. Needs root.

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::down::{Leave, take_down};
use super::layout::{Layout, Member};
use super::process::{self, Process};
use super::state::Record;
use super::up::{Programs, Wish, bring_up, open_dir, plan_cluster, process_record, start_member};
use super::{namespaces, parse_label, parse_signal, parse_timing};

/// A cluster in a directory of its own, which is taken down whatever happens.
struct Cluster {
    record: Record,
    programs: Programs,
    dir: tempfile::TempDir,
}

impl Cluster {
    async fn up() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("placeholder");
        fs::write(&program, "#!/bin/sh\nexec sleep 600\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let programs = Programs { scheduler: program.clone(), agent: program };
        let home = dir.path().join("cluster");
        let wish = Wish { schedulers: Some(1), nodes: Some(2), ..Wish::default() };
        let record = plan_cluster(&home, None, &wish).unwrap();
        let cluster = Self { record, programs, dir };
        cluster.up_again().await;
        cluster
    }

    async fn up_again(&self) {
        let _held = open_dir(&self.layout().dir).unwrap();
        bring_up(&self.record, &self.programs, &mut |_| ()).await.unwrap();
    }

    fn down(&self, leave: Leave) {
        take_down(&self.layout().dir, leave, &mut |_| ()).unwrap();
    }

    fn layout(&self) -> &Layout {
        &self.record.layout
    }

    fn process(&self, member: Member) -> Process {
        Process::load(&process_record(self.layout(), member)).unwrap()
    }

    /// Everything outside of its directory that belongs to it.
    fn traces(&self) -> Vec<String> {
        let home = self.layout().dir.to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut traces: Vec<String> =
            mounts.lines().filter(|line| line.contains(home)).map(str::to_owned).collect();
        let netns = namespaces::find_netns(self.layout()).unwrap();
        traces.extend(netns.iter().map(|pin| pin.display().to_string()));
        traces.extend(
            self.record.cgroups.iter().filter(|dir| dir.exists()).map(|dir| dir.display().to_string()),
        );
        traces
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = take_down(&self.layout().dir, Leave::Nothing, &mut |_| ());
    }
}

#[tokio::test]
async fn a_cluster_comes_and_goes_without_a_trace() {
    let cluster = Cluster::up().await;
    let members = cluster.layout().members();
    let processes: Vec<Process> =
        members.iter().filter(|member| member.has_process()).map(|&member| cluster.process(member)).collect();
    assert!(processes.len() == 3 && processes.iter().all(|process| process.is_alive()));

    cluster.up_again().await;
    assert_eq!(cluster.process(Member::node(1)), processes[1], "what runs is left running");

    cluster.down(Leave::Nothing);
    assert!(!processes.iter().any(|process| process.is_alive()));
    assert_eq!(cluster.traces(), [""; 0]);
    assert!(!cluster.layout().dir.exists());
    cluster.down(Leave::Nothing);
}

#[tokio::test]
async fn members_are_on_one_wire_and_nodes_have_their_own_run() {
    let cluster = Cluster::up().await;
    let (layout, node) = (cluster.layout(), Member::node(1));
    let scheduler = Member::scheduler(1);
    let listener =
        namespaces::inside(layout, scheduler, || Ok(TcpListener::bind(scheduler.listen())?)).unwrap();
    let near = namespaces::inside(layout, node, || {
        fs::write("/run/mark", "node-1")?;
        Ok(TcpStream::connect(scheduler.listen())?)
    })
    .unwrap();
    let (mut far, from) = listener.accept().unwrap();
    assert_eq!(from.ip(), node.underlay());
    drop(near);
    assert_eq!(far.read(&mut [0]).unwrap(), 0);

    let seen_by =
        |member| namespaces::inside(layout, member, || Ok(Path::new("/run/mark").exists())).unwrap();
    assert!(seen_by(node) && !seen_by(Member::node(2)) && !seen_by(scheduler));
    // The agent may die; what it had in /run is still there for the next one.
    process::kill(&[cluster.process(node)]).unwrap();
    assert!(start_member(layout, node, &cluster.programs).unwrap().is_some());
    assert!(start_member(layout, node, &cluster.programs).unwrap().is_none());
    let root = format!("/proc/{}/root/run/mark", cluster.process(node).pid);
    assert_eq!(fs::read_to_string(root).unwrap(), "node-1");
}

#[tokio::test]
async fn kept_data_are_found_again() {
    let cluster = Cluster::up().await;
    let layout = cluster.layout();
    let data = layout.data_dir(Member::scheduler(1)).join("log");
    fs::write(&data, "entries").unwrap();
    let certificate = layout.member_dir(Member::node(1)).join("tls/cert.pem");
    let before = fs::read(&certificate).unwrap();

    cluster.down(Leave::Data);
    assert_eq!(cluster.traces(), [""; 0]);
    let kept = plan_cluster(&layout.dir, Record::load(&layout.dir).unwrap(), &Wish::default()).unwrap();
    assert_eq!(kept, cluster.record);
    cluster.up_again().await;
    assert_eq!(fs::read_to_string(&data).unwrap(), "entries");
    assert_eq!(fs::read(&certificate).unwrap(), before);
}

#[tokio::test]
async fn what_was_lost_track_of_goes_too() {
    let cluster = Cluster::up().await;
    let (layout, node) = (cluster.layout(), Member::node(1));
    // A daemon without a record, a shell in a namespace, a stray mount and a container's frozen cgroup.
    let daemon = cluster.process(node);
    fs::remove_file(process_record(layout, node)).unwrap();
    let mut shell = namespaces::inside(layout, Member::scheduler(1), || {
        Ok(std::process::Command::new("sleep").arg("600").spawn()?)
    })
    .unwrap();
    let stray = layout.data_dir(node).join("mnt");
    fs::create_dir(&stray).unwrap();
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), &stray, Some("tmpfs"), flags, None::<&str>).unwrap();
    let cgroup = cluster.record.cgroups[0].join("node-1/redis-0@1");
    fs::create_dir_all(&cgroup).unwrap();

    cluster.down(Leave::Nothing);
    assert!(!daemon.is_alive() && !shell.wait().unwrap().success());
    assert_eq!(cluster.traces(), [""; 0]);
    assert!(!layout.dir.exists());
}

#[tokio::test]
async fn a_half_made_cluster_goes_too() {
    let cluster = Cluster::up().await;
    cluster.down(Leave::Nothing);
    // As far as a crash might have come: a record, a namespace, and a pin that was never bound.
    fs::create_dir_all(cluster.layout().pins()).unwrap();
    cluster.record.store().unwrap();
    namespaces::ensure_netns(&cluster.layout().netns(Member::node(2))).unwrap();
    fs::write(cluster.layout().netns(Member::node(1)), "").unwrap();
    cluster.down(Leave::Nothing);
    assert_eq!(cluster.traces(), [""; 0]);

    // Or the whole directory was deleted by hand, and only namespaces are left.
    namespaces::ensure_netns(&cluster.layout().netns(Member::node(2))).unwrap();
    cluster.down(Leave::Nothing);
    assert_eq!(cluster.traces(), [""; 0]);
}

#[tokio::test]
async fn nothing_of_it_is_in_the_machines_own_network() {
    let links = || {
        let mut names: Vec<_> =
            fs::read_dir("/sys/class/net").unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        (names, fs::read_to_string("/proc/net/route").unwrap())
    };
    let before = links();
    let cluster = Cluster::up().await;
    assert_eq!(links(), before);
    assert!(cluster.dir.path().exists());
}

#[tokio::test]
async fn two_at_once_do_not_meet() {
    let (one, other) = (Cluster::up().await, Cluster::up().await);
    let kept = other.process(Member::node(1));
    one.down(Leave::Nothing);
    assert!(kept.is_alive());
    assert_eq!(namespaces::find_netns(other.layout()).unwrap().len(), 5);
    other.down(Leave::Nothing);
    assert_eq!(other.traces(), [""; 0]);
}

#[test]
fn arguments_are_understood() {
    use nix::sys::signal::Signal;
    for (text, want) in [
        ("KILL", Some(Signal::SIGKILL)),
        ("sigterm", Some(Signal::SIGTERM)),
        ("19", Some(Signal::SIGSTOP)),
        ("bogus", None),
        ("0", None),
    ] {
        assert_eq!(parse_signal(text).ok(), want, "{text}");
    }
    assert_eq!(parse_label("node-2:a/b=c=d"), Ok((2, "a/b".to_owned(), "c=d".to_owned())));
    assert!(["node:a=b", "node-2:a", "scheduler-1:a=b", ""].iter().all(|text| parse_label(text).is_err()));
    assert_eq!(parse_timing("tick_ms=20"), Ok(("tick_ms".to_owned(), 20)));
    assert!(["tick_ms", "=2", "a b=2", "x=y", "x=-1"].iter().all(|text| parse_timing(text).is_err()));
}

#[test]
fn a_wait_for_the_lock_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _held = open_dir(dir.path()).unwrap();
    let refused = take_down(dir.path(), Leave::Nothing, &mut |_| ()).unwrap_err();
    assert!(refused.to_string().contains("another `clusterctl local`"), "{refused}");
}
