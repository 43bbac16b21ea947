//! A blocking client, one connection per request. What the agent sends is capped here too.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulkhead_model::{Event, Mode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::{
    ApiError, ArmRequest, Armed, Coverage, Done, EventQuery, Metric, ModeChange, ModeChanged, ModeView, PolicyChange, PolicyView, Reloaded,
    Status, Why, WorkloadView,
};

/// Bytes of an answer.
pub const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of one line of a live view.
pub const LINE_BYTES_MAX: usize = 1024 * 1024;
/// Time for one request. Longer than the server's own limit, so that its word on it arrives.
const REQUEST_SECS_MAX: u64 = 40;
/// A live view that says nothing for so long is dead: the server speaks three times as often.
const SILENCE_SECS_MAX: u64 = 45;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no agent answers on `{}`", socket.display())]
    NotRunning { socket: PathBuf },
    #[error("you may not use `{}`", socket.display())]
    Denied { socket: PathBuf },
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("the agent does not answer in time")]
    Timeout,
    /// It is no agent, or one of another version, or it ended in the middle.
    #[error("the agent's answer cannot be understood: {0}")]
    Protocol(String),
    #[error("cannot connect to `{}`", socket.display())]
    Connect { socket: PathBuf, source: std::io::Error },
}

/// What a live view says next.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    Event(Box<Event>),
    /// So many events were left out, because we were too slow.
    Lagged(u64),
}

#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

impl Client {
    /// Does not connect yet.
    pub fn new(socket: impl Into<PathBuf>) -> Result<Self, ClientError> {
        let socket = socket.into();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
        match runtime {
            Ok(runtime) => Ok(Self { socket, runtime }),
            Err(source) => Err(ClientError::Connect { socket, source }),
        }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status")
    }

    pub fn workloads(&self) -> Result<Vec<WorkloadView>, ClientError> {
        self.get("/v1/workloads")
    }

    pub fn events(&self, query: &EventQuery) -> Result<Vec<Event>, ClientError> {
        self.get(&format!("/v1/events{}", query_string(query)))
    }

    pub fn event(&self, id: u64) -> Result<Event, ClientError> {
        self.get(&format!("/v1/events/{id}"))
    }

    pub fn why(&self, id: u64) -> Result<Why, ClientError> {
        self.get(&format!("/v1/events/{id}/why"))
    }

    pub fn coverage(&self) -> Result<Coverage, ClientError> {
        self.get("/v1/coverage")
    }

    pub fn mode(&self) -> Result<ModeView, ClientError> {
        self.get("/v1/mode")
    }

    pub fn set_mode(&self, selector: Option<String>, mode: Mode) -> Result<ModeChanged, ClientError> {
        let body = serde_json::to_vec(&ModeChange { selector, mode }).map_err(|error| ClientError::Protocol(error.to_string()))?;
        self.ask(Method::PUT, "/v1/mode", "application/json", body)
    }

    pub fn policy(&self) -> Result<PolicyView, ClientError> {
        self.get("/v1/policy")
    }

    pub fn check_policy(&self, text: &str) -> Result<PolicyChange, ClientError> {
        self.ask(Method::PUT, "/v1/policy?check=true", "text/yaml", text.as_bytes().to_vec())
    }

    pub fn apply_policy(&self, text: &str) -> Result<PolicyChange, ClientError> {
        self.ask(Method::PUT, "/v1/policy", "text/yaml", text.as_bytes().to_vec())
    }

    pub fn reload(&self) -> Result<Reloaded, ClientError> {
        self.ask(Method::POST, "/v1/reload", "application/json", Vec::new())
    }

    pub fn down(&self) -> Result<Done, ClientError> {
        self.ask(Method::POST, "/v1/down", "application/json", Vec::new())
    }

    /// Waits for the answer no longer than `patience`, whatever the agent does.
    pub fn arm(&self, request: &ArmRequest, patience: Duration) -> Result<Armed, ClientError> {
        let body = serde_json::to_vec(request).map_err(|error| ClientError::Protocol(error.to_string()))?;
        self.ask_within(patience, Method::POST, "/v1/arm", "application/json", body)
    }

    pub fn metrics(&self) -> Result<Vec<Metric>, ClientError> {
        self.get("/v1/metrics")
    }

    /// Live events; with `since` or `limit` in the query, what the store has comes first.
    pub fn follow(&self, query: &EventQuery) -> Result<LiveView<'_>, ClientError> {
        let path = format!("/v1/events/follow{}", query_string(query));
        let response = self.runtime.block_on(limited(self.send(Method::GET, &path, "application/json", Vec::new())))?;
        if !response.status().is_success() {
            return Err(self.runtime.block_on(limited(refusal(response))));
        }
        Ok(LiveView { client: self, body: response.into_body(), pending: Vec::new(), searched: 0 })
    }

    /// The answer's text as it is, for `curl`-like uses.
    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, "application/json", Vec::new())
    }

    fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, content_type: &str, body: Vec<u8>) -> Result<T, ClientError> {
        self.ask_within(Duration::from_secs(REQUEST_SECS_MAX), method, path, content_type, body)
    }

    fn ask_within<T: DeserializeOwned>(
        &self,
        patience: Duration,
        method: Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<T, ClientError> {
        let asked = async {
            let response = self.send(method, path, content_type, body).await?;
            if !response.status().is_success() {
                return Err(refusal(response).await);
            }
            let bytes = whole(response.into_body()).await?;
            serde_json::from_slice(&bytes).map_err(|error| ClientError::Protocol(error.to_string()))
        };
        self.runtime.block_on(async { timeout(patience, asked).await.unwrap_or(Err(ClientError::Timeout)) })
    }

    async fn send(&self, method: Method, path: &str, content_type: &str, body: Vec<u8>) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| self.not_connected(source))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "bulkhead")
            .header("content-type", content_type)
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| ClientError::Protocol(error.to_string()))?;
        sender.send_request(request).await.map_err(broken)
    }

    fn not_connected(&self, source: std::io::Error) -> ClientError {
        let socket = self.socket.clone();
        match source.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => ClientError::NotRunning { socket },
            ErrorKind::PermissionDenied => ClientError::Denied { socket },
            _ => ClientError::Connect { socket, source },
        }
    }
}

