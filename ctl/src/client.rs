//! One request to whichever scheduler answers.
//!
//! Any scheduler serves the API. One that can't be reached, or that has no
//! leader, is passed over for the next, with the same request: writes carry a
//! request id, so that one which did arrive isn't done twice.

use crate::connection::{Connection, Endpoints};
use crate::error::CallError;
use dray_proto::connect::Whom;
use dray_proto::status::{details, leader_hint};
use dray_proto::tls::Credentials;
use std::cell::Cell;
use std::error::Error as _;
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

/// How long a request is tried when nothing else was said.
const TIMEOUT: Duration = Duration::from_secs(30);
/// After this long without an answer the next scheduler is asked.
pub(crate) const ATTEMPT: Duration = Duration::from_secs(10);
/// The longest answer that is taken: a list of everything in a large cluster.
pub(crate) const ANSWER_BYTES: usize = 512 << 20;
/// Between two rounds through all schedulers.
const PAUSE: Duration = Duration::from_millis(250);

/// The schedulers of one cluster.
pub(crate) struct Client {
    places: Vec<Place>,
    /// The place that answered last; asked first.
    current: Cell<usize>,
    timeout: Option<Duration>,
}

/// One scheduler.
struct Place {
    name: String,
    channel: Channel,
}

/// How long to wait for schedulers that can't be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Say so after the second round: there may never have been any.
    Short,
    /// Until the time is up: they were there a moment ago.
    Long,
}

impl Client {
    /// Prepares connections; none is made yet.
    pub(crate) fn new(connection: &Connection) -> anyhow::Result<Client> {
        let places = match connection.endpoints()? {
            Endpoints::Sockets(paths) => paths.iter().map(|path| socket(path)).collect::<Result<_, _>>()?,
            Endpoints::Servers { servers, files } => {
                let credentials = Credentials::load(&files)?;
                servers.iter().map(|server| tcp(&credentials, server)).collect::<Result<_, _>>()?
            }
        };
        Ok(Client { places, current: Cell::new(0), timeout: connection.timeout })
    }

    /// How long the user wants to wait for a result, if limited.
    pub(crate) fn wait_limit(&self) -> Option<Duration> {
        self.timeout
    }

    /// Whether a status means that another scheduler may do better.
    pub(crate) fn may_try_again(status: &Status) -> bool {
        Trouble::of(status).is_some()
    }

    /// Sends a request until a scheduler answers. `request` is called once per
    /// attempt and must send the same each time.
    pub(crate) async fn call<T, F>(&self, request: impl Fn(Channel) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_with(Patience::Short, Some(ATTEMPT), request).await
    }

    /// As [`Client::call`], with a choice of patience and of the time that one
    /// attempt may take (`None`: as long as the user wants).
    pub(crate) async fn call_with<T, F>(
        &self,
        patience: Patience,
        attempt: Option<Duration>,
        request: impl Fn(Channel) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + self.timeout.unwrap_or(TIMEOUT);
        let mut round = Round::default();
        loop {
            let place = &self.places[self.current.get()];
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = attempt.map(|limit| limit.min(left)).or(self.timeout.map(|_| left));
            let status = match limited(limit, request(place.channel.clone())).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => status,
            };
            let Some(trouble) = Trouble::of(&status) else { return Err(CallError::Refused(status.into())) };
            round.tried.push(Tried { place: place.name.clone(), trouble, status });
            self.current.set((self.current.get() + 1) % self.places.len());
            if round.tried.len() < self.places.len() {
                continue;
            }
            if round.is_last(patience) || Instant::now() + PAUSE >= deadline {
                return Err(round.error());
            }
            tokio::time::sleep(PAUSE).await;
            round = Round { number: round.number + 1, tried: Vec::new() };
        }
    }
}

/// A channel to a scheduler's Unix socket.
fn socket(path: &std::path::Path) -> anyhow::Result<Place> {
    let path = std::path::absolute(path)?;
    let endpoint = Endpoint::from_shared(format!("unix://{}", path.display()))?;
    Ok(Place { name: path.display().to_string(), channel: endpoint.connect_lazy() })
}

/// A channel to a scheduler's address.
fn tcp(credentials: &Credentials, server: &str) -> anyhow::Result<Place> {
    let malformed =
        || anyhow::anyhow!("{server:?} is not an address: write HOST:PORT, for instance 10.0.0.5:7000");
    let (host, port) = server.rsplit_once(':').ok_or_else(malformed)?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(malformed());
    }
    let channel = credentials.channel_to(server, Whom::AnyScheduler)?;
    Ok(Place { name: server.to_owned(), channel })
}

