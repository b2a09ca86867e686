//! The kinds of things a cluster has, and how to fetch them.

use crate::client::{ANSWER_BYTES, Client};
use crate::error::{CallError, Refusal, Usage};
use dray_proto::v1::cluster_client::ClusterClient;
use dray_proto::v1::images_client::ImagesClient;
use dray_proto::v1::migrations_client::MigrationsClient;
use dray_proto::v1::nodes_client::NodesClient;
use dray_proto::v1::tasks_client::TasksClient;
use dray_proto::v1::workloads_client::WorkloadsClient;
use dray_proto::v1::{self as wire, GetRequest, ListRequest};
use tonic::Status;

/// A kind of thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Workload,
    Task,
    Node,
    Migration,
    Image,
    Event,
}

impl Kind {
    /// All kinds, in the order people list them.
    pub(crate) const ALL: [Kind; 6] =
        [Kind::Workload, Kind::Task, Kind::Node, Kind::Migration, Kind::Image, Kind::Event];

    /// Singular, plural and short name.
    pub(crate) fn names(self) -> [&'static str; 3] {
        match self {
            Kind::Workload => ["workload", "workloads", "wl"],
            Kind::Task => ["task", "tasks", "t"],
            Kind::Node => ["node", "nodes", "no"],
            Kind::Migration => ["migration", "migrations", "mig"],
            Kind::Image => ["image", "images", "img"],
            Kind::Event => ["event", "events", "ev"],
        }
    }

    /// Singular, as in `task/redis-0`.
    pub(crate) fn word(self) -> &'static str {
        self.names()[0]
    }
}

impl std::str::FromStr for Kind {
    type Err = Usage;
    fn from_str(text: &str) -> Result<Kind, Usage> {
        let lower = text.to_ascii_lowercase();
        let found = Kind::ALL.into_iter().find(|kind| kind.names().contains(&lower.as_str()));
        found.ok_or_else(|| {
            let known = Kind::ALL.map(|kind| format!("{} ({})", kind.names()[1], kind.names()[2])).join(", ");
            Usage(format!("there are no {text:?}: use one of {known}"))
        })
    }
}

/// What a command is about: `tasks`, `task redis-0 redis-1` or `task/redis-0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The kind.
    pub(crate) kind: Kind,
    /// Names; empty means all.
    pub(crate) names: Vec<String>,
}

impl Target {
    /// Reads the words of a command line.
    pub(crate) fn parse(words: &[String]) -> Result<Target, Usage> {
        let Some((first, rest)) = words.split_first() else {
            return Err(Usage("say what: for instance `tasks`, or `task redis-0`".into()));
        };
        let Some((kind, _)) = first.split_once('/') else {
            return Ok(Target { kind: first.parse()?, names: rest.to_vec() });
        };
        let kind: Kind = kind.parse()?;
        let names = words.iter().map(|word| match word.split_once('/') {
            Some((other, name)) if other.parse::<Kind>()? == kind && !name.is_empty() => Ok(name.to_owned()),
            Some(_) | None => Err(Usage(format!("{word:?}: expected {}/NAME", kind.word()))),
        });
        Ok(Target { kind, names: names.collect::<Result<_, _>>()? })
    }

    /// As [`Target::parse`], where all won't do.
    pub(crate) fn parse_named(words: &[String]) -> Result<Target, Usage> {
        let target = Target::parse(words)?;
        if target.names.is_empty() {
            return Err(Usage(format!("which {}? give its name", target.kind.word())));
        }
        Ok(target)
    }
}

/// A name that may carry its kind: `redis-0` or `task/redis-0`.
pub(crate) fn bare(kind: Kind, text: &str) -> Result<String, Usage> {
    match text.split_once('/') {
        None => Ok(text.to_owned()),
        Some((prefix, name)) if prefix.parse::<Kind>()? == kind => Ok(name.to_owned()),
        Some(_) => Err(Usage(format!("{text:?} is not a {}", kind.word()))),
    }
}

/// A thing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Object {
    Workload(wire::Workload),
    Task(wire::Task),
    Node(wire::Node),
    Migration(wire::Migration),
    Image(wire::Image),
    Event(wire::Event),
}

impl Object {
    /// Its name; an event's is its index.
    pub(crate) fn name(&self) -> String {
        match self {
            Object::Workload(workload) => workload.name.clone(),
            Object::Task(task) => task.id.clone(),
            Object::Node(node) => node.name.clone(),
            Object::Migration(migration) => migration.name.clone(),
            Object::Image(image) => image.reference.clone(),
            Object::Event(event) => event.index.to_string(),
        }
    }