/// An open live view.
#[derive(Debug)]
pub struct LiveView<'a> {
    client: &'a Client,
    body: Incoming,
    pending: Vec<u8>,
    /// Bytes of `pending` known to hold no line feed.
    searched: usize,
}

impl LiveView<'_> {
    /// Waits for at most `patience`, for ever without it. `Ok(None)`: nothing yet. An agent that ended is an error.
    pub fn next(&mut self, patience: Option<Duration>) -> Result<Option<Update>, ClientError> {
        let silence = Duration::from_secs(SILENCE_SECS_MAX);
        loop {
            while let Some(line) = self.take_line() {
                if let Some(update) = read_update(&line)? {
                    return Ok(Some(update));
                }
            }
            if self.pending.len() > LINE_BYTES_MAX {
                return Err(ClientError::Protocol("a line without end".to_owned()));
            }
            let wait = patience.unwrap_or(silence);
            let body = &mut self.body;
            match self.client.runtime.block_on(async { timeout(wait, body.frame()).await }) {
                Err(_) if patience.is_some() => return Ok(None),
                Err(_) => return Err(ClientError::Timeout),
                Ok(None) => return Err(ClientError::NotRunning { socket: self.client.socket.clone() }),
                Ok(Some(Err(_))) => return Err(ClientError::NotRunning { socket: self.client.socket.clone() }),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.pending.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let Some(at) = self.pending.get(self.searched..)?.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.pending.len();
            return None;
        };
        let rest = self.pending.split_off(self.searched + at + 1);
        self.searched = 0;
        Some(std::mem::replace(&mut self.pending, rest))
    }
}

/// `None`: a sign of life, or a line of a kind that is not known to us.
fn read_update(line: &[u8]) -> Result<Option<Update>, ClientError> {
    #[derive(Deserialize)]
    struct Kind {
        event_type: String,
        #[serde(default)]
        lagged: u64,
    }
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let kind: Kind = serde_json::from_slice(line).map_err(|error| ClientError::Protocol(error.to_string()))?;
    if kind.event_type == "lagged" {
        return Ok(Some(Update::Lagged(kind.lagged)));
    }
    Ok(serde_json::from_slice(line).ok().map(|event| Update::Event(Box::new(event))))
}

async fn limited<T>(asked: impl Future<Output = T>) -> T
where
    T: TimedOut,
{
    timeout(Duration::from_secs(REQUEST_SECS_MAX), asked).await.unwrap_or_else(|_| T::timed_out())
}

trait TimedOut {
    fn timed_out() -> Self;
}

impl<T> TimedOut for Result<T, ClientError> {
    fn timed_out() -> Self {
        Err(ClientError::Timeout)
    }
}

impl TimedOut for ClientError {
    fn timed_out() -> Self {
        Self::Timeout
    }
}

async fn refusal(response: Response<Incoming>) -> ClientError {
    let status = response.status();
    match whole(response.into_body()).await {
        Ok(body) => match serde_json::from_slice::<ApiError>(&body) {
            Ok(error) => ClientError::Api(error),
            Err(_) => ClientError::Protocol(format!("status {status} without a reason")),
        },
        Err(error) => error,
    }
}

async fn whole(body: Incoming) -> Result<Bytes, ClientError> {
    match Limited::new(body, ANSWER_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ClientError::Protocol(format!("it is larger than {ANSWER_BYTES_MAX} bytes"))),
        Err(error) => Err(ClientError::Protocol(error.to_string())),
    }
}

fn broken(error: hyper::Error) -> ClientError {
    ClientError::Protocol(error.to_string())
}

/// `?limit=10&type=alert`, percent-encoded; empty for a query without conditions.
fn query_string(query: &impl Serialize) -> String {
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(query) else { return String::new() };
    let pairs: Vec<String> = fields
        .iter()
        .map(|(key, value)| match value {
            serde_json::Value::String(text) => format!("{key}={}", percent(text)),
            other => format!("{key}={}", percent(&other.to_string())),
        })
        .collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// RFC 3986, section 2.1, with all but the unreserved characters of section 2.3 encoded.
fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_written_so_that_nothing_in_it_can_be_taken_for_syntax() {
        let query = EventQuery {
            workload: Some("a&limit=1 ü+".to_owned()),
            types: "alert,drop".parse().unwrap(),
            limit: Some(5),
            ..EventQuery::default()
        };
        assert_eq!(query_string(&query), "?limit=5&type=alert%2Cdrop&workload=a%26limit%3D1%20%C3%BC%2B");
        assert_eq!(query_string(&EventQuery::default()), "");
    }
}