async fn limited<T>(
    limit: Option<Duration>,
    request: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match limit {
        None => request.await,
        Some(limit) => tokio::time::timeout(limit, request)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))),
    }
}

/// Why another scheduler is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// The connection failed.
    Unreachable,
    /// It can't serve now, for want of a leader or of time.
    NotNow,
    /// It answers that somebody behind it, such as a node, isn't there.
    Behind,
}

impl Trouble {
    /// `None`: the status is the cluster's answer.
    fn of(status: &Status) -> Option<Trouble> {
        match status.code() {
            Code::Unavailable if root_cause(status).is_some() => Some(Trouble::Unreachable),
            Code::Unavailable if matches!(details(status).reason.as_str(), "NoLeader" | "Unknown") => {
                Some(Trouble::NotNow)
            }
            Code::Unavailable => Some(Trouble::Behind),
            Code::DeadlineExceeded => Some(Trouble::NotNow),
            Code::Unknown | Code::Cancelled | Code::Internal => {
                root_cause(status).map(|_| Trouble::Unreachable)
            }
            Code::FailedPrecondition => leader_hint(status).map(|_| Trouble::NotNow),
            Code::Ok
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::DataLoss
            | Code::Unauthenticated => None,
        }
    }
}

/// What is at the bottom of a failed connection; nothing for an answer.
fn root_cause(status: &Status) -> Option<String> {
    let mut cause = status.source()?;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Some(cause.to_string())
}

/// One pass through all schedulers.
#[derive(Default)]
struct Round {
    number: u32,
    tried: Vec<Tried>,
}

/// One attempt that failed.
struct Tried {
    place: String,
    trouble: Trouble,
    status: Status,
}

impl Round {
    /// Whether another round makes no sense.
    fn is_last(&self, patience: Patience) -> bool {
        let temporary = self.tried.iter().any(|tried| tried.trouble == Trouble::NotNow);
        patience == Patience::Short && !temporary && self.number > 0
    }

    /// The answer of a scheduler, if one of them gave any.
    fn error(self) -> CallError {
        let why = |tried: &Tried| root_cause(&tried.status).unwrap_or_else(|| tried.status.message().into());
        let places = self.tried.iter().map(|tried| (tried.place.clone(), why(tried))).collect();
        let answer = self.tried.into_iter().find(|tried| tried.trouble != Trouble::Unreachable);
        match answer {
            Some(answer) if answer.status.code() != Code::DeadlineExceeded => {
                CallError::Refused(answer.status.into())
            }
            Some(_) | None => CallError::NoAnswer { tried: places },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dray_proto::status::{not_leader, with_reason};

    #[test]
    fn only_what_another_scheduler_may_do_better_is_tried_again() {
        let broken = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let mut lost = Status::new(Code::Unavailable, "transport error");
        lost.set_source(std::sync::Arc::new(broken));
        for (status, trouble) in [
            (lost, Some(Trouble::Unreachable)),
            (with_reason(Code::Unavailable, "NoLeader", "election"), Some(Trouble::NotNow)),
            (not_leader(Some("10.77.0.1:7000")), Some(Trouble::NotNow)),
            (Status::deadline_exceeded("slow"), Some(Trouble::NotNow)),
            (Status::unavailable("node-1: no connection"), Some(Trouble::Behind)),
            (Status::failed_precondition("not running"), None),
            (Status::internal("a defect"), None),
            (Status::not_found("no such task"), None),
        ] {
            assert_eq!(Trouble::of(&status), trouble, "{status:?}");
        }
    }

    #[test]
    fn rounds_end_soon_where_nobody_is_and_the_best_reason_is_told() {
        let tried = |trouble, status| Tried { place: "a".into(), trouble, status };
        let dead = || tried(Trouble::Unreachable, Status::unavailable("refused"));
        let electing =
            || tried(Trouble::NotNow, with_reason(Code::Unavailable, "NoLeader", "no leader is known"));
        for (number, tried, patience, last) in [
            (0, vec![dead()], Patience::Short, false),
            (1, vec![dead()], Patience::Short, true),
            (9, vec![dead()], Patience::Long, false),
            (9, vec![dead(), electing()], Patience::Short, false),
        ] {
            assert_eq!(Round { number, tried }.is_last(patience), last);
        }
        let error = Round { number: 1, tried: vec![dead(), electing()] }.error();
        assert_eq!(error.to_string(), "no leader is known (NoLeader)");
        assert!(Round { number: 1, tried: vec![dead()] }.error().to_string().contains("a: refused"));
    }
}