    /// Its kind.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Object::Workload(_) => Kind::Workload,
            Object::Task(_) => Kind::Task,
            Object::Node(_) => Kind::Node,
            Object::Migration(_) => Kind::Migration,
            Object::Image(_) => Kind::Image,
            Object::Event(_) => Kind::Event,
        }
    }
}

/// Everything of a kind, as a selector chooses.
pub(crate) async fn list(client: &Client, kind: Kind, selector: &str) -> Result<Vec<Object>, CallError> {
    let request = || ListRequest { label_selector: selector.to_owned() };
    Ok(match kind {
        Kind::Workload => {
            let call = async |channel| {
                WorkloadsClient::new(channel).max_decoding_message_size(ANSWER_BYTES).list(request()).await
            };
            client.call(call).await?.workloads.into_iter().map(Object::Workload).collect()
        }
        Kind::Task => {
            let call = async |channel| {
                TasksClient::new(channel).max_decoding_message_size(ANSWER_BYTES).list(request()).await
            };
            client.call(call).await?.tasks.into_iter().map(Object::Task).collect()
        }
        Kind::Node => {
            let call = async |channel| {
                NodesClient::new(channel).max_decoding_message_size(ANSWER_BYTES).list(request()).await
            };
            client.call(call).await?.nodes.into_iter().map(Object::Node).collect()
        }
        Kind::Migration => {
            let call = async |channel| {
                MigrationsClient::new(channel).max_decoding_message_size(ANSWER_BYTES).list(request()).await
            };
            client.call(call).await?.migrations.into_iter().map(Object::Migration).collect()
        }
        Kind::Image => {
            let call = async |channel| {
                ImagesClient::new(channel).max_decoding_message_size(ANSWER_BYTES).list(request()).await
            };
            client.call(call).await?.images.into_iter().map(Object::Image).collect()
        }
        Kind::Event => {
            let call = async |channel| {
                ClusterClient::new(channel)
                    .max_decoding_message_size(ANSWER_BYTES)
                    .list_events(request())
                    .await
            };
            client.call(call).await?.events.into_iter().map(Object::Event).collect()
        }
    })
}

/// One thing by name.
pub(crate) async fn get(client: &Client, kind: Kind, name: &str) -> Result<Object, CallError> {
    let request = || GetRequest { name: name.to_owned() };
    Ok(match kind {
        Kind::Workload => {
            let call = async |channel| WorkloadsClient::new(channel).get(request()).await;
            Object::Workload(client.call(call).await?)
        }
        Kind::Task => Object::Task(task(client, name).await?),
        Kind::Node => {
            let call = async |channel| NodesClient::new(channel).get(request()).await;
            Object::Node(client.call(call).await?)
        }
        Kind::Migration => {
            let call = async |channel| MigrationsClient::new(channel).get(request()).await;
            Object::Migration(client.call(call).await?)
        }
        Kind::Image | Kind::Event => {
            let found = list(client, kind, "").await?.into_iter().find(|object| object.name() == name);
            let missing = || Refusal::from(Status::not_found(format!("there is no {} {name}", kind.word())));
            found.ok_or_else(missing)?
        }
    })
}

/// One task by name.
pub(crate) async fn task(client: &Client, name: &str) -> Result<wire::Task, CallError> {
    let request = || GetRequest { name: name.to_owned() };
    client.call(async |channel| TasksClient::new(channel).get(request()).await).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<(Kind, String), String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Target::parse(&words).map(|t| (t.kind, t.names.join(","))).map_err(|e| e.to_string())
    }

    #[test]
    fn targets() {
        for (line, kind, names) in [
            ("tasks", Kind::Task, ""),
            ("T", Kind::Task, ""),
            ("task redis-0 redis-1", Kind::Task, "redis-0,redis-1"),
            ("task/redis-0 t/redis-1", Kind::Task, "redis-0,redis-1"),
            ("mig m-1", Kind::Migration, "m-1"),
            ("image library/redis:7", Kind::Image, "library/redis:7"),
            ("image/library/redis:7", Kind::Image, "library/redis:7"),
        ] {
            assert_eq!(words(line), Ok((kind, names.into())), "{line}");
        }
        for (line, problem) in [
            ("", "say what"),
            ("pods", "there are no \"pods\": use one of workloads (wl)"),
            ("task/redis-0 node/x", "expected task/NAME"),
            ("task/ x", "expected task/NAME"),
        ] {
            assert!(words(line).unwrap_err().contains(problem), "{line}: {:?}", words(line));
        }
    }

    #[test]
    fn a_name_may_carry_its_kind() {
        assert_eq!(bare(Kind::Task, "task/redis-0").unwrap(), "redis-0");
        assert_eq!(bare(Kind::Task, "redis-0").unwrap(), "redis-0");
        assert!(bare(Kind::Task, "node/node-1").is_err());
    }
}
