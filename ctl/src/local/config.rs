//! The daemons' configuration files, as text. Pure.

use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::layout::{CLUSTER_CIDR, Layout, Member, RUN_DIR, Role};

/// What is chosen beyond the cluster's size.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Choices {
    /// `key = value` lines for the schedulers' `[timing]`.
    pub(crate) timing: Vec<(String, u64)>,
    /// Labels, each for the node of this number.
    pub(crate) labels: Vec<(u8, String, String)>,
    /// CPU that each node offers.
    pub(crate) cpu: String,
    /// Memory that each node offers.
    pub(crate) memory: String,
    /// The cgroup below which nodes make theirs, as the agent's configuration wants it.
    pub(crate) cgroup: String,
}

/// A member's configuration file; `None` for a member without a process.
pub(crate) fn config(layout: &Layout, member: Member, choices: &Choices) -> Option<String> {
    match member.role {
        Role::Scheduler => Some(scheduler(layout, member, choices)),
        Role::Node => Some(agent(layout, member, choices)),
        Role::Client => None,
    }
}

fn scheduler(layout: &Layout, member: Member, choices: &Choices) -> String {
    let mut text = format!(
        "id = {}\ndata_dir = {}\nlisten = {}\nunix_socket = {}\ncluster_cidr = {}\n\n[peers]\n",
        member.number,
        path(&layout.data_dir(member)),
        quoted(&member.listen().to_string()),
        path(&layout.socket(member)),
        quoted(CLUSTER_CIDR),
    );
    for number in 1..=layout.schedulers {
        let listen = Member::scheduler(number).listen().to_string();
        line(&mut text, &number.to_string(), &quoted(&listen));
    }
    tls(&mut text, layout, member);
    if !choices.timing.is_empty() {
        text.push_str("\n[timing]\n");
    }
    for (key, value) in &choices.timing {
        line(&mut text, key, &value.to_string());
    }
    text
}

fn agent(layout: &Layout, member: Member, choices: &Choices) -> String {
    let schedulers: Vec<String> = (1..=layout.schedulers)
        .map(|number| quoted(&Member::scheduler(number).listen().to_string()))
        .collect();
    let mut text = String::new();
    line(&mut text, "name", &quoted(&member.to_string()));
    line(&mut text, "data_dir", &path(&layout.data_dir(member)));
    line(&mut text, "run_dir", &quoted(RUN_DIR));
    line(&mut text, "listen", &quoted(&member.listen().to_string()));
    line(&mut text, "underlay_ip", &quoted(&member.underlay().to_string()));
    line(&mut text, "schedulers", &format!("[{}]", schedulers.join(", ")));
    line(&mut text, "cgroup", &quoted(&format!("{}/{member}", choices.cgroup)));
    tls(&mut text, layout, member);
    text.push_str("\n[labels]\n");
    for (_, key, value) in choices.labels.iter().filter(|(node, _, _)| *node == member.number) {
        line(&mut text, &quoted(key), &quoted(value));
    }
    text.push_str("\n[capacity]\n");
    line(&mut text, "cpu", &quoted(&choices.cpu));
    line(&mut text, "memory", &quoted(&choices.memory));
    text
}

fn tls(text: &mut String, layout: &Layout, member: Member) {
    text.push_str("\n[tls]\n");
    for file in ["ca", "cert", "key"] {
        let at = layout.member_dir(member).join("tls").join(format!("{file}.pem"));
        line(text, file, &path(&at));
    }
}

fn line(text: &mut String, key: &str, value: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{key} = {value}");
}

fn path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// A JSON string is also a TOML basic string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(member: Member, choices: &Choices) -> toml::Table {
        let layout = Layout { dir: "/tmp/a \"b\"".into(), schedulers: 3, nodes: 2 };
        config(&layout, member, choices).unwrap().parse().unwrap()
    }

    #[test]
    fn a_scheduler_is_told_who_the_voters_are() {
        let choices = Choices { timing: vec![("tick_ms".to_owned(), 20)], ..Choices::default() };
        let table = parse(Member::scheduler(2), &choices);
        assert_eq!(table["id"].as_integer(), Some(2));
        assert_eq!(table["unix_socket"].as_str(), Some("/tmp/a \"b\"/scheduler-2/api.sock"));
        assert_eq!(table["peers"]["3"].as_str(), Some("10.77.0.3:7000"));
        assert_eq!(table["peers"].as_table().unwrap().len(), 3);
        assert_eq!(table["timing"]["tick_ms"].as_integer(), Some(20));
        assert_eq!(table["tls"]["key"].as_str(), Some("/tmp/a \"b\"/scheduler-2/tls/key.pem"));
    }

    #[test]
    fn a_node_is_told_its_labels_and_capacity() {
        let label = |node: u8| (node, "example.com/zone".to_owned(), format!("z{node}"));
        let choices = Choices {
            labels: vec![label(1), label(2)],
            cpu: "2000m".to_owned(),
            memory: "4Gi".to_owned(),
            cgroup: "dray-local".to_owned(),
            ..Choices::default()
        };
        let table = parse(Member::node(2), &choices);
        assert_eq!(table["name"].as_str(), Some("node-2"));
        assert_eq!(table["schedulers"].as_array().unwrap().len(), 3);
        assert_eq!(table["cgroup"].as_str(), Some("dray-local/node-2"));
        assert_eq!(table["labels"].as_table().unwrap().len(), 1);
        assert_eq!(table["labels"]["example.com/zone"].as_str(), Some("z2"));
        assert_eq!(table["capacity"]["cpu"].as_str(), Some("2000m"));
    }
}
